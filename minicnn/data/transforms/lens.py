"""A simple lens bends straight lines: what is r away from the centre is seen where another distance belongs.

    from = (1 + k r^2) / z * r          r = 1 in the corners, z = 1 + k if k > 0, else 1

The pixel at distance r shows what was at distance `from` (the first term of Brown's model, "Decentering distortion of lenses", 1966).
k > 0 gives a barrel and k < 0 a cushion. Circles about the centre stay circles. z enlarges the picture so that no corner is left blank.
"""

import numpy as np

from minicnn.data.transforms.step import Step, check_image, check_number


class RadialDistortion(Step):
    """Bent as by a lens, with a k from -strength to strength (at most 0.3: beyond a third it would fold over); the size stays."""

    random = any_size = True

    def __init__(self, strength):
        self.strength = check_number("RadialDistortion", "strength", strength, 0, 0.3)

    def __call__(self, image, rng):
        return bent(image, rng.uniform(-self.strength, self.strength))


def bent(image, k):
    """The image as a lens with this k shows it (bilinear)."""
    check_image("RadialDistortion", image)
    H, W = image.shape[:2]
    y = (np.arange(H, dtype=np.float32) + 0.5 - H / 2)[:, None]              # of the pixels' centres, counted from the image's centre
    x = (np.arange(W, dtype=np.float32) + 0.5 - W / 2)[None, :]
    r2 = (y * y + x * x) / ((H * H + W * W) / 4)
    zoom = (1 + k * r2) / (1 + max(k, 0))
    return sampled(np.asarray(image), y * zoom + (H / 2 - 0.5), x * zoom + (W / 2 - 0.5))


def sampled(image, y, x):
    """The image's values at rows y and columns x (fractions between neighbours: bilinear), arrays of the shape of the result."""
    H, W, C = image.shape
    (top, dy), (left, dx) = whole_and_rest(y, H), whole_and_rest(x, W)
    pixels = image.reshape(H * W, C)
    at = top * W + left
    down, right = (W if H > 1 else 0), (1 if W > 1 else 0)
    upper = mixed(pixels[at], pixels[at + right], dx)
    lower = mixed(pixels[at + down], pixels[at + down + right], dx)
    values = mixed(upper, lower, dy)
    return np.rint(values).astype(np.uint8) if image.dtype == np.uint8 else values


def whole_and_rest(z, size):
    """A coordinate as the pixel before it, one that has a neighbour after it, and the way on from there, 0 to 1."""
    z = np.clip(z, 0, size - 1)
    whole = np.minimum(z.astype(np.int32), max(size - 2, 0))
    return whole, (z - whole)[..., None].astype(np.float32)


def mixed(a, b, share):
    """a, with this share of b."""
    return a + share * (b.astype(np.float32) - a)
