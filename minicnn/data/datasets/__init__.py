"""Data sets: item i is an image and its label.

Every data set can be pickled (so that worker processes can read it) and has

    len(d), d.classes       the number of items; the class names, in label order
    d[i]                    (image, label): a uint8 array (H, W, C), C = 3 (RGB) or 1 (grey), and an int
    d.load(i, min_size)     (LazyImage, label): resized and cropped before any pixel is computed; a large JPEG may be decoded at 1/2, 1/4
                            or 1/8 of its size, as long as its shorter side keeps at least `min_size` pixels
    d.name(i)               the name of item i for messages: the path of its file, if it has one
    d.in_memory             whether the items are in memory, so that reading one costs almost nothing
    d.fingerprint()         a checksum that changes when images are added, removed or resized

An item that cannot be read raises DataError, which names it.
"""

from minicnn.data.datasets.arrays import ArrayDataset, EvenSample
from minicnn.data.datasets.cifar import CIFAR10, CIFAR100
from minicnn.data.datasets.files import DataError
from minicnn.data.datasets.folder import FileDataset, ImageFolder
from minicnn.data.datasets.idx import MNIST, FashionMNIST
from minicnn.data.datasets.imagenet import ImageNet
from minicnn.data.datasets.images import read_image, read_lazy_image
from minicnn.data.datasets.photos import PhotoCrops, photos

__all__ = ["ArrayDataset", "CIFAR10", "CIFAR100", "DataError", "EvenSample", "FashionMNIST", "FileDataset", "ImageFolder", "ImageNet",
           "MNIST", "PhotoCrops", "photos", "read_image", "read_lazy_image"]
