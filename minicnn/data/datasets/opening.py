"""What the user named, recognised by the files that are there, as two data sets: one to train with, one to validate."""

import os
from typing import Any

from minicnn.data.datasets.cifar import CIFAR10, CIFAR100
from minicnn.data.datasets.files import DataError, first_that_exists, shown
from minicnn.data.datasets.folder import ImageFolder, class_names, contents
from minicnn.data.datasets.idx import MNIST, FashionMNIST, idx_file
from minicnn.data.datasets.imagenet import ILSVRC2012, looks_like_it
from minicnn.data.datasets.photos import PhotoCrops

PACK_INDEX = "minicnn-pack.json"
VALIDATION = ("val", "validation", "valid", "test")         # what the second folder is called; the first of these that is there

WANTED = """one of these is wanted:
  fashion-mnist, photos                             what comes with minicnn
  DIR/train/<class>/*.jpg and DIR/val/<class>/...   photographs (val may be called validation, valid or test); Imagenette is like this
  DIR/train/<wnid>/*.JPEG and DIR/val/*.JPEG        ImageNet (ILSVRC2012), also as Kaggle has it
  DIR/train and DIR/val                             packed by  minicnn data pack
  cifar-10-batches-bin, cifar-10-batches-py, cifar-100-binary, cifar-100-python
  DIR/train-images-idx3-ubyte.gz and so on          MNIST; Fashion-MNIST if the name of the folder has "fashion" in it"""


def open_dataset(where) -> tuple[Any, Any]:
    """(train, val), the two data sets of what `where` names: a name, or a folder.

    Args:
        where: "fashion-mnist" or "photos"; or a folder that looks like one of these:

            train/ and val/ (or validation/, valid/, test/), with a folder of images for each class in both
            train/ and val/ as ILSVRC2012 gave them out, or Kaggle: see minicnn.data.datasets.imagenet
            train/ and val/ as `minicnn data pack` wrote them
            the folders of CIFAR-10 and CIFAR-100, their binary or their python version
            the idx files of MNIST or, if the folder's name has "fashion" in it, of Fashion-MNIST

    The classes of val are those of train, in the same order. Raises DataError: it is none of these, and what is there; or
    what the data set itself says is wrong with it.
    """
    if where == "fashion-mnist":
        return FashionMNIST("train"), FashionMNIST("test")
    if where == "photos":
        return PhotoCrops("train"), PhotoCrops("val")
    root = str(where)
    if not os.path.isdir(root):
        raise DataError(f"{shown(root)}: {'a file, not a folder' if os.path.exists(root) else 'no such folder'}; {WANTED}")

    def there(*names):
        return any(os.path.isfile(os.path.join(root, name)) for name in names)

    if there("data_batch_1.bin", "data_batch_1", "test_batch.bin", "test_batch"):
        return CIFAR10(root, "train"), CIFAR10(root, "test")
    if there("train.bin", "test.bin") or (there("train") and there("test")):
        return CIFAR100(root, "train"), CIFAR100(root, "test")
    if os.path.exists(idx_file(root, "train-images", 3)):
        if "fashion" in os.path.basename(os.path.abspath(root)).lower():
            return FashionMNIST("train", root), FashionMNIST("test", root)
        return MNIST(root, "train"), MNIST(root, "test")
    if looks_like_it(root):
        train: Any = ILSVRC2012(root, "train")
        return train, ILSVRC2012(root, "val", train.classes)
    if there(PACK_INDEX):
        raise DataError(f"{shown(root)}: one packed set; name the folder above it, with a packed train/ and a packed val/")
    training, validation = os.path.join(root, "train"), first_that_exists(os.path.join(root, name) for name in VALIDATION)
    if os.path.isdir(training) and validation:
        train = open_split(training)
        return train, open_split(validation, train.classes)
    advice = ""
    if os.path.isdir(training):
        advice = "There is train/, but nothing to validate with: move some images of each class to val/. "
    elif len(class_names(root)) > 1 and validation is None:
        advice = "If these are folders of classes, divide them into train/ and val/. "
    raise DataError(f"{shown(root)}: not a data set that minicnn knows; it holds {contents(root)}. {advice}In general, {WANTED}")


def open_split(folder, classes=None):
    """One of the two: packed, or folders of images."""
    if not os.path.exists(os.path.join(folder, PACK_INDEX)):
        return ImageFolder(folder, classes)
    from minicnn.data.packed import Packed
    packed = Packed(folder)
    if classes is not None and list(packed.classes) != list(classes):
        raise DataError(f"{shown(folder)}: its classes are not those of train/, or in another order; pack both again, from one source")
    return packed
