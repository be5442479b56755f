"""MNIST and Fashion-MNIST: small grey pictures in ten classes, in "idx" files.

An idx file is two zero bytes, 8 for uint8, the number of axes, the size of each in four bytes, largest first, and the data. It may be
compressed (.gz) or not.
"""

import gzip
import math
import os

import numpy as np

from minicnn.data.datasets.arrays import ArrayDataset
from minicnn.data.datasets.files import DataError, check_split, first_that_exists, read_bytes, shown
from minicnn.data.datasets.photos import EMBEDDED


class MNIST(ArrayDataset):
    """28 x 28 grey pictures of written digits: 60,000 + 10,000 (LeCun, Cortes, Burges).

    Args:
        root: the folder with train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, and t10k-... for the test; unpacked ones without .gz
            (also called train-images.idx3-ubyte) will do.
        split: "train" or "test".

    Raises DataError: a file is missing, cut short, or something else than it should be.
    """

    CLASSES = tuple("0123456789")

    def __init__(self, root, split="train"):
        check_split(split)
        images, labels = read_pair(root, split)
        super().__init__(images, labels, self.CLASSES)


class FashionMNIST(ArrayDataset):
    """28 x 28 grey pictures of clothes in ten classes (Xiao, Rasul, Vollgraf, arXiv:1708.07747; MIT licence).

    Args:
        split: "train" or "test".
        root: a folder with the original files (train-images-idx3-ubyte.gz ...) for all 60,000 + 10,000 images. By
            default the set that comes with minicnn: the first 800 + 200 of each class.

    Raises DataError: a file is missing, cut short, or something else than it should be.
    """

    CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

    def __init__(self, split="train", root=None):
        check_split(split)
        if root is None:
            with np.load(EMBEDDED / "fashion_mnist_10k.npz") as arrays:
                images, labels = arrays[f"x_{split}"][..., None], arrays[f"y_{split}"]
        else:
            images, labels = read_pair(root, split)
        super().__init__(images, labels, self.CLASSES)


def read_pair(root, split):
    """Images (N, H, W, 1) and labels (N,) of a split."""
    stem = "train" if split == "train" else "t10k"
    return read_idx(idx_file(root, f"{stem}-images", 3), 3)[..., None], read_idx(idx_file(root, f"{stem}-labels", 1), 1)


def idx_file(root, stem, axes):
    """The path of the file under one of the names that it goes by; of the original one if there is none."""
    names = [f"{stem}{joint}idx{axes}-ubyte{end}" for end in (".gz", "") for joint in "-."]
    return first_that_exists(os.path.join(root, name) for name in names) or os.path.join(root, names[0])


def read_idx(path, axes):
    """The array in an idx file of bytes with this many axes, compressed or not. DataError if it is something else, or damaged."""
    data = read_bytes(path, gzip.open if str(path).endswith(".gz") else open)
    found = data[3] if len(data) >= 4 else 0
    if data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * found:
        raise DataError(f"{shown(path)}: not an idx file of bytes; get it again")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", found, 4))
    if len(data) - 4 - 4 * found != math.prod(shape):
        raise DataError(f"{shown(path)}: cut short or damaged: it should hold {shape}; get it again")
    if found != axes or 0 in shape:
        raise DataError(f"{shown(path)}: an array of {shape}, but {axes} axes are wanted, none of them 0; is this another file?")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
