"""How an image becomes an input: small steps, each called as step(image, rng).

An image is an array (H, W, channels) of uint8 or float32, or, at the start, a photograph of which only what is cut out gets
computed (`minicnn.data.picture`). `rng` is a NumPy Generator that belongs to this image in this epoch alone, so what is random
does not depend on which worker does it, or when. A step draws the same numbers whatever the image is.

Some steps choose pixels (a crop and a mirror are mere views of the image); others are arithmetic, the same on every pixel:
(pixel + add) / divide, channel by channel. These have a method `terms(rng)` that gives the two, so that the arithmetic of all
steps and all images can be done at once, on a GPU for instance (`minicnn.data.upload`).

    how large       Resize  ScaleJitter                             sizes.py
    which part      CenterCrop  RandomCrop  RandomResizedCrop       crops.py
    turned about    RandomMirror  Rotate  Translate  Stretch        motions.py
    bent            RadialDistortion                                lens.py
    numbers         Normalize  MeanPixel  MeanImage  ToArray        numbers.py
    colours         PCAColour  ColourJitter                         colour.py
    all together    Compose                                         step.py
                    paper_train  paper_test  torchvision_test       presets.py

A step of one's own is any function of (image, rng).
"""

from minicnn.data.transforms.colour import ColourJitter, PCAColour
from minicnn.data.transforms.crops import CenterCrop, RandomCrop, RandomResizedCrop
from minicnn.data.transforms.lens import RadialDistortion
from minicnn.data.transforms.motions import RandomMirror, Rotate, Stretch, Translate
from minicnn.data.transforms.numbers import MeanImage, MeanPixel, Normalize, ToArray
from minicnn.data.transforms.presets import IMAGENET_MEAN, IMAGENET_STD, paper_test, paper_train, shorter_side, torchvision_test
from minicnn.data.transforms.sizes import Resize, ScaleJitter
from minicnn.data.transforms.statistics import channel_statistics
from minicnn.data.transforms.step import Compose, all_terms

__all__ = ["CenterCrop", "ColourJitter", "Compose", "IMAGENET_MEAN", "IMAGENET_STD", "MeanImage", "MeanPixel", "Normalize", "PCAColour",
           "RadialDistortion", "RandomCrop", "RandomMirror", "RandomResizedCrop", "Resize", "Rotate", "ScaleJitter", "Stretch", "ToArray",
           "Translate", "all_terms", "channel_statistics", "paper_test", "paper_train", "shorter_side", "torchvision_test"]
