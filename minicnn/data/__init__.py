"""Data: what there is (datasets), how an image becomes an input (transforms), and who does it (loader)."""

from minicnn.data import transforms
from minicnn.data.datasets import (
    CIFAR10,
    CIFAR100,
    ILSVRC2012,
    MNIST,
    DataError,
    FashionMNIST,
    ImageFolder,
    PhotoCrops,
    Subset,
    open_dataset,
    photos,
)
from minicnn.data.loader import DataLoader

__all__ = ["CIFAR10", "CIFAR100", "DataError", "DataLoader", "FashionMNIST", "ILSVRC2012", "ImageFolder", "MNIST", "PhotoCrops", "Subset",
           "open_dataset", "photos", "transforms"]
