"""Data sets: item i is an image and its class.

Every set has

    len(d), d.classes       how many images; the names of the classes, in label order
    d[i]                    (image, label): a uint8 array (H, W, channels), with 3 channels (RGB) or 1 (grey), and an int
    d.picture(i, at_least)  (Picture, label): to scale and cut before any pixel is computed; of a JPEG only so much is decoded that
                            the shorter side keeps `at_least` pixels
    d.name(i)               which image this is, for a message: its file, where it has one
    d.in_memory             whether items cost next to nothing
    d.fingerprint()         a text that changes when images come, go, or change size

and can be pickled, for other processes to read images too. What cannot be read raises DataError, which names it.
"""

from minicnn.data.datasets.arrays import ArrayDataset, Subset
from minicnn.data.datasets.cifar import CIFAR10, CIFAR100
from minicnn.data.datasets.files import DataError
from minicnn.data.datasets.folder import FileDataset, ImageFolder
from minicnn.data.datasets.idx import MNIST, FashionMNIST
from minicnn.data.datasets.imagenet import ILSVRC2012
from minicnn.data.datasets.images import read_image, read_picture
from minicnn.data.datasets.opening import open_dataset
from minicnn.data.datasets.photos import PhotoCrops, photos

__all__ = ["ArrayDataset", "CIFAR10", "CIFAR100", "DataError", "FashionMNIST", "FileDataset", "ILSVRC2012", "ImageFolder", "MNIST",
           "PhotoCrops", "Subset", "open_dataset", "photos", "read_image", "read_picture"]
