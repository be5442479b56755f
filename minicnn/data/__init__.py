"""Data: what there is (datasets), how an image becomes an input (transforms), and who does it (loader)."""

from minicnn.data import transforms
from minicnn.data.datasets import CIFAR10, DataError, FashionMNIST, ImageFolder, Subset, photos
from minicnn.data.loader import DataLoader

__all__ = ["CIFAR10", "DataError", "DataLoader", "FashionMNIST", "ImageFolder", "Subset", "photos", "transforms"]
