"""Dropout: in training each unit is zeroed with probability p, so that no unit can rely on another.    (AlexNet, section 4.2)

    y     = x * m / (1 - p)         m is 1 with probability 1 - p, else 0
    dL/dx = gy * m / (1 - p)

Dividing by 1 - p in training keeps the expected value, so that nothing needs to be done at test time ("inverted dropout").
The paper multiplies by 1 - p = 0.5 at test time instead: the same network, scaled.

The mask is a function of the seed and of how many masks were drawn before it: see `minicnn.backend.random`.
"""

from typing import Any

from minicnn.autograd import Function
from minicnn.backend import cuda, random
from minicnn.backend.arrays import by_device, ceil_div, xp_of
from minicnn.ops.checks import check_float
from minicnn.tensor import Tensor


class Dropout(Function):
    def __init__(self, p: float = 0.5, rng: Any = None) -> None:
        self.p, self.rng = p, rng

    def forward(self, x):
        mask = draw_mask(x, self.rng, self.p)
        return apply_mask(x, mask, 1 / (1 - self.p)), (mask,)

    def backward(self, gy, mask):
        return apply_mask(gy, mask, 1 / (1 - self.p))


def draw_mask_cpu(x, rng, p):
    """Booleans of the shape of x: False with probability p."""
    return random.keep_mask(rng, x.shape, p)


def draw_mask_gpu(x, rng, p):
    """The same booleans, drawn on the GPU."""
    mask = xp_of(x).empty(x.shape, "uint8")
    words = ceil_div(x.size, 4)                             # one 64-bit word for each 4 elements
    key, counter, first = random.advance(rng, words)
    cuda.launch_rows("ops/dropout.cu", "keep_mask", ceil_div(words, cuda.THREADS), cuda.THREADS, mask, x.size, random.keep_threshold(p),
                     first, *key, *counter, dtype=x.dtype, constants=(("Word", "unsigned long long"),))
    return mask.view("bool")


def apply_mask_cpu(x, mask, scale):
    return x * mask * scale


def apply_mask_gpu(x, mask, scale):
    y = xp_of(x).empty_like(x)
    cuda.elementwise("T x, bool mask, T scale", "T y", "y = x * mask * scale", "dropout")(x, mask, scale, y)
    return y


draw_mask = by_device(draw_mask_cpu, draw_mask_gpu)
apply_mask = by_device(apply_mask_cpu, apply_mask_gpu)


def dropout(x: Tensor, p: float = 0.5, training: bool = True, rng: Any = None) -> Tensor:
    """Dropout: zero each element with probability `p` and scale the others by 1/(1-p); in evaluation, return x itself.

    Args:
        x: any shape, float32 or float64.
        p: the probability of zero, 0 <= p < 1 (rounded to a multiple of 1/65536).
        training: if False, x is returned unchanged and no mask is drawn.
        rng: a NumPy Generator over Philox to draw the mask from; by default the next one of the seed
            (`minicnn.seed`), a new mask at each call.

    Returns a Tensor of the shape and dtype of x. Raises ValueError for p outside [0, 1), TypeError for another dtype.
    Source: Hinton et al. 2012, "Improving neural networks by preventing co-adaptation of feature detectors", arXiv:1207.0580;
    AlexNet, section 4.2.
    """
    check_float("dropout", x)
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be a probability with 0 <= p < 1, got {p!r}")
    if not training or p == 0:
        return x
    return Dropout(float(p), random.next_generator("dropout") if rng is None else rng)(x)
