"""The input pipeline: data sets (datasets), preprocessing and augmentation (transforms), and batches (loader)."""

from minicnn.data import transforms
from minicnn.data.datasets import (
    CIFAR10,
    CIFAR100,
    MNIST,
    DataError,
    EvenSample,
    FashionMNIST,
    ImageFolder,
    ImageNet,
    PhotoCrops,
    photos,
)
from minicnn.data.detect import open_dataset
from minicnn.data.loader import DataLoader

__all__ = ["CIFAR10", "CIFAR100", "DataError", "DataLoader", "EvenSample", "FashionMNIST", "ImageFolder", "ImageNet", "MNIST", "PhotoCrops",
           "open_dataset", "photos", "transforms"]
