"""The light changes, the thing does not: colours are varied, so that the network does not rely on them."""

import numpy as np
from PIL import ImageEnhance

from minicnn.data.transforms.pixels import by_pillow
from minicnn.data.transforms.statistics import channel_covariance
from minicnn.data.transforms.step import Arithmetic, Step, check_image, check_number

# As they circulate with published code for AlexNet and ResNet ("Lighting" in fb.resnet.torch and what followed it), for ImageNet's
# pixels of 0 to 1: eigenvalues of the colours' covariance, and for each of red, green, blue a row of the eigenvectors.
IMAGENET_VALUES = (0.2175, 0.0188, 0.0045)
IMAGENET_VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


class PCAColour(Arithmetic):
    """Shift each image's colour along the ways in which the training set's colours differ; AlexNet, section 4.1.

    To every pixel of an image the same is added: p1 a1 s1 + p2 a2 s2 + p3 a3 s3, where the p are the eigenvectors of the covariance
    of (red, green, blue) over all pixels of the training set, the s^2 its eigenvalues, and each a is drawn anew for each image from
    a Gaussian with standard deviation `sigma`.

    The paper's formula has the eigenvalues themselves in place of the s, their roots. They are squares of colours, so what comes out
    depends on the unit: for pixels of 0 to 1 some 5 levels of 255, but for pixels of 0 to 255, where the largest is about 14,000,
    some 1,400 levels, and nothing is left of the image. Its author's later program, cuda-convnet2, multiplies by standard deviations
    (`color_stdevs` in convdata.py), as here: that is the same in every unit.

    Args:
        covariance: (3, 3), of pixels of 0 to 255.
        sigma: the paper's 0.1.
    """

    random = True

    def __init__(self, covariance, sigma=0.1):
        self.covariance = np.asarray(covariance, np.float64)
        if self.covariance.ndim != 2 or len(set(self.covariance.shape)) != 1 or not np.isfinite(self.covariance).all():
            raise ValueError(f"PCAColour: a covariance is a square of numbers, one row for each channel, not {covariance}")
        if not np.allclose(self.covariance, self.covariance.T):
            raise ValueError(f"PCAColour: a covariance is symmetric, and this is not: {covariance}")
        values, vectors = np.linalg.eigh(self.covariance)
        if values[0] < -1e-6 * abs(values[-1]):
            raise ValueError(f"PCAColour: a covariance has no negative eigenvalues, and this has {values[0]:.4g}: {covariance}")
        self.components = vectors * np.sqrt(np.maximum(values, 0))          # columns: one standard deviation along each
        self.sigma = check_number("PCAColour", "sigma", sigma, 0, 10)

    @classmethod
    def fit(cls, dataset, most=None, sigma=0.1):
        """With the covariance over all pixels of a data set (of at most `most` images, evenly spread), one image at a time, exact."""
        return cls(channel_covariance(dataset, most), sigma)

    @classmethod
    def imagenet(cls, sigma=0.1):
        """The shift that published code for ImageNet has, with the numbers that circulate with it.

        It multiplies, for pixels of 0 to 1, by eigenvalues as in the paper's formula: with 0.2175, 0.0188 and 0.0045 where the
        colours' standard deviations are the roots, 0.466, 0.137 and 0.067. So its colours vary half as much along the first, and
        much less along the others, as those of `fit` on ImageNet would.
        """
        scaled = 255 * np.array(IMAGENET_VECTORS) * IMAGENET_VALUES
        return cls(scaled @ scaled.T, sigma)

    def terms(self, rng):
        """The shift of this image, and 1."""
        return (self.components @ rng.normal(0, self.sigma, len(self.components))).astype(np.float32), np.float32(1)


class ColourJitter(Step):
    """Brightness, contrast and saturation, in this order, each by a factor drawn from 1 - amount to 1 + amount. For bytes only.

    Brightness goes from black, contrast from the image's mean grey, saturation from the image in grey; bytes beyond 0 to 255 are cut off.

    Args:
        brightness, contrast, saturation: the amounts, 0 (leave it) to 1.
    """

    random = any_size = True

    def __init__(self, brightness=0.0, contrast=0.0, saturation=0.0):
        self.brightness = check_number("ColourJitter", "brightness", brightness, 0, 1)
        self.contrast = check_number("ColourJitter", "contrast", contrast, 0, 1)
        self.saturation = check_number("ColourJitter", "saturation", saturation, 0, 1)

    def __call__(self, image, rng):
        check_image("ColourJitter", image)
        if image.dtype != np.uint8 or image.shape[2] not in (1, 3):
            raise ValueError(f"ColourJitter: bytes with 1 or 3 channels are wanted, not {image.dtype} with {image.shape[2]}; "
                             "put it before the steps that make floats")
        amounts = np.array([self.brightness, self.contrast, self.saturation])
        return recoloured(image, *(1 + amounts * rng.uniform(-1, 1, 3)).tolist())


def recoloured(image, brightness, contrast, saturation):
    """An image of bytes with each of the three multiplied by a factor; 1 leaves it."""
    kinds = (ImageEnhance.Brightness, brightness), (ImageEnhance.Contrast, contrast), (ImageEnhance.Color, saturation)

    def change(picture):
        for kind, factor in kinds:
            if factor != 1:
                picture = kind(picture).enhance(factor)
        return picture

    return by_pillow(image, change)
