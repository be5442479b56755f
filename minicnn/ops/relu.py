"""What is negative becomes zero.                                        (AlexNet, section 3.1)

    y     = max(x, 0)
    dL/dx = gy where y > 0, else 0

At x = 0 there is no derivative; 0 is taken, as everybody does.
"""

from minicnn.autograd import Function
from minicnn.backend import xp_of
from minicnn.ops.layout import check_float
from minicnn.parallel import over_batch


class ReLU(Function):
    def forward(self, x):
        xp = xp_of(x)
        y = xp.empty_like(x)                    # in the memory order of x, whichever it is

        def block(n):
            xp.maximum(x[n], 0, out=y[n])

        over_batch(block, x, bytes_each=2 * x[0].nbytes)
        return y, (y,)

    def backward(self, gy, y):
        xp = xp_of(gy)
        gx = xp.empty_like(y)

        def block(n):
            xp.multiply(gy[n], y[n] > 0, out=gx[n])

        over_batch(block, y, bytes_each=3 * y[0].nbytes)
        return gx


def relu(x):
    """max(x, 0), element by element, for x (N, ...). Source: Nair and Hinton 2010; AlexNet, section 3.1."""
    check_float("relu", x)
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"relu: x is a non-empty (N, ...), but this x has shape {x.shape}")
    return ReLU()(x)
