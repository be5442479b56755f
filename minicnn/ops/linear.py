"""Fully connected layer: every output is a weighted sum of every input.

    y     = x @ w^T + b         x (N, I)   w (O, I)   b (O,)   y (N, O)
    dL/dx = gy @ w
    dL/dw = gy^T @ x
    dL/db = gy, summed over the batch
"""

from minicnn.autograd import Function
from minicnn.backend.threads import matmul
from minicnn.ops.bias import bias_gradient
from minicnn.ops.checks import check_float
from minicnn.tensor import Tensor


class Linear(Function):
    def forward(self, x, w, b=None):
        y = matmul(x, w.T)
        if b is not None:
            y += b
        return y, (x, w)

    def backward(self, gy, x, w):
        gx = matmul(gy, w) if self.needs_input_grad[0] else None
        gw = matmul(gy.T, x) if self.needs_input_grad[1] else None
        return (gx, gw, bias_gradient(gy))[:len(self.inputs)]

    def multiply_adds(self, y, x, w, b=None):
        """Each image uses each weight once."""
        return len(x) * w.size


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """A fully connected layer: x @ w.T + b.

    Args:
        x: inputs, (N, I), float32 or float64.
        w: weights, (O, I), as in PyTorch.
        b: biases, (O,), or None.

    Returns (N, O). Raises ValueError for shapes that do not match, TypeError for other dtypes.
    """
    check_float("linear", x)
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"linear: x must be a non-empty (N, inputs), got shape {x.shape}"
                         + ("; use flatten(x) before it" if x.ndim > 2 else ""))
    if w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise ValueError(f"linear: w must have shape (outputs, {x.shape[1]}) for x of shape {x.shape}, got {w.shape}")
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"linear: b must have shape ({w.shape[0]},), one for each output of w, got {b.shape}")
    return Linear()(*((x, w) if b is None else (x, w, b)))
