"""A Tensor is an array, its gradient, and the op that computed it."""

from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.backend.arrays import device_of, is_array, to_device

# Tensor's methods call the ops and the chain rule, which are built on Tensor and so cannot be imported here: minicnn.autograd and
# minicnn.ops set these two when they are imported.
autograd: Any = None
ops: Any = None

# Attributes of PyTorch's tensors that this class lacks, and what to write instead.
HINTS = {
    "cuda": 'x.to("gpu")', "dim": "x.ndim", "numel": "x.size", "t": "x.T", "requires_grad_": "x.requires_grad = True",
    "view": "x.reshape(...)", "squeeze": "x.reshape(...)", "unsqueeze": "x.reshape(...)", "permute": "x.transpose(...)",
    "sqrt": "x ** 0.5", "norm": "(x ** 2).sum() ** 0.5", "abs": "np.abs(x.numpy()), outside the graph",
    "clone": "Tensor(x.data.copy()), outside the graph",
    "float": 'Tensor(x.data.astype("float32")), outside the graph', "double": 'Tensor(x.data.astype("float64")), outside the graph',
}


class Tensor:
    """An array that records the op that computed it, for automatic differentiation.

    Args:
        array: a NumPy or CuPy array, used without a copy, or a number or nested list, which becomes float32
            (integers and booleans keep their dtype).
        requires_grad: whether `backward` fills `.grad`. Only float32 and float64 tensors can require it.
        device: "cpu", "gpu" or "gpu:1"; an array on another device is copied to it. None: the array's own device.

    Attributes:
        data: the array.        grad: the gradient, an array like `data`, or None before the first backward.
        node: the op that computed this tensor, or None for a leaf; only leaves get a `.grad`.

    Raises TypeError if `array` does not hold numbers, and for requires_grad with a dtype that has no gradient.
    """

    __slots__ = ("data", "grad", "requires_grad", "node", "__weakref__")
    __array_ufunc__ = None          # NumPy leaves array + tensor to Tensor.__radd__

    def __init__(self, array: Any, requires_grad: bool = False, device: str | None = None) -> None:
        if isinstance(array, Tensor):
            raise TypeError("Tensor(tensor): pass its .data, or use .detach() for the same array outside the graph")
        if not is_array(array):
            keeps_dtype = isinstance(array, np.generic)     # a NumPy scalar, such as one element of an array
            array = np.asarray(array)
            if array.dtype.kind == "f" and not keeps_dtype:
                array = array.astype(np.float32)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"Tensor: array must hold numbers, got dtype {array.dtype}")
        if requires_grad and array.dtype not in (np.float32, np.float64):
            raise TypeError(f"Tensor: only float32 and float64 have gradients, got {array.dtype}; use array.astype('float32')")
        self.data: Any = array if device is None else to_device(array, device)
        self.grad: Any = None
        self.requires_grad = requires_grad
        self.node: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        """The number of elements, as in NumPy."""
        return ElementCount(self.data.size)

    @property
    def device(self) -> str:
        """"cpu", "gpu" or "gpu:1"."""
        return device_of(self.data)

    @property
    def T(self) -> "Tensor":
        return self.transpose()

    def backward(self, grad: Any = None) -> None:
        """Backpropagate: add d(self)/d(leaf) to the `.grad` of every leaf that this tensor depends on.

        `grad` is the gradient of the loss with respect to this tensor, an array of its shape; it may be omitted (then it is 1) if the
        tensor has one element. Raises RuntimeError if no leaf requires a gradient, ValueError if `grad` is missing or of another shape.
        `minicnn.inspect.trace_backward` does the same and reports it op by op.
        """
        autograd.backward(self, grad)

    def to(self, device: str) -> "Tensor":
        """This tensor's values on a device ("cpu", "gpu", "gpu:1"), as a new leaf; the tensor itself if it is already there."""
        moved = to_device(self.data, device)
        return self if moved is self.data else Tensor(moved, self.requires_grad)

    def cpu(self) -> "Tensor":
        """The same as `.to("cpu")`."""
        return self.to("cpu")

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as a NumPy array; on the CPU it is `data` itself, not a copy."""
        return to_device(self.data, "cpu")

    def item(self) -> Any:
        """The only element, as a Python number. ValueError if there are several."""
        if self.data.size != 1:
            raise ValueError(f"item: the tensor must hold one number, got {self.size} (shape {self.shape})")
        return self.data.item()

    def detach(self) -> "Tensor":
        """A tensor with the same array (not a copy), outside the graph."""
        return Tensor(self.data)

    # Each operator is an op of minicnn.ops; the other operand may be a number or a plain array.
    def __add__(self, other: Any) -> "Tensor": return ops.add(self, other)
    def __radd__(self, other: Any) -> "Tensor": return ops.add(other, self)
    def __sub__(self, other: Any) -> "Tensor": return ops.sub(self, other)
    def __rsub__(self, other: Any) -> "Tensor": return ops.sub(other, self)
    def __mul__(self, other: Any) -> "Tensor": return ops.mul(self, other)
    def __rmul__(self, other: Any) -> "Tensor": return ops.mul(other, self)
    def __truediv__(self, other: Any) -> "Tensor": return ops.div(self, other)
    def __rtruediv__(self, other: Any) -> "Tensor": return ops.div(other, self)
    def __matmul__(self, other: Any) -> "Tensor": return ops.matmul(self, other)
    def __rmatmul__(self, other: Any) -> "Tensor": return ops.matmul(other, self)
    def __pow__(self, exponent: Any) -> "Tensor": return ops.power(self, exponent)
    def __neg__(self) -> "Tensor": return ops.mul(self, -1)
    def __getitem__(self, index: Any) -> "Tensor": return ops.getitem(self, index)

    def sum(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        """The sum over one axis, several, or all."""
        return ops.sum(self, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        """The mean over one axis, several, or all."""
        return ops.mean(self, axis, keepdims)

    def reshape(self, *shape: Any) -> "Tensor":
        """The same elements, in row-major order, in another shape."""
        return ops.reshape(self, *shape)

    def transpose(self, *axes: Any) -> "Tensor":
        """The axes in another order; reversed if none is given."""
        return ops.transpose(self, *axes)

    def flatten(self, start_dim: int = 1) -> "Tensor":
        """All axes from `start_dim` on merged into one."""
        return ops.flatten(self, start_dim)

    def __len__(self) -> int:
        return len(self.data)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __repr__(self) -> str:
        made_by = f", made by {self.node}" if self.node else ", requires_grad=True" if self.requires_grad else ""
        values = np.array2string(self.numpy(), prefix="Tensor(", precision=4, threshold=20)
        return f"Tensor({values}, shape={self.shape}, {self.dtype}, {self.device}{made_by})"

    def __bool__(self) -> bool:
        raise TypeError("the truth value of a Tensor is not defined; compare .data or .item()")

    if not TYPE_CHECKING:           # type checkers reject unknown attributes themselves
        def __getattr__(self, name: str) -> Any:
            """Called for attributes that do not exist: the error says what to write instead."""
            if name in HINTS:
                hint = HINTS[name]
            elif name in ops.__all__:
                hint = f"ops.{name}(x)"
            elif name.endswith("_") and not name.startswith("_"):       # PyTorch's names of in-place methods
                hint = "x.data[...] = values, or x.data += values"
            elif hasattr(np.ndarray, name) and not name.startswith("_"):
                hint = f"x.numpy().{name}(...), outside the graph"
            else:
                raise AttributeError(f"Tensor has no attribute {name!r}", name=name, obj=self)
            raise AttributeError(f"Tensor has no {name!r}; write {hint}", name=name, obj=self)


class ElementCount(int):
    """An int; calling it, as PyTorch's x.size() and x.size(0), raises a TypeError that says what to write."""

    def __call__(self, *axis: int) -> None:
        raise TypeError("Tensor.size is the number of elements, as in NumPy; write x.shape or x.shape[axis]")
