"""MNIST and Fashion-MNIST: small grey images in ten classes, in "idx" files.

An idx file of bytes, compressed (.gz) or not: two zero bytes, 8 (for uint8), the number of axes, the length of each axis as a big-endian
32-bit integer, and the data.
"""

import gzip
import math
import os

import numpy as np

from minicnn.data.datasets.arrays import ArrayDataset
from minicnn.data.datasets.files import DataError, check_split, first_existing, printable_path, read_bytes
from minicnn.data.datasets.photos import EMBEDDED


class MNIST(ArrayDataset):
    """MNIST: 28 x 28 grey images of handwritten digits, 60,000 + 10,000 (LeCun, Cortes, Burges).

    Args:
        root: the folder with train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz, and t10k-... for the test split; also without .gz,
            or as train-images.idx3-ubyte.
        split: "train" or "test".

    Raises DataError: a file is missing, truncated, or of another format.
    """

    CLASSES = tuple("0123456789")

    def __init__(self, root: str | os.PathLike[str], split: str = "train") -> None:
        check_split(split)
        images, labels = read_pair(root, split)
        super().__init__(images, labels, self.CLASSES)


class FashionMNIST(ArrayDataset):
    """Fashion-MNIST: 28 x 28 grey images of clothes in ten classes (Xiao, Rasul, Vollgraf, arXiv:1708.07747; MIT licence).

    Args:
        split: "train" or "test".
        root: a folder with the original files (train-images-idx3-ubyte.gz ...) for all 60,000 + 10,000 images; by default the
            subset that comes with minicnn, the first 800 + 200 of each class.

    Raises DataError: a file is missing, truncated, or of another format.
    """

    CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

    def __init__(self, split: str = "train", root: str | os.PathLike[str] | None = None) -> None:
        check_split(split)
        if root is None:
            with np.load(EMBEDDED / "fashion_mnist_10k.npz") as arrays:
                images, labels = arrays[f"x_{split}"][..., None], arrays[f"y_{split}"]
        else:
            images, labels = read_pair(root, split)
        super().__init__(images, labels, self.CLASSES)


def read_pair(root: str | os.PathLike[str], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, 1) and labels (N,) of a split."""
    stem = "train" if split == "train" else "t10k"
    return read_idx(idx_file(root, f"{stem}-images", 3), 3)[..., None], read_idx(idx_file(root, f"{stem}-labels", 1), 1)


def idx_file(root: str | os.PathLike[str], stem: str, axes: int) -> str:
    """The path of an idx file under one of its usual names; the original name if none exists."""
    paths = [os.path.join(root, f"{stem}{joint}idx{axes}-ubyte{end}") for end in (".gz", "") for joint in "-."]
    return first_existing(paths) or paths[0]


def read_idx(path: str, axes: int) -> np.ndarray:
    """The uint8 array with `axes` axes in an idx file, compressed (.gz) or not. Raises DataError if the file is something else."""
    data = read_bytes(path, gzip.open if path.endswith(".gz") else open)
    found = data[3] if len(data) >= 4 else 0
    if data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * found:
        raise DataError(f"{printable_path(path)}: not an idx file of bytes; download it again")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", found, 4))
    if len(data) - 4 - 4 * found != math.prod(shape):
        raise DataError(f"{printable_path(path)}: truncated or damaged: its header says shape {shape}; download it again")
    if found != axes or 0 in shape:
        raise DataError(f"{printable_path(path)}: must hold {axes} axes, none of length 0, got shape {shape}; is it another file?")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
