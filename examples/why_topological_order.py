"""Backward needs a topological order: a node may pass its gradient on only when all gradients that flow into it have arrived.

The example is a chain of n diamonds: each x is used twice, and both uses are added to give the next x. So d(xn)/d(x0) = 5^n:

    x1 = 2*x0 + 3*x0        x2 = 2*x1 + 3*x1        ...
"""

import numpy as np

import minicnn as mc


class Node:
    """A node of the graph: a number, and what it was computed from, as pairs (source, d(this)/d(source))."""

    def __init__(self, value, *inputs): self.value, self.inputs, self.grad, self.seen = value, inputs, 0.0, False
    def __rmul__(self, c): return Node(c * self.value, (self, c))
    def __add__(self, other): return Node(self.value + other.value, (self, 1.0), (other, 1.0))


# Three ways back from xn to x0. Each adds up gradients in .grad and returns the number of visits to nodes.
def too_early(node, arrives=1.0):
    """Depth first, each node once. Wrong: a node passes on what has arrived so far, and nothing of what arrives later."""
    node.grad += arrives
    if node.seen: return 0
    node.seen = True
    return 1 + sum(too_early(source, slope * node.grad) for source, slope in node.inputs)

def every_path(node, arrives=1.0):
    """Each gradient is passed on separately as it arrives. Correct, but a node is visited once for each path that leads to it."""
    node.grad += arrives
    return 1 + sum(every_path(source, slope * arrives) for source, slope in node.inputs)

def in_order(root):
    """Post-order lists a node after its inputs; reversed, after everything that uses it. Correct, and one visit each."""
    order, root.grad = list(post_order(root)), 1.0
    for node in reversed(order):                    # node.grad is complete: no node left in the list adds to it
        for source, slope in node.inputs: source.grad += slope * node.grad
    return len(order)

def post_order(node):
    node.seen = True
    for source, _ in node.inputs:
        if not source.seen: yield from post_order(source)
    yield node

def diamonds(x, n): return x if n == 0 else diamonds(2.0 * x + 3.0 * x, n - 1)

print(f"{'too early':>36} {'every path':>22} {'in order':>22}")
print(f"{'n':>2} {'5^n':>12}" + f"{'gradient':>13} {'visits':>8} " * 3 + f"{'minicnn':>13}")
for n in (1, 2, 3, 4, 8, 16):
    line = f"{n:2} {5 ** n:12}"
    for walk in (too_early, every_path, in_order):
        x0 = Node(1.0)
        visits = walk(diamonds(x0, n))
        line += f"{x0.grad:13.0f} {visits:8} "
    leaf = mc.Tensor(np.array(1.0), requires_grad=True)     # float64; its backward uses this order too, with a stack for any depth
    diamonds(leaf, n).backward()
    print(f"{line}{leaf.grad:13.0f}")
