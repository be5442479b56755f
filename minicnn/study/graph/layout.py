"""Boxes in rows from top to bottom, each below those that it depends on, and lines between them that cross no box.

    1  rows         a box is one row below the lowest of its sources (rows.py)
    2  stand-ins    a line that passes a row gets a place of its own in it: a thin box that nobody draws
    3  order        in each row by the mean place of the neighbours, down and up, as long as fewer lines cross (rows.py)
    4  columns      a chain of ops, and a line that passes by, is straight; columns are as near as the boxes allow (columns.py)

Inside a row lines are vertical, each in its own place; they bend between rows, where there are no boxes. Source: Sugiyama, Tagawa, Toda,
"Methods for Visual Understanding of Hierarchical System Structures", 1981.
"""

import dataclasses
import itertools

from minicnn.study.graph.columns import set_places
from minicnn.study.graph.rows import in_order, set_rows

BETWEEN = 30                    # units between rows
THIN = 12                       # as wide is a stand-in
PORT = 14                       # between two lines that meet at a box, at most


@dataclasses.dataclass
class Box:
    """Its size, and once it has been laid out its place: (x, top); it reaches from x - left to x + right."""

    left: float
    right: float
    height: float
    core: float                 # the lines meet it within x - core and x + core
    x: float = 0.0
    top: float = 0.0
    row: int = 0
    drawn: bool = True


def layout(boxes, edges):
    """Give each Box its place. Returns for each edge (source, target) the points [(x, y), ...] of its line; and the width and height.

    Every edge leads from a box to a later one. Lines are vertical inside of rows; between the points 1 and 2, 3 and 4, ... they bend.
    """
    set_rows(boxes, edges)
    every, chains = list(boxes), []
    for source, target in edges:
        chain = [boxes[source]]
        for row in range(boxes[source].row + 1, boxes[target].row):
            chain.append(Box(THIN / 2, THIN / 2, 0, 0, row=row, drawn=False))
            every.append(chain[-1])
        chains.append([*chain, boxes[target]])
    rows = [[b for b in every if b.row == row] for row in range(1 + max(b.row for b in every))]
    above: dict = {id(b): [] for b in every}
    below: dict = {id(b): [] for b in every}
    for a, b in itertools.chain.from_iterable(map(itertools.pairwise, chains)):
        above[id(b)].append(a)
        below[id(a)].append(b)
    rows = in_order(rows, above, below)
    set_places(rows, above, below)
    top, bands = 0.0, []
    for row in rows:
        height = max(b.height for b in row)
        for b in row:
            b.top = top + (height - b.height) / 2
        bands.append((top, top + height))
        top += height + BETWEEN
    shift = -min(b.x - b.left for b in every)
    for b in every:
        b.x += shift
    return lines(chains, bands), max(b.x + b.right for b in every), top - BETWEEN


def lines(chains, bands):
    """The points of each line: down from its box to the edge of the row, bent to the next row, straight through it, and so on."""
    leaves = ports(chains, end=0, beside=1)
    enters = ports(chains, end=-1, beside=-2)
    found = []
    for chain, first, last in zip(chains, leaves, enters, strict=True):
        points = [(first, chain[0].top + chain[0].height), (first, bands[chain[0].row][1])]
        for b in chain[1:-1]:
            points += [(b.x, bands[b.row][0]), (b.x, bands[b.row][1])]
        found.append([*points, (last, bands[chain[-1].row][0]), (last, chain[-1].top)])
    return found


def ports(chains, end, beside):
    """x where each line meets the box at this end of it: a straight one in the middle, the others beside it in the order of their ways."""
    at: dict = {}
    for i, chain in enumerate(chains):
        at.setdefault(id(chain[end]), []).append(i)
    found = [0.0] * len(chains)
    for numbers in at.values():
        box = chains[numbers[0]][end]
        numbers.sort(key=lambda i: (chains[i][beside].x, i))
        middle = next((place for place, i in enumerate(numbers) if chains[i][beside].x == box.x), (len(numbers) - 1) / 2)
        apart = min(PORT, box.core / max(middle, len(numbers) - 1 - middle, 1))
        for place, i in enumerate(numbers):
            found[i] = box.x + (place - middle) * apart
    return found
