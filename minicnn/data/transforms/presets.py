"""The preprocessing pipelines of the literature, as `Compose` objects."""

from typing import Any

import numpy as np

from minicnn.data.transforms.base import Compose, check_size
from minicnn.data.transforms.crop import CenterCrop, RandomCrop, Resize
from minicnn.data.transforms.geometric import RandomHorizontalFlip
from minicnn.data.transforms.normalize import Normalize, SubtractMean

# Of ImageNet's pixels, red, green, blue, from 0 to 1: the constants that circulate with torchvision's weights.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def alexnet_train(size: int = 227, mean: Any = None, color: Any = None) -> Compose:
    """AlexNet's training transform (sections 2 and 4.1): random crop of the central 256 x 256 pixels, random flip, color shift, mean.

    Args:
        size: of the network's input, in pixels; for sizes other than 224 and 227 the shorter side is scaled in proportion.
        mean: of the training set's pixels (0 to 255): one number, or one per channel. None: ImageNet's, for RGB.
        color: a PCAColorJitter, or None for no color augmentation.
    """
    shorter = shorter_side(size)
    augmentation = [RandomCrop(size, within=shorter), RandomHorizontalFlip(), *([color] if color else [])]
    return Compose(Resize(shorter), *augmentation, subtract_mean(mean))


def alexnet_test(size: int = 227, mean: Any = None) -> Compose:
    """AlexNet's test transform, not random: the central crop. (The paper averages over ten crops: `minicnn.train.predict(tta="10")`.)"""
    return Compose(Resize(shorter_side(size)), CenterCrop(size), subtract_mean(mean))


def torchvision_test(size: int = 224) -> Compose:
    """The test transform of torchvision's weights: shorter side 256, central 224, ImageNet's mean and standard deviation."""
    return Compose(Resize(shorter_side(size)), CenterCrop(size), Normalize(255 * np.array(IMAGENET_MEAN), 255 * np.array(IMAGENET_STD)))


def shorter_side(size: int) -> int:
    """The shorter side to which photographs are resized for crops of `size`: 256 for 224 and 227, others in the proportion 256 : 224."""
    check_size("shorter_side", "size", size)
    return 256 if size in (224, 227) else round(size * 256 / 224)


def subtract_mean(mean):
    """SubtractMean, by default with ImageNet's mean."""
    return SubtractMean(255 * np.array(IMAGENET_MEAN) if mean is None else mean)
