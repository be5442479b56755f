"""Every output is a weighted sum of every input.

    y     = x @ w^T + b         x (N, I)   w (O, I)   b (O,)   y (N, O)
    dL/dx = gy @ w
    dL/dw = gy^T @ x
    dL/db = gy summed over the batch
"""

from minicnn.autograd import Function
from minicnn.ops.bias import bias_gradient
from minicnn.ops.layout import check_float
from minicnn.parallel import matmul


class Linear(Function):
    def forward(self, x, w, b=None):
        y = matmul(x, w.T)
        if b is not None:
            y += b
        return y, (x, w)

    def backward(self, gy, x, w):
        gx = matmul(gy, w) if self.needs[0] else None
        gw = matmul(gy.T, x) if self.needs[1] else None
        return (gx, gw, bias_gradient(gy))[:len(self.inputs)]

    def multiply_adds(self, y, x, w, b=None):
        """One for each weight that each output uses."""
        return len(x) * w.size


def linear(x, w, b=None):
    """A fully connected layer: x @ w.T + b.

    Args:
        x: (N, I).   w: (O, I), as in PyTorch.   b: (O,), or None.

    Returns (N, O). Raises ValueError where shapes do not fit.
    """
    check_float("linear", x)
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"linear: x is a non-empty (N, inputs), but this x has shape {x.shape}"
                         + ("; use flatten(x) before it" if x.ndim > 2 else ""))
    if w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise ValueError(f"linear: x has shape {x.shape}, so w is (outputs, {x.shape[1]}), but this w has shape {w.shape}")
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"linear: b has shape {b.shape}, but w has {w.shape[0]} outputs, which want ({w.shape[0]},)")
    return Linear()(*((x, w) if b is None else (x, w, b)))
