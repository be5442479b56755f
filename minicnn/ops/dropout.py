"""In training each unit is silent with probability p, so that no unit can lean on another.    (AlexNet, section 4.2)

    y     = x * m / (1 - p)         m is 1 with probability 1 - p, else 0
    dL/dx = gy * m / (1 - p)

Dividing by 1 - p in training keeps the expected value, so that nothing needs to be done at test time. (The paper
multiplies by 1 - p = 0.5 at test time instead: the same network, scaled.)

The mask is a function of the seed and of how many masks were drawn before it: see `minicnn.random`.
"""

from minicnn import gpu, random
from minicnn.autograd import Function
from minicnn.backend import by_device, xp_of
from minicnn.ops.layout import check_float


class Dropout(Function):
    def __init__(self, p=0.5, rng=None):
        self.p, self.rng = p, rng

    def forward(self, x):
        mask = mask_for(x, self.rng, self.p)
        return masked(x, mask, 1 / (1 - self.p)), (mask,)

    def backward(self, gy, mask):
        return masked(gy, mask, 1 / (1 - self.p))


def mask_for_cpu(x, rng, p):
    return random.keep_mask(rng, x.shape, p)


def masked_cpu(x, mask, scale):
    return x * mask * scale


def mask_for_gpu(x, rng, p):
    """The same booleans, drawn on the GPU."""
    mask = xp_of(x).empty(x.shape, "uint8")
    words = -(-x.size // 4)
    key, counter, first = random.take_words(rng, words)
    gpu.run("ops/dropout.cu", "keep_mask", -(-words // gpu.THREADS), gpu.THREADS, mask, x.size, random.least_kept(p), first, *key, *counter,
            dtype=x.dtype, constants=(("Word", "unsigned long long"),))
    return mask.view("bool")


def masked_gpu(x, mask, scale):
    y = xp_of(x).empty_like(x)
    gpu.elementwise("T x, bool mask, T scale", "T y", "y = x * mask * scale", "dropout")(x, mask, scale, y)
    return y


mask_for = by_device(mask_for_cpu, mask_for_gpu)
masked = by_device(masked_cpu, masked_gpu)


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
