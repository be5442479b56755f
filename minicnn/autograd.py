"""Reverse-mode automatic differentiation: the graph of the ops that were computed, and the chain rule applied to it in reverse order.

Every op is a `Function`: forward takes plain arrays and returns its output and what backward will need;
backward takes the gradient of the loss with respect to the output and returns the gradient with respect to
each input. Calling a Function on tensors runs its forward and adds one node to the graph:

    x --+
        +-- Conv2d --- ReLU --- y         y.node is the ReLU, whose inputs are [Conv2d], whose inputs are [x, w]
    w --+

Nodes point to their inputs only. There are no cycles, so a graph is freed as soon as its last tensor is.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from minicnn import tensor
from minicnn.backend.arrays import ceil_div, device_of, device_scope, xp_of
from minicnn.hooks import active_hooks
from minicnn.tensor import Tensor


class Function:
    """An op: subclass it, write `forward` and `backward`, and call an instance on tensors.

    `__init__` takes the arguments that are not tensors (a stride, a size). An instance is used once: it becomes the node.
    """

    inputs: tuple[Any, ...] = ()    # for each input: the node that computed it, the leaf tensor itself, or None (needs no gradient)
    shapes: tuple[tuple[int, ...], ...] = ()        # of the inputs
    saved: tuple[Any, ...] | None = None            # what forward returned for backward; None once backward has used it
    saved_checksums: tuple[int | None, ...] = ()    # of the saved arrays

    def forward(self, *arrays: Any) -> tuple[Any, tuple[Any, ...]]:
        """The output, and a tuple of the arrays that `backward` will need."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, gy: Any, *saved: Any) -> Any:
        """From `gy`, the gradient of the output, the gradient of each input in order (an array, or a tuple of them).

        A gradient has the shape and dtype of its input. It may be `gy` or a view of it, but never a saved
        array; neither may be modified. Where `self.needs_input_grad[i]` is False, the i-th may be None.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def multiply_adds(self, y: Any, *arrays: Any) -> int:
        """The number of multiply-adds in forward, for ops whose cost they dominate; 0 for the others."""
        return 0

    def __call__(self, *tensors: Tensor) -> Tensor:
        if self.inputs:
            raise RuntimeError(f"{self}: an instance of a Function is one node of one graph; make a new one for each call")
        for i, t in enumerate(tensors):
            if not isinstance(t, Tensor):
                raise TypeError(f"{self}: input {i} must be a Tensor, got {type(t).__name__}; write minicnn.Tensor(x)")
        arrays = [t.data for t in tensors]
        check_same_device_and_dtype(self, arrays)
        for hook in active_hooks():
            hook.before_forward(self, arrays)
        with device_scope(arrays[0]):
            result = self.forward(*arrays)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], tuple)):
            raise TypeError(f"{self}.forward must return (output, saved), saved a tuple of what backward needs; "
                            "a tuple of one array is written (x,), of none ()")
        y, saved = result
        output = Tensor(y)
        if _grad.enabled and any(t.requires_grad for t in tensors):
            self.inputs = tuple((t.node or t) if t.requires_grad else None for t in tensors)
            self.shapes = tuple(a.shape for a in arrays)
            self.saved = saved
            self.saved_checksums = tuple(map(checksum, saved))
            output.requires_grad = True
            output.node = self
        for hook in active_hooks():
            hook.after_forward(self, arrays, output.data, self.saved or ())
        return output

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """For each input, whether its gradient is needed."""
        return tuple(i is not None for i in self.inputs)

    def apply_backward(self, gy: Any) -> tuple[Any, ...]:
        """The gradients that `backward` returns for `gy`, one for each input, checked; frees the saved arrays."""
        if self.saved is None:
            raise RuntimeError(f"{self}: backward() has already been through this graph and freed the arrays that forward saved; "
                               "run the forward pass again")
        for i, (array, before) in enumerate(zip(self.saved, self.saved_checksums, strict=True)):
            if checksum(array) != before:
                raise RuntimeError(f"{self}: saved array {i}, of shape {array.shape}, was modified between forward and backward, so the "
                                   "gradient would be wrong. Something wrote into it: x += 1, x[...] = 0, or optimizer.step(); "
                                   "make a new array instead")
        saved, self.saved = self.saved, None
        for hook in active_hooks():
            hook.before_backward(self, gy)
        with device_scope(gy):
            gxs = self.backward(gy, *saved)
        gxs = gxs if isinstance(gxs, tuple) else (gxs,)
        if len(gxs) != len(self.inputs):
            raise RuntimeError(f"{self}.backward returned {len(gxs)} gradients for {len(self.inputs)} inputs")
        for i, (gx, shape, needed) in enumerate(zip(gxs, self.shapes, self.needs_input_grad, strict=True)):
            if not needed:
                continue
            if gx is None:
                raise RuntimeError(f"{self}.backward returned no gradient for input {i}, which needs one")
            if gx.shape != shape or gx.dtype != gy.dtype:
                raise RuntimeError(f"{self}.backward returned a gradient of shape {gx.shape} and dtype {gx.dtype} "
                                   f"for input {i} of shape {shape} and dtype {gy.dtype}")
        for hook in active_hooks():
            hook.after_backward(self, gy, gxs)
        return gxs

    def __repr__(self) -> str:
        return type(self).__name__


def checksum(array: Any) -> int | None:
    """A hash of up to 256 evenly spaced elements of a saved array, to detect that it was modified (PyTorch has a version counter).

    Hashing all elements would take a few percent of a training step. So a change of the whole array is detected, as by
    `x += 1` or a step of the optimiser; a change of one element only in a small array, or by luck. GPU arrays are not checked.
    """
    if not isinstance(array, np.ndarray) or array.size == 0:
        return None
    return hash(array.flat[::ceil_div(array.size, 256)].tobytes())


def check_same_device_and_dtype(function: Function, arrays: list[Any]) -> None:
    """Raise ValueError or TypeError unless all inputs of an op have one device and one dtype."""
    devices = [device_of(a) for a in arrays]
    if len(set(devices)) > 1:
        raise ValueError(f"{function}: its inputs are on different devices ({', '.join(devices)}); move them with .to(device)")
    dtypes = [str(a.dtype) for a in arrays]
    if len(set(dtypes)) > 1:
        raise TypeError(f"{function}: its inputs have different dtypes ({', '.join(dtypes)}); convert one, for instance "
                        "Tensor(array.astype('float32'))")


def backward(root: Tensor, grad: Any = None) -> None:
    """Add d(root)/d(leaf), weighted by `grad` (1 for a single number), to the `.grad` of every leaf that `root` depends on.

    Raises RuntimeError if `root` depends on no tensor with requires_grad, ValueError if `grad` is missing or has another shape.
    """
    if not root.requires_grad:
        raise RuntimeError("backward: this tensor does not depend on any tensor with requires_grad=True"
                           + ("" if _grad.enabled else " (backward was called under no_grad)"))
    with device_scope(root.data):
        xp = xp_of(root.data)
        if grad is None:
            if root.data.size != 1:
                raise ValueError(f"backward: a tensor of shape {root.shape} needs a grad of that shape; call backward(grad), or reduce it "
                                 "to one number first, for instance with .sum() or a loss")
            grad = xp.ones_like(root.data)
        grad = xp.asarray(grad.data if isinstance(grad, Tensor) else grad, dtype=root.dtype)
        if grad.shape != root.shape:
            raise ValueError(f"backward: grad must have the tensor's shape {root.shape}, got {grad.shape}")
        if root.node is None:               # a leaf stores its gradient, and `grad` belongs to the caller
            backward_pass(root, grad.copy())
        else:
            backward_pass(root.node, grad)


def backward_pass(start: Function | Tensor, grad: Any) -> None:
    """The chain rule: from the last op to the first, each maps the gradient of its output to the gradients of its inputs.

    A tensor that was used more than once gets a gradient from each use, and they add up.
    """
    grads = {start: grad}                                   # dL/d(output) of every node and leaf still to be visited
    for node in topological_order(start):
        gy = as_array(grads.pop(node))
        if isinstance(node, Tensor):                        # a leaf
            accumulate_grad(node, gy)
            continue
        for source, gx in zip(node.inputs, unalias_leaf_gradients(node.inputs, gy, node.apply_backward(gy), grads), strict=True):
            if source is not None:
                grads[source] = grads[source] + gx if source in grads else gx


def accumulate_grad(leaf: Tensor, gy: Any) -> None:
    """Add a gradient to `leaf.grad`."""
    leaf.grad = gy if leaf.grad is None else as_array(leaf.grad + gy)


def unalias_leaf_gradients(sources: tuple[Any, ...], gy: Any, gxs: tuple[Any, ...], grads: dict[Any, Any]) -> list[Any]:
    """`gxs`, with a copy in place of each leaf's first gradient that shares memory with `gy` or with a gradient before it.

    Backward may return `gy` itself, or views of it. Inside the graph that is safe: gradients are added into new arrays. But a leaf
    stores its gradient, and writing into one `.grad` must not change another.
    """
    unaliased, shared = [], [gy]
    for source, gx in zip(sources, gxs, strict=True):
        if isinstance(source, Tensor) and source not in grads and any(xp_of(gy).may_share_memory(gx, other) for other in shared):
            gx = gx.copy()
        if source is not None:
            shared.append(gx)
        unaliased.append(gx)
    return unaliased


def as_array(value: Any) -> Any:
    """`value` as an array: a NumPy scalar, as reductions to one number return it, becomes an array of shape ()."""
    return np.asarray(value) if isinstance(value, np.generic) else value


def topological_order(start: Any) -> list[Any]:
    """Every node and leaf that `start` depends on, each before its inputs.

    Backward must not process a node before every gradient that flows into it has arrived. A depth-first search
    lists a node after everything it depends on (post-order); reversed, that is the order needed. The search has a
    stack of its own instead of recursion, so that Python's recursion limit does not limit the depth of a graph.
    """
    order, seen, stack = [], {start}, [(start, inputs_of(start))]
    while stack:
        node, sources = stack[-1]
        for source in sources:
            if source is not None and source not in seen:
                seen.add(source)
                stack.append((source, inputs_of(source)))
                break
        else:
            order.append(node)
            stack.pop()
    return order[::-1]


def inputs_of(node: Function | Tensor) -> Iterator[Any]:
    """An iterator over the inputs of a node; a leaf has none."""
    return iter(() if isinstance(node, Tensor) else node.inputs)


class _Grad(threading.local):
    enabled = True


_grad = _Grad()


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Disable recording in this thread: no graph is built and nothing is saved. For evaluation, and for changing parameters.

    A context manager, `with no_grad():`, and a decorator, `@no_grad()`.
    """
    before, _grad.enabled = _grad.enabled, False
    try:
        yield
    finally:
        _grad.enabled = before


tensor.autograd = sys.modules[__name__]     # for Tensor.backward: see minicnn.tensor
