"""Layered graph drawing: boxes in ranks from top to bottom, each below its sources, and edges that cross few others and no box.

    1  ranks            a box is one rank below the lowest of its sources
    2  dummy nodes      an edge that spans several ranks gets an invisible thin box in each rank between, which keeps a lane free for it
    3  crossings        within each rank, boxes are sorted by the barycenter (mean position) of their neighbours, sweeping down and up,
                        and the order with the fewest crossings is kept
    4  coordinates      chains of ops, and of dummy nodes, form vertical blocks; blocks move towards their neighbours until they touch

Within a rank edges are vertical, each in its own lane; they bend only between ranks, where there are no boxes. Source: Sugiyama, Tagawa,
Toda, "Methods for Visual Understanding of Hierarchical System Structures", 1981.
"""

import dataclasses
import itertools
from collections.abc import Sequence

RANK_GAP = 30                   # units between ranks
BOX_GAP = 22                    # units between neighbours in a rank
DUMMY_WIDTH = 12                # units: the lane of an edge that passes a rank
PORT_GAP = 14                   # units between two edges that meet at a box, at most
CROSSING_SWEEPS = 12            # passes over the ranks, down and up in turn
COORDINATE_SWEEPS = 40          # passes over the blocks, right to left and left to right in turn
DUMMY_WEIGHT = 1e-3             # of a dummy node, relative to a box, where a block with boxes moves towards its neighbours


@dataclasses.dataclass
class Box:
    """A node's size and, once it has been laid out, its position: from x - left to x + right and from top to top + height."""

    left: float
    right: float
    height: float
    core: float                 # edges meet it between x - core and x + core
    x: float = 0.0
    top: float = 0.0
    rank: int = 0
    dummy: bool = False


Edge = tuple[int, int]                          # (source, target), indices of boxes
Neighbours = dict[int, list[Box]]               # id of a box: those it has edges to, in the rank above or in the rank below
Points = list[tuple[float, float]]


def layout(boxes: list[Box], edges: Sequence[Edge]) -> tuple[list[Points], float, float]:
    """Set the position of each Box. Returns the points [(x, y), ...] of each edge, and the width and height of the drawing.

    Edges are sorted by target and lead from an earlier box to a later one. An edge is vertical between points 0 and 1, 2 and 3, ...,
    and bends between points 1 and 2, 3 and 4, ...
    """
    assign_ranks(boxes, edges)
    nodes, chains = list(boxes), []             # a chain is an edge with its dummy nodes: a box in every rank from source to target
    for source, target in edges:
        dummies = [Box(DUMMY_WIDTH / 2, DUMMY_WIDTH / 2, 0, 0, rank=rank, dummy=True)
                   for rank in range(boxes[source].rank + 1, boxes[target].rank)]
        nodes += dummies
        chains.append([boxes[source], *dummies, boxes[target]])
    ranks = [[b for b in nodes if b.rank == rank] for rank in range(1 + max(b.rank for b in nodes))]
    above: Neighbours = {id(b): [] for b in nodes}
    below: Neighbours = {id(b): [] for b in nodes}
    for a, b in itertools.chain.from_iterable(map(itertools.pairwise, chains)):
        above[id(b)].append(a)
        below[id(a)].append(b)
    ranks = reduce_crossings(ranks, above, below)
    assign_coordinates(ranks, above, below)
    top, bands = 0.0, []                        # of each rank: its upper and lower edge
    for row in ranks:
        height = max(b.height for b in row)
        for b in row:
            b.top = top + (height - b.height) / 2
        bands.append((top, top + height))
        top += height + RANK_GAP
    shift = -min(b.x - b.left for b in nodes)
    for b in nodes:
        b.x += shift
    return route_edges(chains, bands), max(b.x + b.right for b in nodes), top - RANK_GAP


def assign_ranks(boxes: list[Box], edges: Sequence[Edge]) -> None:
    """One below the lowest source; a box without sources, one above its highest target."""
    for source, target in edges:                # sorted by target, so the rank of the source is final
        boxes[target].rank = max(boxes[target].rank, boxes[source].rank + 1)
    targets = {target for _, target in edges}
    for i, box in enumerate(boxes):
        ranks = [boxes[target].rank for source, target in edges if source == i]
        if i not in targets and ranks:
            box.rank = min(ranks) - 1


def reduce_crossings(ranks: list[list[Box]], above: Neighbours, below: Neighbours) -> list[list[Box]]:
    """The ranks, each sorted; of all orders that were tried, the one with the fewest crossings."""
    best, fewest = ranks, count_crossings(ranks, below)
    for sweep in range(CROSSING_SWEEPS):
        if not fewest:
            break
        downwards = sweep % 2 == 0
        neighbours = above if downwards else below
        ranks = [list(row) for row in ranks]
        position = {id(b): i for row in ranks for i, b in enumerate(row)}

        def barycenter(box: Box, neighbours: Neighbours = neighbours, position: dict[int, int] = position) -> float:
            near = [position[id(n)] for n in neighbours[id(box)]]
            return sum(near) / len(near) if near else position[id(box)]

        for row in ranks if downwards else ranks[::-1]:
            row.sort(key=barycenter)
            position.update((id(b), i) for i, b in enumerate(row))
        count = count_crossings(ranks, below)
        if count < fewest:
            best, fewest = ranks, count
    return best


def count_crossings(ranks: list[list[Box]], below: Neighbours) -> int:
    """The number of pairs of edges that cross."""
    count = 0
    for upper, lower in itertools.pairwise(ranks):
        position = {id(b): i for i, b in enumerate(lower)}
        ends = [(i, position[id(b)]) for i, a in enumerate(upper) for b in below[id(a)]]
        count += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(ends, 2))
    return count


def assign_coordinates(ranks: list[list[Box]], above: Neighbours, below: Neighbours) -> None:
    """Set the x of every box: blocks move as close to their neighbours as the blocks on either side allow."""
    block_of = vertical_blocks(ranks, above)            # the x of a block is the x of its first box, until the end
    blocks = list({id(block): block for block in block_of.values()}.values())
    side_by_side = [(a, b, a.right + BOX_GAP + b.left) for row in ranks for a, b in itertools.pairwise(row)]
    for block in blocks:                                # first, as far to the left as possible
        block[0].x = 0.0
    moved = True
    while moved:
        moved = False
        for left, right, gap in side_by_side:
            a, b = block_of[id(left)][0], block_of[id(right)][0]
            if b.x < a.x + gap:
                b.x, moved = a.x + gap, True
    on_left: dict[int, list[tuple[Box, float]]] = {id(block): [] for block in blocks}     # (first box of an adjacent block, distance)
    on_right: dict[int, list[tuple[Box, float]]] = {id(block): [] for block in blocks}
    for left, right, gap in side_by_side:
        on_left[id(block_of[id(right)])].append((block_of[id(left)][0], gap))
        on_right[id(block_of[id(left)])].append((block_of[id(right)][0], gap))
    for sweep in range(COORDINATE_SWEEPS):
        for block in blocks[::-1] if sweep % 2 == 0 else blocks:
            near = [(block_of[id(n)][0].x, DUMMY_WEIGHT if n.dummy and not b.dummy else 1.0)
                    for b in block for n in above[id(b)] + below[id(b)] if block_of[id(n)] is not block]
            if near:
                x = sum(x * weight for x, weight in near) / sum(weight for _, weight in near)
                x = min([x, *(other.x - gap for other, gap in on_right[id(block)])])
                block[0].x = max([x, *(other.x + gap for other, gap in on_left[id(block)])])
    for block in blocks:
        for b in block:
            b.x = block[0].x


def vertical_blocks(ranks: list[list[Box]], above: Neighbours) -> dict[int, list[Box]]:
    """By id of each box: its block, the boxes that share its x, from top to bottom.

    A block has at most one box in each rank. Boxes are joined along edges, and between two ranks no two of these edges cross, so two
    blocks never change sides.
    """
    block_of = {id(b): [b] for row in ranks for b in row}
    for upper, lower in itertools.pairwise(ranks):
        position = {id(b): i for i, b in enumerate(upper)}
        # dummy to dummy first, then box to box, then the mixed pairs
        candidates = sorted(((2 if a.dummy != b.dummy else 0 if a.dummy else 1, j, position[id(a)])
                             for j, b in enumerate(lower) for a in above[id(b)]))
        joined: list[tuple[int, int]] = []
        for _, j, i in candidates:
            if all((i < k and j < m) or (i > k and j > m) for k, m in joined):
                joined.append((i, j))
                a, b = upper[i], lower[j]
                block_of[id(a)].append(b)
                block_of[id(b)] = block_of[id(a)]
    return block_of


def route_edges(chains: list[list[Box]], bands: list[tuple[float, float]]) -> list[Points]:
    """The points of each edge: down from its box to the lower edge of the rank, bent to the next rank, straight through it, and so on."""
    starts = ports(chains, end=0, neighbour=1)
    ends = ports(chains, end=-1, neighbour=-2)
    routes = []
    for chain, start, end in zip(chains, starts, ends, strict=True):
        source, target = chain[0], chain[-1]
        points = [(start, source.top + source.height), (start, bands[source.rank][1])]
        for dummy in chain[1:-1]:
            points += [(dummy.x, bands[dummy.rank][0]), (dummy.x, bands[dummy.rank][1])]
        routes.append([*points, (end, bands[target.rank][0]), (end, target.top)])
    return routes


def ports(chains: list[list[Box]], end: int, neighbour: int) -> list[float]:
    """The x where each edge meets the box chain[end]: a straight edge in the middle, the others beside it, sorted by chain[neighbour].x."""
    meeting: dict[int, list[int]] = {}                  # id of a box: the edges that meet there
    for i, chain in enumerate(chains):
        meeting.setdefault(id(chain[end]), []).append(i)
    found = [0.0] * len(chains)
    for edges in meeting.values():
        box = chains[edges[0]][end]
        edges.sort(key=lambda i: (chains[i][neighbour].x, i))
        middle = next((k for k, i in enumerate(edges) if chains[i][neighbour].x == box.x), (len(edges) - 1) / 2)
        gap = min(PORT_GAP, box.core / max(middle, len(edges) - 1 - middle, 1))
        for k, i in enumerate(edges):
            found[i] = box.x + (k - middle) * gap
    return found
