"""The eight photographs that come with minicnn, and pieces of them as a data set for a first look."""

import pathlib

import numpy as np
from PIL import Image

from minicnn.data.datasets.files import check_split
from minicnn.data.datasets.images import read_image
from minicnn.data.picture import Picture

EMBEDDED = pathlib.Path(__file__).parents[1] / "embedded"


def photos():
    """The eight photographs that come with minicnn: a list of (name, uint8 array (H, W, 3))."""
    return [(path.stem, read_image(path)) for path in sorted(EMBEDDED.glob("*.jpg"))]


class PhotoCrops:
    """Pieces of the eight photographs; the class is the photograph. To see a network for photographs learn, in minutes.

    A piece is a square, half as high as its photograph is on its shorter side, at one of 10 x 10 places; every fifth, along the
    diagonals, is for validation: 640 pieces + 160. Pieces overlap, so that validation tells whether the program works, and
    nothing about how well a network would do on photographs that it has never seen.

    Args:
        split: "train" or "val".

    Raises DataError for another split.
    """

    in_memory = True
    PLACES = 10

    def __init__(self, split="train"):
        check_split(split, ("train", "val"))
        named = photos()
        self.classes = [name for name, _ in named]
        self.photos = [photo for _, photo in named]
        self.split = split
        self.places = [(row, column) for row in range(self.PLACES) for column in range(self.PLACES)
                       if ((row + column) % 5 == 4) == (split == "val")]

    def __len__(self):
        return len(self.photos) * len(self.places)

    def __getitem__(self, i):
        label, place = divmod(range(len(self))[i], len(self.places))
        H, W, _ = self.photos[label].shape
        side = min(H, W) // 2
        row, column = self.places[place]
        top, left = row * (H - side) // (self.PLACES - 1), column * (W - side) // (self.PLACES - 1)
        return self.photos[label][top:top + side, left:left + side], label

    def picture(self, i, at_least=None):
        image, label = self[i]
        return Picture(Image.fromarray(np.ascontiguousarray(image))), label

    def name(self, i):
        label, place = divmod(range(len(self))[i], len(self.places))
        row, column = self.places[place]
        return f"the piece of {self.classes[label]} in row {row}, column {column}"

    def fingerprint(self):
        """Its name: the photographs never change."""
        return f"photos {self.split}"
