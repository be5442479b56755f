"""Transforms: preprocessing and augmentation of one image, in steps, each called as transform(image, rng).

An image is an array (H, W, channels) of uint8 or float32, or, at the start, a LazyImage, of which only the cropped pixels get
computed (`minicnn.data.lazy_image`). `rng` is a NumPy Generator of this image in this epoch alone, so its random numbers do not
depend on which worker prepares it, or when. A transform draws the same numbers whatever the image is.

Some transforms select pixels (a crop or a flip is only a view of the image). Others compute (pixel + add) / divide, per channel:
the ChannelAffine transforms. At the end of a pipeline, these are composed into one, and computed for a whole batch at once, on the
GPU if the batch goes there (`minicnn.data.cuda_prefetch`).

    base.py         Compose                                                     several transforms, one after the other
    crop.py         Resize  ScaleJitter  CenterCrop  RandomCrop  RandomResizedCrop
    geometric.py    RandomHorizontalFlip  RandomRotation  RandomTranslate  RandomAspect  RandomRadialDistortion
    color.py        PCAColorJitter  ColorJitter
    normalize.py    Normalize  SubtractMean  MeanImage  ToFloat                 channel_statistics
    presets.py      alexnet_train  alexnet_test  torchvision_test               shorter_side

A custom transform is any function of (image, rng).
"""

from typing import TYPE_CHECKING, NoReturn

from minicnn.data.transforms.base import Compose, compose_affine
from minicnn.data.transforms.color import ColorJitter, PCAColorJitter
from minicnn.data.transforms.crop import CenterCrop, RandomCrop, RandomResizedCrop, Resize, ScaleJitter
from minicnn.data.transforms.geometric import RandomAspect, RandomHorizontalFlip, RandomRadialDistortion, RandomRotation, RandomTranslate
from minicnn.data.transforms.normalize import MeanImage, Normalize, SubtractMean, ToFloat, channel_statistics
from minicnn.data.transforms.presets import IMAGENET_MEAN, IMAGENET_STD, alexnet_test, alexnet_train, shorter_side, torchvision_test

__all__ = ["Compose", "compose_affine",
           "Resize", "ScaleJitter", "CenterCrop", "RandomCrop", "RandomResizedCrop",
           "RandomHorizontalFlip", "RandomRotation", "RandomTranslate", "RandomAspect", "RandomRadialDistortion",
           "PCAColorJitter", "ColorJitter",
           "Normalize", "SubtractMean", "MeanImage", "ToFloat", "channel_statistics",
           "IMAGENET_MEAN", "IMAGENET_STD", "alexnet_train", "alexnet_test", "torchvision_test", "shorter_side"]

# Names of torchvision's transforms, and what to write here.
HINTS = {"ToTensor": "write ToFloat() for pixels of 0 to 1; the DataLoader makes (N, C, H, W) of (H, W, C) by itself",
         "ToPILImage": "leave it out: the transforms take arrays"}

if not TYPE_CHECKING:           # (a type checker would believe that every name exists)
    def __getattr__(name: str) -> NoReturn:
        raise AttributeError(f"minicnn.data.transforms has no {name!r}" + (f": {HINTS[name]}" if name in HINTS else ""))
