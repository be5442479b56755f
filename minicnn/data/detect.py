"""Data sets by name or folder: the files in a folder decide which data set it is."""

import os
from collections.abc import Iterable
from typing import Any

from minicnn.data.datasets import CIFAR10, CIFAR100, MNIST, DataError, FashionMNIST, ImageFolder, ImageNet, PhotoCrops
from minicnn.data.datasets.files import first_existing, printable_path
from minicnn.data.datasets.folder import class_names, describe_dir
from minicnn.data.datasets.idx import idx_file
from minicnn.data.datasets.imagenet import is_imagenet_root
from minicnn.data.shards import Packed
from minicnn.data.shards.format import INDEX_FILE

VALIDATION_DIRS = ("val", "validation", "valid", "test")         # in the order of preference

SUPPORTED = """supported data sets:
  fashion-mnist, photos                             included in minicnn
  DIR/train/<class>/*.jpg and DIR/val/<class>/...   photographs (val may be named validation, valid or test); Imagenette is one
  DIR/train/<wnid>/*.JPEG and DIR/val/*.JPEG        ImageNet (ILSVRC2012), also as distributed by Kaggle
  DIR/train and DIR/val                             packed by  minicnn data pack
  cifar-10-batches-bin, cifar-10-batches-py, cifar-100-binary, cifar-100-python
  DIR/train-images-idx3-ubyte.gz and so on          MNIST; Fashion-MNIST if the folder's name contains "fashion\""""


def open_dataset(where: str | os.PathLike[str]) -> tuple[Any, Any]:
    """Open a data set by name or folder; returns (train, val), the training and the validation set.

    Args:
        where: "fashion-mnist" or "photos", or a folder with one of these layouts:

            train/ and val/ (or validation/, valid/, test/), with one folder of images per class in both
            train/ and val/ of ILSVRC2012, as distributed or from Kaggle: see minicnn.data.datasets.imagenet
            train/ and val/ as `minicnn data pack` writes them
            the folders of CIFAR-10 and CIFAR-100, binary or python version
            the idx files of MNIST or, if the folder's name contains "fashion", of Fashion-MNIST

    The classes of val are those of train, in the same order. Raises DataError if the folder has another layout (the message lists its
    content), or if the data set itself is damaged.
    """
    if where == "fashion-mnist":
        return FashionMNIST("train"), FashionMNIST("test")
    if where == "photos":
        return PhotoCrops("train"), PhotoCrops("val")
    root = str(where)
    if not os.path.isdir(root):
        raise DataError(f"{printable_path(root)}: {'a file, not a folder' if os.path.exists(root) else 'no such folder'}; {SUPPORTED}")

    def has_file(*names):
        return any(os.path.isfile(os.path.join(root, name)) for name in names)

    if has_file("data_batch_1.bin", "data_batch_1", "test_batch.bin", "test_batch"):
        return CIFAR10(root, "train"), CIFAR10(root, "test")
    if has_file("train.bin", "test.bin") or (has_file("train") and has_file("test")):
        return CIFAR100(root, "train"), CIFAR100(root, "test")
    if os.path.exists(idx_file(root, "train-images", 3)):
        if "fashion" in os.path.basename(os.path.abspath(root)).lower():
            return FashionMNIST("train", root), FashionMNIST("test", root)
        return MNIST(root, "train"), MNIST(root, "test")
    if is_imagenet_root(root):
        train: Any = ImageNet(root, "train")
        return train, ImageNet(root, "val", train.classes)
    if has_file(INDEX_FILE):
        raise DataError(f"{printable_path(root)}: a single packed set; give the folder above it, with a packed train/ and a packed val/")
    training, validation = os.path.join(root, "train"), first_existing(os.path.join(root, name) for name in VALIDATION_DIRS)
    if os.path.isdir(training) and validation:
        train = load_split(training)
        return train, load_split(validation, train.classes)
    advice = ""
    if os.path.isdir(training):
        advice = "There is train/, but no validation set: move some images of each class to val/. "
    elif len(class_names(root)) > 1 and validation is None:
        advice = "If these are folders of classes, split them into train/ and val/. "
    raise DataError(f"{printable_path(root)}: not a data set that minicnn knows; it contains {describe_dir(root)}. {advice}The {SUPPORTED}")


def load_split(folder: str, classes: Iterable[str] | None = None) -> Any:
    """The data set in train/ or val/: packed, or one folder of images per class."""
    if not os.path.exists(os.path.join(folder, INDEX_FILE)):
        return ImageFolder(folder, classes)
    packed = Packed(folder)
    if classes is not None and list(packed.classes) != list(classes):
        raise DataError(f"{printable_path(folder)}: must have the classes of train/, in the same order; pack both again, from one source")
    return packed
