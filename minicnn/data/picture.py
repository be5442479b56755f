"""A photograph of which only those pixels are computed that somebody looks at.

Training scales a photograph down and cuts a piece out of it; to scale all of it first would be wasted work. So a Picture only
remembers the size it shall have, and computes the pixels of a piece when that is cut out:

    picture = Picture(Image.open(file)).scaled(256, 341)
    crop = picture[10:237, 50:277]                      # a uint8 array (227, 227, 3): only these pixels are scaled

To the steps of minicnn.data.transforms it looks like an array (H, W, channels): it has a shape, it can be cut, mirrored, and
turned into an array, all of it, by numpy.asarray.
"""

import numpy as np
from PIL import Image


class Picture:
    """A Pillow image (RGB or grey, "L"), seen as an array (height, width, 3 or 1) of uint8."""

    def __init__(self, image, height=None, width=None):
        self.image = image
        self.shape = (height or image.height, width or image.width, len(image.getbands()))

    dtype = np.dtype(np.uint8)
    ndim = 3

    def scaled(self, height, width):
        """The same picture, to be looked at in another size (bilinear; where it shrinks, all pixels have their share)."""
        return Picture(self.image, height, width)

    def __getitem__(self, index):
        """A piece, as an array. Only two slices without steps are cut before they are computed; for anything else, all of it is."""
        if not (isinstance(index, tuple) and len(index) == 2 and all(isinstance(i, slice) and i.step in (None, 1) for i in index)):
            return np.asarray(self)[index]
        (top, bottom, _), (left, right, _) = (i.indices(size) for i, size in zip(index, self.shape, strict=False))
        return self.pixels(top, left, max(bottom, top), max(right, left))

    def __array__(self, dtype=None, copy=None):
        return self.pixels(0, 0, *self.shape[:2]).astype(dtype or self.dtype, copy=False)

    def pixels(self, top, left, bottom, right):
        """The pixels of this rectangle, counted in the size that the picture is seen in."""
        H, W, C = self.shape
        image = self.image
        if (image.height, image.width) == (H, W):
            cut = image.crop((left, top, right, bottom))
        else:
            y, x = image.height / H, image.width / W            # how many pixels of the file one of ours is
            cut = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=(x * left, y * top, x * right, y * bottom))
        return np.asarray(cut).reshape(bottom - top, right - left, C)
