"""Backward must not leave a node before every gradient that flows into it has arrived: hence the topological order.

A chain of n diamonds: each x is used twice, and the two uses meet again in the next x. So d(xn)/d(x0) = 5^n:

    x1 = 2*x0 + 3*x0        x2 = 2*x1 + 3*x1        ...
"""

import numpy as np

import minicnn as mc


class Node:
    """A number that remembers what it was made from: pairs (source, d(this)/d(source))."""

    def __init__(self, value, *made_from): self.value, self.made_from, self.grad, self.seen = value, made_from, 0.0, False
    def __rmul__(self, c): return Node(c * self.value, (self, c))
    def __add__(self, other): return Node(self.value + other.value, (self, 1.0), (other, 1.0))


# Three ways back from xn to x0. Each adds up gradients in .grad, and returns how many visits to nodes that took.
def too_early(node, arrives=1.0):
    """Depth first, each node once. Wrong: a node passes on what it has by then, and what arrives later stays with it."""
    node.grad += arrives
    if node.seen: return 0
    node.seen = True
    return 1 + sum(too_early(source, slope * node.grad) for source, slope in node.made_from)

def every_path(node, arrives=1.0):
    """Whatever arrives is passed on at once, by itself. Right, but a node is visited once for each path that leads to it."""
    node.grad += arrives
    return 1 + sum(every_path(source, slope * arrives) for source, slope in node.made_from)

def in_order(root):
    """Post-order lists a node after all it was made from; reversed, it comes after all made from it. Right, once each."""
    order, root.grad = list(post_order(root)), 1.0
    for node in reversed(order):                    # node.grad is complete: nobody left in the list adds to it
        for source, slope in node.made_from: source.grad += slope * node.grad
    return len(order)

def post_order(node):
    node.seen = True
    for source, _ in node.made_from:
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
    leaf = mc.Tensor(np.array(1.0), requires_grad=True)     # float64; its backward goes in order too, with a stack for any depth
    diamonds(leaf, n).backward()
    print(f"{line}{leaf.grad:13.0f}")
