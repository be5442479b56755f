"""The eight photographs that come with minicnn, and a small data set of crops of them."""

import pathlib

import numpy as np

from minicnn.data.datasets.files import check_split
from minicnn.data.datasets.images import read_image
from minicnn.data.lazy_image import LazyImage, to_pillow

EMBEDDED = pathlib.Path(__file__).parents[1] / "embedded"


def photos() -> list[tuple[str, np.ndarray]]:
    """The eight photographs that come with minicnn: a list of (name, uint8 array (H, W, 3))."""
    return [(path.stem, read_image(path)) for path in sorted(EMBEDDED.glob("*.jpg"))]


class PhotoCrops:
    """Crops of the eight photographs; the class is the photograph. Large enough to watch a network for photographs learn, in minutes.

    A crop is a square, half as high as the photograph's shorter side, at one of 10 x 10 grid positions; every fifth position, along the
    diagonals, is for validation: 640 + 160 crops. Crops overlap, so the validation accuracy shows that the program works, but
    does not measure generalization to other photographs.

    Args:
        split: "train" or "val".

    Raises DataError for another split.
    """

    in_memory = True
    GRID = 10                   # positions in a row, and in a column

    def __init__(self, split: str = "train") -> None:
        check_split(split, ("train", "val"))
        named = photos()
        self.classes = [name for name, _ in named]
        self.photos = [photo for _, photo in named]
        self.split = split
        self.positions = [(row, column) for row in range(self.GRID) for column in range(self.GRID)
                          if ((row + column) % 5 == 4) == (split == "val")]

    def __len__(self) -> int:
        return len(self.photos) * len(self.positions)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        label, row, column = self.locate(i)
        H, W, _ = self.photos[label].shape
        side = min(H, W) // 2
        top, left = row * (H - side) // (self.GRID - 1), column * (W - side) // (self.GRID - 1)
        return self.photos[label][top:top + side, left:left + side], label

    def locate(self, i: int) -> tuple[int, int, int]:
        """(label, row, column) of crop i: which photograph, and the position in its grid."""
        label, position = divmod(range(len(self))[i], len(self.positions))
        return label, *self.positions[position]

    def load(self, i: int, min_size: int | None = None) -> tuple[LazyImage, int]:
        """(LazyImage, label) of crop i; always at full size."""
        image, label = self[i]
        return LazyImage(to_pillow(image)), label

    def name(self, i: int) -> str:
        """A name for crop i, for messages; packed sets store it, so it must not change."""
        label, row, column = self.locate(i)
        return f"the piece of {self.classes[label]} in row {row}, column {column}"

    def fingerprint(self) -> str:
        """The name of the split: the photographs never change."""
        return f"photos {self.split}"
