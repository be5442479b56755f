"""The graph of what was computed, and the chain rule walking it backwards.

Every op is a `Function`: forward takes plain arrays and returns its answer and what backward will need;
backward takes the gradient of the loss with respect to the answer and returns the gradient with respect to
each input. Calling a Function on tensors runs its forward and leaves one node of the graph behind:

    x --+
        +-- Conv2d --- ReLU --- y         y.node is the ReLU, whose inputs are [Conv2d], whose inputs are [x, w]
    w --+

Nodes point to their inputs only. There are no cycles, so a graph is freed the moment its last tensor is.
"""

import contextlib
import threading

import numpy as np

from minicnn.backend import device_of, device_scope, xp_of
from minicnn.tensor import Tensor


class Function:
    """An op: subclass it, write `forward` and `backward`, and call an instance on tensors.

    `__init__` takes what is not a tensor (a stride, a size). An instance is used once: it becomes the node.
    """

    inputs: tuple = ()  # for each input: the node that made it, the leaf tensor itself, or None (needs no gradient)
    shapes: tuple = ()  # of the inputs
    saved: tuple | None = None          # what forward returned for backward; None once backward has used it
    seals: tuple = ()   # of these: see `seal`

    def forward(self, *arrays):
        """The answer, and a tuple of what `backward` will need."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, gy, *saved):
        """From `gy`, shaped like the answer, the gradient of each input in order (one, or a tuple).

        A gradient has the shape and dtype of its input. It may be `gy` or a view of it, but never a saved
        array, and neither may be changed. Where `self.needs[i]` is False, the i-th may be None.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def multiply_adds(self, y, *arrays):
        """How many multiply-adds forward took; for ops where these are the work."""
        return 0

    def __call__(self, *tensors):
        if self.inputs:
            raise RuntimeError(f"{self}: an instance of a Function is one node of one graph; make a new one for each call")
        for i, t in enumerate(tensors):
            if not isinstance(t, Tensor):
                raise TypeError(f"{self}: input {i} is a Tensor, not {type(t).__name__}; write minicnn.Tensor(x)")
        arrays = [t.data for t in tensors]
        check_alike(self, arrays)
        for hook in _hooks:
            hook.before_forward(self, arrays)
        with device_scope(arrays[0]):
            result = self.forward(*arrays)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], tuple)):
            raise TypeError(f"{self}.forward is to return (answer, (what, backward, needs)); a tuple of one is written (x,), of none ()")
        y, saved = result
        answer = Tensor(y)
        if _grad.enabled and any(t.requires_grad for t in tensors):
            self.inputs = tuple((t.node or t) if t.requires_grad else None for t in tensors)
            self.shapes = tuple(a.shape for a in arrays)
            self.saved = saved
            self.seals = tuple(map(seal, saved))
            answer.requires_grad = True
            answer.node = self
        for hook in _hooks:
            hook.after_forward(self, arrays, answer.data, self.saved or ())
        return answer

    @property
    def needs(self):
        """For each input, whether anybody wants its gradient."""
        return tuple(i is not None for i in self.inputs)

    def gradients(self, gy):
        """What `backward` returns for `gy`, as a checked tuple; frees what forward saved."""
        if self.saved is None:
            raise RuntimeError(f"{self}: backward() has been through this graph already, and what forward saved was "
                               "freed as it was used; run the forward pass again")
        for i, (array, before) in enumerate(zip(self.saved, self.seals, strict=True)):
            if seal(array) != before:
                raise RuntimeError(f"{self}: array {i} of those that forward saved, of shape {array.shape}, was changed before backward "
                                   "used it, so the gradient would be wrong. Something wrote into it: x += 1, x[...] = 0, or "
                                   "optimizer.step() between forward and backward; make a new array instead")
        saved, self.saved = self.saved, None
        for hook in _hooks:
            hook.before_backward(self, gy)
        with device_scope(gy):
            gxs = self.backward(gy, *saved)
        gxs = gxs if isinstance(gxs, tuple) else (gxs,)
        if len(gxs) != len(self.inputs):
            raise RuntimeError(f"{self}.backward returned {len(gxs)} gradients for {len(self.inputs)} inputs")
        for i, (gx, shape, needed) in enumerate(zip(gxs, self.shapes, self.needs, strict=True)):
            if not needed:
                continue
            if gx is None:
                raise RuntimeError(f"{self}.backward returned no gradient for input {i}, which needs one")
            if gx.shape != shape or gx.dtype != gy.dtype:
                raise RuntimeError(f"{self}.backward returned a gradient of shape {gx.shape} and dtype {gx.dtype} "
                                   f"for input {i} of shape {shape} and dtype {gy.dtype}")
        for hook in _hooks:
            hook.after_backward(self, gy, gxs)
        return gxs

    def __repr__(self):
        return type(self).__name__


def seal(array):
    """A mark that shows whether a saved array was changed: a hash of up to 256 of its numbers, evenly spread.

    To look at all of them would take a few percent of a training step. So what is noticed is a change of the whole array, as by
    `x += 1` or a step of the optimiser; of a single number only by luck, or in a small array. A GPU's arrays are not looked at.
    """
    if not isinstance(array, np.ndarray) or array.size == 0:
        return None
    return hash(array.flat[::-(-array.size // 256)].tobytes())


def check_alike(function, arrays):
    """One device and one floating dtype for all inputs of an op, or an error that says which differ."""
    devices = [device_of(a) for a in arrays]
    if len(set(devices)) > 1:
        raise ValueError(f"{function}: its inputs live on different devices ({', '.join(devices)}); move them with .to(device)")
    dtypes = [str(a.dtype) for a in arrays]
    if len(set(dtypes)) > 1:
        raise TypeError(f"{function}: its inputs have different dtypes ({', '.join(dtypes)}); convert one, for instance "
                        "Tensor(array.astype('float32'))")


def backward(root, grad=None):
    """Add to the `.grad` of every leaf the gradient of `root`, weighted by `grad` (1 for a single number)."""
    with device_scope(root.data):
        spread(root, grad)


def spread(root, grad):
    """The same, on the GPU where `root` lives."""
    xp = xp_of(root.data)
    if not root.requires_grad:
        raise RuntimeError("backward: this tensor does not depend on any tensor with requires_grad=True"
                           + ("" if _grad.enabled else " (backward was called under no_grad)"))
    if grad is None:
        if root.data.size != 1:
            raise ValueError(f"backward: only a single number has a gradient of its own; this tensor has shape {root.shape}. "
                             "Reduce it to a loss, or pass backward(grad) of the same shape")
        grad = xp.ones_like(root.data)
    grad = xp.asarray(grad.data if isinstance(grad, Tensor) else grad, dtype=root.dtype)
    if grad.shape != root.shape:
        raise ValueError(f"backward: grad has shape {grad.shape}, the tensor {root.shape}")

    start = root.node or root
    gradient_of = {start: grad}
    for vertex in topological_order(start):
        gy = xp.asarray(gradient_of.pop(vertex))        # a sum down to one number is a NumPy scalar
        if isinstance(vertex, Tensor):          # a leaf: here a gradient comes to rest
            vertex.grad = xp.asarray(gy if vertex.grad is None else vertex.grad + gy)
            continue
        handed_on = [gy]
        for source, gx in zip(vertex.inputs, vertex.gradients(gy), strict=True):
            if source is None:
                continue
            if source in gradient_of:           # used more than once: its gradients add up
                gradient_of[source] = gradient_of[source] + gx
            elif isinstance(source, Tensor) and any(xp.may_share_memory(gx, other) for other in handed_on):
                gradient_of[source] = gx.copy()     # what a leaf keeps must be its own
            else:
                gradient_of[source] = gx
            handed_on.append(gx)
    # A root that is itself a leaf keeps a copy: the caller owns `grad`.
    if start is root and root.grad is grad:
        root.grad = grad.copy()


def topological_order(start):
    """Every node and leaf that `start` depends on, each before its inputs; by a stack, so depth has no limit.

    Backward must not leave a node before every gradient that flows into it has arrived. A depth-first walk
    lists a node after everything below it (post-order); reversed, that is the order needed.
    """
    order, seen, stack = [], {start}, [(start, iter(getattr(start, "inputs", ())))]
    while stack:
        vertex, sources = stack[-1]
        for source in sources:
            if source is not None and source not in seen:
                seen.add(source)
                stack.append((source, iter(getattr(source, "inputs", ()))))
                break
        else:
            order.append(vertex)
            stack.pop()
    return order[::-1]


class _Grad(threading.local):
    enabled = True


_grad = _Grad()


@contextlib.contextmanager
def no_grad():
    """Inside, nothing is recorded and nothing is saved: for evaluation, and for changing parameters."""
    before, _grad.enabled = _grad.enabled, False
    try:
        yield
    finally:
        _grad.enabled = before


class Hook:
    """The one place to watch from: override what you need, and use it as `with MyHook() as hook: ...`.

    Arrays are handed over as they are; a hook looks and does not touch.
    """

    def before_module(self, module, inputs): "A layer is about to run on these tensors."
    def after_module(self, module, inputs, output): "A layer has run."
    def before_forward(self, function, arrays): "An op is about to run."
    def after_forward(self, function, arrays, y, saved): "An op has run, and `saved` is kept for backward."
    def before_backward(self, function, gy): "The gradient of an op's answer is complete."
    def after_backward(self, function, gy, gxs): "An op has turned it into the gradients of its inputs."

    def __enter__(self):
        _hooks.append(self)
        return self

    def __exit__(self, *exc):
        _hooks.remove(self)


_hooks: list[Hook] = []


def hooks():
    """The hooks now watching."""
    return _hooks


@contextlib.contextmanager
def unwatched():
    """Inside, no hook sees anything that was watching before: for a look aside that is no part of what they watch."""
    before = list(_hooks)
    _hooks.clear()
    try:
        yield
    finally:
        _hooks[:] = before
