"""Data sets: item i is an image and its class.

Every set has a length, `classes` (their names, in label order), and items `(image, label)`: a uint8 array
(H, W, channels), with 3 channels (RGB) or 1 (grey), and an int.
"""

import gzip
import pathlib
import zlib

import numpy as np
from PIL import Image, ImageOps

EMBEDDED = pathlib.Path(__file__).parent / "embedded"
IMAGE_FILES = {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


class DataError(ValueError):
    """Something is wrong with the data; the message names the file or folder and what to do."""


class ArrayDataset:
    """Images in memory: `images` (N, H, W, channels) uint8 and `labels` (N,) ints."""

    def __init__(self, images, labels, classes):
        self.images, self.labels, self.classes = images, labels.astype(np.int64), list(classes)
        if len(self.images) != len(self.labels):
            raise DataError(f"{type(self).__name__}: {len(self.images)} images but {len(self.labels)} labels")

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], int(self.labels[i])


class FashionMNIST(ArrayDataset):
    """28 x 28 grey pictures of clothes in ten classes (Xiao, Rasul, Vollgraf, arXiv:1708.07747; MIT licence).

    Args:
        split: "train" or "test".
        root: a folder with the original files (train-images-idx3-ubyte.gz ...) for all 60,000 + 10,000 images. By
            default the set that comes with minicnn: the first 800 + 200 of each class.
    """

    CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

    def __init__(self, split="train", root=None):
        check_split(split)
        if root is None:
            with np.load(EMBEDDED / "fashion_mnist_10k.npz") as arrays:
                images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        else:
            stem = pathlib.Path(root) / ("train" if split == "train" else "t10k")
            images, labels = read_idx(f"{stem}-images-idx3-ubyte.gz"), read_idx(f"{stem}-labels-idx1-ubyte.gz")
        super().__init__(images[..., None], labels, self.CLASSES)


class CIFAR10(ArrayDataset):
    """32 x 32 colour pictures in ten classes (Krizhevsky 2009), from the folder `cifar-10-batches-bin` of the "binary version".

    Args:
        root: the folder with data_batch_1.bin ... data_batch_5.bin and test_batch.bin.
        split: "train" or "test".
    """

    CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, root, split="train"):
        check_split(split)
        names = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
        records = []
        for name in names:              # a record is one byte of label, then 1024 red, 1024 green, 1024 blue
            data = np.frombuffer(read_bytes(pathlib.Path(root) / name), np.uint8)
            if len(data) == 0 or len(data) % 3073:
                raise DataError(f"{pathlib.Path(root) / name}: {len(data)} bytes are no whole number of CIFAR-10 records of 3073; "
                                "get it again")
            records.append(data.reshape(-1, 3073))
        data = np.concatenate(records)
        if data[:, 0].max() > 9:
            raise DataError(f"{root}: a label is {data[:, 0].max()}, but CIFAR-10 has 0 to 9; is this CIFAR-100, or damaged?")
        images = np.ascontiguousarray(data[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        super().__init__(images, data[:, 0], self.CLASSES)


class ImageFolder:
    """Photographs in one folder per class: root/<class>/*.jpg, and PNG, WebP, ...; classes in alphabetical order.

    Args:
        root: the folder.
        classes: the names and order that are wanted (those of the training set, say); an error if the folder's differ.

    Raises DataError: no such folder, fewer than two classes, a class without images; and, when such an item is asked
    for, an image that cannot be read, by name.
    """

    def __init__(self, root, classes=None):
        self.root = pathlib.Path(root)
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; a folder with one sub-folder of images for each class is wanted")
        self.classes = sorted(p.name for p in self.root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if len(self.classes) < 2:
            found = f"only the class {self.classes[0]!r}" if self.classes else "no sub-folders"
            raise DataError(f"{self.root}: {found}; there is nothing to tell apart. One sub-folder of images for each class is wanted")
        if classes is not None and list(classes) != self.classes:
            missing, extra = sorted(set(classes) - set(self.classes)), sorted(set(self.classes) - set(classes))
            raise DataError(f"{self.root}: its classes are not those wanted; missing: {missing or 'none'}, not known: {extra or 'none'}")
        self.files: list[pathlib.Path] = []
        self.labels: list[int] = []
        for label, name in enumerate(self.classes):
            files = sorted(p for p in (self.root / name).iterdir() if p.suffix.lower() in IMAGE_FILES and not p.name.startswith("."))
            if not files:
                raise DataError(f"{self.root / name}: no images in this class; put some in, or remove the folder")
            self.files += files
            self.labels += [label] * len(files)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        return read_image(self.files[i]), self.labels[i]


class Subset:
    """`count` images of a data set, evenly spread over it; for a quick look. All of them if it has fewer."""

    def __init__(self, dataset, count):
        self.dataset, self.classes = dataset, dataset.classes
        self.numbers = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, i):
        return self.dataset[int(self.numbers[i])]


def photos():
    """The eight photographs that come with minicnn: a list of (name, uint8 array (H, W, 3))."""
    return [(path.stem, read_image(path)) for path in sorted(EMBEDDED.glob("*.jpg"))]


def read_image(path):
    """A picture file as RGB, upright, uint8 (H, W, 3). DataError that names the file if it cannot be read."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: this image cannot be read ({error}); replace it or remove it") from error


def read_idx(path):
    """The array in an MNIST-style .gz file: two zero bytes, 8 for uint8, the number of axes, their sizes, the data."""
    data = read_bytes(path, gzip.open)
    axes = data[3] if len(data) >= 4 else 0
    if data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * axes:
        raise DataError(f"{path}: not an idx file of bytes; get it again")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", axes, 4))
    if len(data) - 4 - 4 * axes != np.prod(shape, dtype=np.int64):
        raise DataError(f"{path}: cut short or damaged: it should hold {shape}; get it again")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def read_bytes(path, opener=open):
    """A whole file, or a DataError that says it is missing or damaged."""
    try:
        with opener(path, "rb") as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def check_split(split):
    """"train" or "test"."""
    if split not in ("train", "test"):
        raise DataError(f'split is "train" or "test", not {split!r}')
