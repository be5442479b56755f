"""In training each unit is silent with probability p, so that no unit can lean on another.    (AlexNet, section 4.2)

    y     = x * m / (1 - p)         m is 1 with probability 1 - p, else 0
    dL/dx = gy * m / (1 - p)

Dividing by 1 - p in training keeps the expected value, so that nothing needs to be done at test time. (The paper
multiplies by 1 - p = 0.5 at test time instead: the same network, scaled.)

The mask is a function of the seed and of how many masks were drawn before it: see `minicnn.random`.
"""

from minicnn import random
from minicnn.autograd import Function
from minicnn.backend import by_device, xp_of
from minicnn.ops.layout import check_float

# The numbers are the same on both devices because they are drawn on one.
mask_like = by_device(lambda x, rng, p: random.keep_mask(rng, x.shape, p),
                      lambda x, rng, p: xp_of(x).asarray(random.keep_mask(rng, x.shape, p)))


class Dropout(Function):
    def __init__(self, p=0.5, rng=None):
        self.p, self.rng = p, rng

    def forward(self, x):
        mask = mask_like(x, self.rng, self.p)
        return x * mask * (1 / (1 - self.p)), (mask,)

    def backward(self, gy, mask):
        return gy * mask * (1 / (1 - self.p))


def dropout(x, p=0.5, training=True, rng=None):
    """Zero each element with probability `p` and scale the others by 1/(1-p); in evaluation, x itself.

    Args:
        x: any shape.
        p: the probability of zero, 0 <= p < 1 (kept to the nearest 1/65536).
        training: False returns x unchanged.
        rng: a NumPy Generator over Philox to draw the mask from; by default the next one of the seed
            (`minicnn.seed`), a new mask at each call.

    Raises ValueError for p outside [0, 1). Source: Hinton et al. 2012; AlexNet, section 4.2.
    """
    check_float("dropout", x)
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p is a probability with 0 <= p < 1, not {p!r}")
    if not training or p == 0:
        return x
    return Dropout(float(p), random.next_generator("dropout") if rng is None else rng)(x)
