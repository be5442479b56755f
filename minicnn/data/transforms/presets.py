"""The chains of steps that the literature uses."""

import numpy as np

from minicnn.data.transforms.crops import CenterCrop, RandomCrop
from minicnn.data.transforms.motions import RandomMirror
from minicnn.data.transforms.numbers import MeanPixel, Normalize
from minicnn.data.transforms.sizes import Resize
from minicnn.data.transforms.step import Compose, check_size

# Of ImageNet's pixels, for each of red, green, blue, from 0 to 1, as they circulate with torchvision's weights.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def paper_train(size=227, mean=None, colour=None):
    """AlexNet's training images (sections 2 and 4.1): a random crop of the central 256 x 256 pixels, mirrored or not, recoloured, centred.

    Args:
        size: of the network's input, in pixels; for others than 224 and 227 the photographs are scaled in the same proportion.
        mean: of the training set's pixels (0 to 255): one number, or one for each channel. None: ImageNet's, for RGB.
        colour: a PCAColour, or None to leave the colours as they are.
    """
    shorter = shorter_side(size)
    return Compose(Resize(shorter), RandomCrop(size, within=shorter), RandomMirror(), *([colour] if colour else []), mean_pixel(mean))


def paper_test(size=227, mean=None):
    """The same without chance: the central crop. (The paper averages over ten: see `minicnn.data.views`.)"""
    return Compose(Resize(shorter_side(size)), CenterCrop(size), mean_pixel(mean))


def torchvision_test(size=224):
    """What torchvision's weights were tested with: shorter side 256, central 224, ImageNet's mean and standard deviation."""
    return Compose(Resize(shorter_side(size)), CenterCrop(size), Normalize(255 * np.array(IMAGENET_MEAN), 255 * np.array(IMAGENET_STD)))


def shorter_side(size):
    """The length to which the shorter side is scaled for crops of `size`: 256 for 224 and 227, others in the proportion of 256 to 224."""
    check_size("shorter_side", "size", size)
    return 256 if size in (224, 227) else round(size * 256 / 224)


def mean_pixel(mean):
    """MeanPixel, by default with ImageNet's mean."""
    return MeanPixel(255 * np.array(IMAGENET_MEAN) if mean is None else mean)
