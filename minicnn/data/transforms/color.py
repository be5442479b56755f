"""Color augmentation: the light changes and the object stays, so the network learns not to rely on exact colors."""

from typing import Any

import numpy as np
from PIL import ImageEnhance

from minicnn.data.lazy_image import map_pillow
from minicnn.data.transforms.base import ChannelAffine, Transform, check_image, check_number
from minicnn.data.transforms.normalize import channel_covariance

# Constants that circulate with published code for AlexNet and ResNet ("Lighting" in fb.resnet.torch and its successors), for ImageNet's
# pixels of 0 to 1: eigenvalues of the channels' covariance, and the eigenvectors as columns, one row for each of red, green, blue.
IMAGENET_VALUES = (0.2175, 0.0188, 0.0045)
IMAGENET_VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


class PCAColorJitter(ChannelAffine):
    """Shift each image's color along the principal components of the training set's colors ("fancy PCA"); AlexNet, section 4.1.

    The same p1 a1 s1 + p2 a2 s2 + p3 a3 s3 is added to every pixel of an image, where the p are the eigenvectors of the covariance
    of (red, green, blue) over all pixels of the training set, the s^2 its eigenvalues, and each a is drawn for each image from
    a Gaussian with standard deviation `sigma`.

    The paper's formula has the eigenvalues themselves in place of the s, their roots. They are squares of colors, so the result
    depends on the unit: for pixels of 0 to 1 some 5 levels of 255, but for pixels of 0 to 255, where the largest is about 14,000,
    some 1,400 levels, which destroys the image. Its author's newer program, cuda-convnet2, multiplies by standard deviations
    (`color_stdevs` in convdata.py), as here: that is the same in every unit.

    Args:
        covariance: (C, C), of pixels of 0 to 255.
        sigma: standard deviation of the a; the paper's is 0.1.
    """

    random = True

    def __init__(self, covariance: Any, sigma: float = 0.1) -> None:
        self.covariance = np.asarray(covariance, np.float64)
        if self.covariance.ndim != 2 or len(set(self.covariance.shape)) != 1 or not np.isfinite(self.covariance).all():
            raise ValueError(f"PCAColorJitter: covariance must be a square of finite numbers, one row per channel, got {covariance}")
        if not np.allclose(self.covariance, self.covariance.T):
            raise ValueError(f"PCAColorJitter: covariance must be symmetric, got {covariance}")
        values, vectors = np.linalg.eigh(self.covariance)
        if values[0] < -1e-6 * abs(values[-1]):
            raise ValueError(f"PCAColorJitter: covariance must have no negative eigenvalue, got {values[0]:.4g} for {covariance}")
        self.components = vectors * np.sqrt(np.maximum(values, 0))          # columns: one standard deviation along each
        self.sigma = check_number("PCAColorJitter", "sigma", sigma, 0, 10)

    @classmethod
    def fit(cls, dataset: Any, max_images: int | None = None, sigma: float = 0.1) -> "PCAColorJitter":
        """With the exact covariance over all pixels of a data set (or of `max_images` images, evenly spread), one in memory at a time."""
        return cls(channel_covariance(dataset, max_images), sigma)

    @classmethod
    def imagenet(cls, sigma: float = 0.1) -> "PCAColorJitter":
        """The shift of published code for ImageNet, with the constants that circulate with it.

        That code multiplies, for pixels of 0 to 1, by eigenvalues as in the paper's formula: by 0.2175, 0.0188 and 0.0045, where the
        standard deviations are their roots, 0.466, 0.137 and 0.067. So its colors vary half as much along the first component, and
        much less along the others, as those of `fit` on ImageNet would.
        """
        scaled = 255 * np.array(IMAGENET_VECTORS) * IMAGENET_VALUES
        return cls(scaled @ scaled.T, sigma)

    def scale_and_shift(self, rng: Any = None) -> tuple[Any, Any]:
        """The shift of one image, and 1."""
        return (self.components @ rng.normal(0, self.sigma, len(self.components))).astype(np.float32), np.float32(1)


class ColorJitter(Transform):
    """Change brightness, contrast and saturation, in this order, each by a factor drawn from 1 - amount to 1 + amount; for bytes only.

    Brightness scales the distance from black, contrast that from the image's mean grey, saturation that from the image in grey;
    the result is clipped to 0 to 255.

    Args:
        brightness, contrast, saturation: the amounts, 0 (unchanged) to 1.
    """

    random = any_size = True

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0) -> None:
        self.brightness = check_number("ColorJitter", "brightness", brightness, 0, 1)
        self.contrast = check_number("ColorJitter", "contrast", contrast, 0, 1)
        self.saturation = check_number("ColorJitter", "saturation", saturation, 0, 1)

    def __call__(self, image: Any, rng: Any) -> np.ndarray:
        check_image("ColorJitter", image)
        if image.dtype != np.uint8 or image.shape[2] not in (1, 3):
            raise ValueError(f"ColorJitter: an image must be uint8 with 1 or 3 channels, got {image.dtype} with {image.shape[2]}; "
                             "put it before the transforms that make floats")
        amounts = np.array([self.brightness, self.contrast, self.saturation])
        return adjust_color(image, *(1 + amounts * rng.uniform(-1, 1, 3)).tolist())


def adjust_color(image: Any, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """An image of bytes with each of the three multiplied by a factor; 1 changes nothing."""
    enhancers = (ImageEnhance.Brightness, brightness), (ImageEnhance.Contrast, contrast), (ImageEnhance.Color, saturation)

    def enhance(pillow):
        for enhancer, factor in enhancers:
            if factor != 1:
                pillow = enhancer(pillow).enhance(factor)
        return pillow

    return map_pillow(enhance, image)
