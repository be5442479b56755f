"""A Tensor is an array, its gradient, and the op that made it."""

import numpy as np

import minicnn
from minicnn.backend import device_of, is_array, to_device


class Tensor:
    """An array that remembers where it came from.

    Args:
        array: a NumPy or CuPy array, kept as it is (no copy), or a number or nested list, which becomes float32
            (whole numbers stay integers).
        requires_grad: whether `backward` shall fill `.grad`. Only float32 and float64 tensors can.
        device: "cpu", "gpu" or "gpu:1"; an array that lives elsewhere is copied there. None: where it is.

    Attributes:
        data: the array.        grad: the gradient, an array like `data`, or None before the first backward.
        node: the op that made this tensor, or None for a leaf; only leaves get a `.grad`.

    Raises TypeError for what is no array of numbers, and for requires_grad with a dtype that has no gradient.
    """

    __slots__ = ("data", "grad", "requires_grad", "node", "__weakref__")
    __array_ufunc__ = None          # array + tensor asks the tensor

    def __init__(self, array, requires_grad=False, device=None):
        if isinstance(array, Tensor):
            raise TypeError("Tensor(tensor): pass its .data, or use .detach() for the same array outside the graph")
        if not is_array(array):
            keeps_dtype = isinstance(array, np.generic)     # what NumPy gives for one element alone
            array = np.asarray(array)
            if array.dtype.kind == "f" and not keeps_dtype:
                array = array.astype(np.float32)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"Tensor: an array of numbers is wanted, not dtype {array.dtype}")
        if requires_grad and array.dtype not in (np.float32, np.float64):
            raise TypeError(f"Tensor: only float32 and float64 have gradients, not {array.dtype}; use array.astype('float32')")
        self.data = array if device is None else to_device(array, device)
        self.grad = None
        self.requires_grad = requires_grad
        self.node = None

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    device = property(lambda self: device_of(self.data))
    T = property(lambda self: self.transpose())

    def backward(self, grad=None, trace=False):
        """Add d(self)/d(leaf) to the `.grad` of every leaf; `grad`, of this shape, weights it (1 for a single number).

        trace: print what happens on the way, op by op.
        """
        if trace:
            from minicnn.study.trace import trace_backward
            print(trace_backward(self, grad))
        else:
            minicnn.autograd.backward(self, grad)

    def to(self, device):
        """The same values on another device, as a leaf (self if it is there already)."""
        moved = to_device(self.data, device)
        return self if moved is self.data else Tensor(moved, self.requires_grad)

    def numpy(self):
        """The values as a NumPy array; on the CPU it is `data` itself, not a copy."""
        return to_device(self.data, "cpu")

    def item(self):
        """The single number in this tensor, as a Python number. ValueError if there are several."""
        if self.size != 1:
            raise ValueError(f"item: this tensor holds {self.size} numbers (shape {self.shape})")
        return self.data.item()

    def detach(self):
        """The same array, outside the graph."""
        return Tensor(self.data)

    # Each operator is an op of minicnn.ops; numbers and plain arrays on either side are welcome.
    def __add__(self, other): return minicnn.ops.add(self, other)
    def __radd__(self, other): return minicnn.ops.add(other, self)
    def __sub__(self, other): return minicnn.ops.sub(self, other)
    def __rsub__(self, other): return minicnn.ops.sub(other, self)
    def __mul__(self, other): return minicnn.ops.mul(self, other)
    def __rmul__(self, other): return minicnn.ops.mul(other, self)
    def __truediv__(self, other): return minicnn.ops.div(self, other)
    def __rtruediv__(self, other): return minicnn.ops.div(other, self)
    def __matmul__(self, other): return minicnn.ops.matmul(self, other)
    def __rmatmul__(self, other): return minicnn.ops.matmul(other, self)
    def __pow__(self, exponent): return minicnn.ops.power(self, exponent)
    def __neg__(self): return minicnn.ops.mul(self, -1)
    def __getitem__(self, index): return minicnn.ops.getitem(self, index)

    def sum(self, axis=None, keepdims=False):
        """The sum over an axis, several, or all."""
        return minicnn.ops.sum(self, axis, keepdims)

    def mean(self, axis=None, keepdims=False):
        """The mean over an axis, several, or all."""
        return minicnn.ops.mean(self, axis, keepdims)

    def reshape(self, *shape):
        """The same elements, in row-major order, in another shape."""
        return minicnn.ops.reshape(self, *shape)

    def transpose(self, *axes):
        """The axes in another order; without one, reversed."""
        return minicnn.ops.transpose(self, *axes)

    def flatten(self, start_dim=1):
        """All axes from `start_dim` on as one."""
        return minicnn.ops.flatten(self, start_dim)

    def __len__(self):
        return len(self.data)

    def __repr__(self):
        made_by = f", made by {self.node}" if self.node else ", requires_grad=True" if self.requires_grad else ""
        values = np.array2string(self.numpy(), prefix="Tensor(", precision=4, threshold=20)
        return f"Tensor({values}, shape={self.shape}, {self.dtype}, {self.device}{made_by})"

    def __bool__(self):
        raise TypeError("a Tensor is neither true nor false; compare .data or .item()")
