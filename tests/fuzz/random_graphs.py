"""A hypothesis strategy for small random graphs of all ops: pick an op, pick or create tensors that fit it, compute its output, repeat.

The values are computed as the graph grows, so that it avoids ill-conditioned values: no division by a number near 0, no exponential
of a large one, no output in the millions. That keeps rounding errors small, so that other errors stand out.
"""

import dataclasses
import math

import numpy as np
from hypothesis import strategies as st
from plain_numpy import Branches, evaluate

from minicnn import ops

MAX_SIZE = 240              # elements of one tensor
MAX_VALUE = 50.0            # largest magnitude; larger outputs are scaled down
OPERATORS = {"add": "__add__", "sub": "__sub__", "mul": "__mul__", "div": "__truediv__"}


@dataclasses.dataclass
class Node:
    """A leaf (op None), or an op. `inputs`: indices of nodes, or numbers and arrays in a tuple of one; `arguments`: keyword arguments."""

    op: str | None
    inputs: tuple = ()
    arguments: dict = dataclasses.field(default_factory=dict)
    value: np.ndarray | None = None
    requires_grad: bool = False     # of a leaf
    layout: str = "contiguous"      # of a leaf: its memory layout
    by_operator: bool = False       # a + b instead of ops.add(a, b)


@dataclasses.dataclass
class Graph:
    """The nodes in the order of creation, the last is the root; `cotangent` has its shape, or is None if the root is a scalar."""

    nodes: list
    branches: Branches
    cotangent: np.ndarray | None = None

    def sources(self, node):
        return [i for i in self.nodes[node].inputs if not isinstance(i, tuple)]

    def reached(self):
        """The indices of the nodes that the root depends on."""
        seen, waiting = set(), [len(self.nodes) - 1]
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += self.sources(node)
        return seen

    def __repr__(self):
        lines = []
        for number, node in enumerate(self.nodes):
            made_by = f"{node.op}{node.inputs} {node.arguments}" if node.op else f"{node.layout} leaf, requires_grad={node.requires_grad}"
            lines.append(f"  {number}: {node.value.shape} = {made_by}{' by operator' if node.by_operator else ''}")
        return "\n".join(["Graph", *lines])

    def _repr_pretty_(self, printer, cycle):            # what hypothesis prints
        printer.text(repr(self))


class Grower:
    """Draws one graph; each method named after an op appends a node of it and returns its index."""

    def __init__(self, draw):
        self.draw, self.nodes, self.branches = draw, [], Branches()
        self.rng = np.random.default_rng(self.whole(0, 2**32 - 1))

    # drawn by hypothesis

    def pick(self, options):
        return self.draw(st.sampled_from(list(options)))

    def whole(self, low, high):
        return self.draw(st.integers(low, high))

    def yes(self):
        return self.draw(st.booleans())

    def sizes(self, count, low=1, high=4):
        return tuple(self.whole(low, high) for _ in range(count))

    def one_or_two(self, low, high):
        """An int, or a pair of them."""
        return self.whole(low, high) if self.yes() else self.sizes(2, low, high)

    # nodes

    def append(self, op, *inputs, by_operator=False, **arguments):
        arrays = [i[0] if isinstance(i, tuple) else self.nodes[i].value for i in inputs]
        value = evaluate(op, self.branches, len(self.nodes), arrays, arguments)
        self.nodes.append(Node(op, inputs, arguments, value, by_operator=by_operator))
        number = len(self.nodes) - 1
        if np.abs(value).max(initial=0) > MAX_VALUE:
            return self.append("mul", number, (float(MAX_VALUE / 10 / np.abs(value).max()),))
        return number

    def leaf(self, *shape):
        value = self.rng.standard_normal(shape)
        self.nodes.append(Node(None, (), {}, value, self.whole(0, 5) > 0, self.pick(["contiguous", "channels-last", "strided",
                                                                                       "reversed"])))
        return len(self.nodes) - 1

    def shape(self, node):
        return self.nodes[node].value.shape

    def any(self, suits=lambda value: True):
        """The index of a node whose value suits, preferably a recent one; None if there is none."""
        suitable = [number for number, node in enumerate(self.nodes) if suits(node.value)]
        return self.pick((suitable + suitable[-3:])[::-1]) if suitable else None

    def images(self):
        """A node (N, C, H, W): an existing one, an existing one reshaped, or a new leaf."""
        found = self.any(lambda value: value.ndim == 4) if self.whole(0, 3) else None
        if found is None and self.yes() and (other := self.any(lambda value: value.size >= 8)) is not None:
            found = self.append("reshape", other, shape=self.factors(self.nodes[other].value.size, 4))
        return self.leaf(*self.sizes(2), *self.sizes(2, 1, 7)) if found is None else found

    def matrix(self):
        """A node (N, K)."""
        found = self.any(lambda value: value.ndim == 2) if self.yes() else None
        if found is None and (other := self.any(lambda value: value.ndim > 2)) is not None:
            found = self.append("flatten", other, start_dim=self.pick((1, 1 - self.nodes[other].value.ndim)))
        return self.leaf(*self.sizes(2, 1, 6)) if found is None else found

    def positive(self):
        """A node whose values are well above 0."""
        found = self.any(lambda value: value.size and value.min() > 0.1)
        return self.append("add", self.append("sigmoid", self.tensor()), (0.25,)) if found is None else found

    def tensor(self, low=0):
        found = self.any(lambda value: value.ndim >= low) if self.whole(0, 4) else None
        return self.leaf(*self.sizes(self.whole(max(low, 1), 4))) if found is None else found

    def factors(self, size, count):
        """`count` sizes whose product is `size`."""
        shape = []
        for _ in range(count - 1):
            shape.append(self.pick([n for n in range(1, size + 1) if size % n == 0]))
            size //= shape[-1]
        return (*shape, size)

    def partner(self, shape):
        """A node that can be broadcast together with `shape`."""
        def fits(value):
            try:
                return math.prod(np.broadcast_shapes(value.shape, shape)) <= MAX_SIZE
            except ValueError:
                return False
        found = self.any(fits) if self.whole(0, 2) else None
        if found is not None:
            return found
        trailing = shape[self.whole(0, len(shape)):]
        return self.leaf(*(size if self.yes() else 1 for size in trailing))

    # ops

    def elementwise(self, op):
        a = self.tensor()
        by_operator, kind = self.yes(), self.whole(0, 5)
        number = self.pick([2, -1, 0.5, -1.5])
        if op == "div":
            if kind == 0:
                return self.append(op, (number,), self.positive(), by_operator=by_operator)
            b = self.positive() if kind > 1 else None
            if b is None or math.prod(self.try_shape(a, b)) > MAX_SIZE:
                return self.append(op, a, (number,), by_operator=by_operator)
            return self.append(op, a, b, by_operator=by_operator)
        if kind == 0:
            return self.append(op, *((a, (number,)) if self.yes() else ((number,), a)), by_operator=by_operator)
        if kind == 1:
            constant = self.rng.standard_normal(self.shape(a)[1:])
            return self.append(op, *((a, (constant,)) if self.yes() else ((constant,), a)), by_operator=by_operator)
        b = self.partner(self.shape(a))
        return self.append(op, *((a, b) if self.yes() else (b, a)), by_operator=by_operator)

    add = sub = mul = div = None        # drawn by elementwise

    def try_shape(self, a, b):
        try:
            return np.broadcast_shapes(self.shape(a), self.shape(b))
        except ValueError:
            return (MAX_SIZE + 1,)

    def power(self):
        exponent = self.pick([2, 3, 1, 0, -1, -2, 0.5, 1.5, -0.5])
        return self.append("power", self.tensor() if exponent in (0, 1, 2, 3) else self.positive(), exponent=exponent)

    def exp(self):
        small = self.any(lambda value: value.size and value.max() < 3)
        return self.append("exp", self.append("tanh", self.tensor()) if small is None else small)

    def log(self):
        return self.append("log", self.positive())

    def tanh(self):
        return self.append("tanh", self.tensor())

    def sigmoid(self):
        return self.append("sigmoid", self.tensor())

    def relu(self):
        return self.append("relu", self.tensor(1))

    def dropout(self):
        return self.append("dropout", self.tensor(), p=self.pick([0.1, 0.25, 0.5, 0.8]), key=self.whole(0, 1000))

    def softmax(self, op="softmax"):
        x = self.tensor(1)
        return self.append(op, x, axis=self.whole(-len(self.shape(x)), len(self.shape(x)) - 1))

    def log_softmax(self):
        return self.softmax("log_softmax")

    def cross_entropy(self):
        x = self.matrix()
        N, K = self.shape(x)
        return self.append("cross_entropy", x, labels=self.rng.integers(0, K, N))

    def matmul(self):
        a = self.tensor(2)
        *stack, _, k = self.shape(a)
        found = self.any(lambda value: value.ndim >= 2 and value.shape[-2] == k and value.size <= 64
                         and all(1 in pair or pair[0] == pair[1] for pair in zip(value.shape[-3::-1], stack[::-1], strict=False)))
        if found is None or self.whole(0, 2) == 0:
            found = self.leaf(*(size if self.yes() else 1 for size in stack[self.whole(0, len(stack)):]), k, self.whole(1, 4))
        return self.append("matmul", a, found, by_operator=self.yes())

    def linear(self):
        x, outputs = self.matrix(), self.whole(1, 5)
        columns = self.shape(x)[1]
        w = self.any(lambda value: value.ndim == 2 and value.shape[1] == columns) if self.yes() else None
        w = self.leaf(outputs, columns) if w is None else w
        bias = [self.vector(self.shape(w)[0])] if self.yes() else []
        return self.append("linear", x, w, *bias)

    def vector(self, size):
        found = self.any(lambda value: value.shape == (size,))
        return self.leaf(size) if found is None else found

    def conv2d(self):
        x = self.images()
        _, C, H, W = self.shape(x)
        groups = self.pick([n for n in range(1, C + 1) if C % n == 0])
        padding = self.one_or_two(0, 2)
        PH, PW = padding if isinstance(padding, tuple) else (padding, padding)
        if self.whole(0, 3):                    # where Winograd applies
            r = self.pick([r for r in (3, 2, 5, 4, 6, 7, 3, 2, 5, 1) if r <= min(H + 2 * PH, W + 2 * PW)])
            kernel, stride = (r, r), 1
        else:
            kernel = self.whole(1, min(4, H + 2 * PH)), self.whole(1, min(4, W + 2 * PW))
            stride = self.one_or_two(1, 3)
        w = self.any(lambda value: value.ndim == 4 and value.shape[1:] == (C // groups, *kernel) and len(value) % groups == 0)
        w = self.leaf(groups * self.whole(1, 3), C // groups, *kernel) if w is None else w
        bias = [self.vector(self.shape(w)[0])] if self.yes() else []
        winograd = stride == 1 and kernel[0] == kernel[1] > 1
        return self.append("conv2d", x, w, *bias, stride=stride, padding=padding, groups=groups,
                           algorithm=self.pick(["winograd", "winograd", "winograd", "auto", "im2col"] if winograd else ["auto", "im2col"]))

    def max_pool2d(self):
        x = self.images()
        kernel = tuple(self.whole(1, min(4, size)) for size in self.shape(x)[2:])
        padding = tuple(self.whole(0, K // 2) for K in kernel)
        stride = self.one_or_two(1, 3) if self.yes() else None
        return self.append("max_pool2d", x, kernel_size=kernel, stride=stride, padding=padding, ceil_mode=self.yes())

    def adaptive_avg_pool2d(self):
        return self.append("adaptive_avg_pool2d", self.images(), output_size=self.one_or_two(1, 4))

    def local_response_norm(self):
        return self.append("local_response_norm", self.images(), size=self.pick([1, 3, 5]), alpha=self.pick([0.3, 1.0]),
                           beta=self.pick([0.75, 0.5, 1.0]), k=self.pick([1.0, 2.0]), alpha_over_size=self.yes())

    def reshape(self):
        x = self.tensor()
        shape = list(self.factors(self.nodes[x].value.size, self.whole(1, 4)))
        if self.yes():
            shape[self.whole(0, len(shape) - 1)] = -1
        return self.append("reshape", x, shape=tuple(shape))

    def flatten(self):
        x = self.tensor(1)
        return self.append("flatten", x, start_dim=self.whole(-len(self.shape(x)), len(self.shape(x)) - 1))

    def transpose(self):
        x = self.tensor(1)
        axes = self.draw(st.permutations(range(len(self.shape(x)))))
        axes = tuple(axis - len(axes) if self.yes() else axis for axis in axes)
        return self.append("transpose", x, axes=axes if self.yes() else None)

    def getitem(self):
        x = self.tensor(1)
        shape = self.shape(x)
        kind = self.pick(["slices", "numbers", "booleans", "everything"])
        if kind == "numbers":               # some of them twice
            return self.append("getitem", x, index=np.array(self.sizes(self.whole(1, 5), -shape[0], shape[0] - 1)))
        if kind == "booleans":
            mask = self.rng.random(shape[:self.whole(1, len(shape))]) < 0.6
            mask.flat[0] = True
            return self.append("getitem", x, index=mask)
        index = [self.slice(size) if kind == "slices" or self.yes() else self.whole(-size, size - 1)
                 for size in shape[:self.whole(1, len(shape))]]
        if self.yes():
            index.insert(self.whole(0, len(index)), None)
        if self.yes():
            index.append(...)
        return self.append("getitem", x, index=tuple(index))

    def slice(self, size):
        return slice(*self.pick([(None,), (0, 1), (None, None, 2), (None, None, -1), (size - 1, None, -2), (-1, None), (size // 2, None)]))

    def sum(self, op="sum"):
        x = self.tensor()
        ndim = len(self.shape(x))
        axis = None if ndim == 0 or self.whole(0, 5) == 0 else self.whole(-ndim, ndim - 1)
        if axis is not None and ndim > 1 and self.yes():
            axis = tuple(self.draw(st.permutations(range(ndim)))[:self.whole(1, ndim)])
        return self.append(op, x, axis=axis, keepdims=self.yes())

    def mean(self):
        return self.sum("mean")

    def grow(self, op):
        return self.elementwise(op) if op in OPERATORS else getattr(self, op)()

    def gather(self):
        """A root that combines the unused nodes: a weighted sum of some of them, or in one of five cases a root that is not a scalar."""
        used = {i for node in self.nodes for i in node.inputs if not isinstance(i, tuple)}
        ends = [number for number in range(len(self.nodes)) if number not in used and self.nodes[number].op]
        if self.whole(0, 4) == 0:
            self.append("add", ends[-1], (0.5,))
            return self.rng.standard_normal(self.nodes[-1].value.shape)
        total = None
        for end in ends:
            if end != ends[-1] and self.whole(0, 4) == 0:
                continue                                            # leaves that only this node depends on get no gradient
            reduction = self.pick(["weighted", "weighted", "sum", "mean", "cross_entropy"])
            if reduction == "weighted":
                term = self.append("sum", self.append("mul", end, (self.rng.standard_normal(self.shape(end)),)))
            elif reduction == "cross_entropy" and len(self.shape(end)) > 1:
                rows = self.append("flatten", end, start_dim=1)
                term = self.append("cross_entropy", rows, labels=self.rng.integers(0, self.shape(rows)[1], self.shape(rows)[0]))
            else:
                term = self.append("mean" if reduction == "mean" else "sum", end)
            total = term if total is None else self.append("add", total, term)
        self.append("mul", total, (1.5,))
        return None


@st.composite
def graphs(draw):
    """A Graph of about a dozen ops."""
    grower = Grower(draw)
    grower.leaf(*grower.sizes(2), *grower.sizes(2, 2, 6))
    chosen = draw(st.permutations(ops.__all__))[:grower.whole(4, 12)]
    for op in chosen:
        grower.grow(op)
    cotangent = grower.gather()
    return Graph(grower.nodes, grower.branches, cotangent)
