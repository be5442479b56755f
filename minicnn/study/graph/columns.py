"""Which boxes stand exactly above each other, and where these columns are: few bends, and nothing on top of anything else.

Source: Brandes, Koepf, "Fast and Simple Horizontal Coordinate Assignment", 2001, for what a column is; its place is sought more simply.
"""

import itertools

APART = 22                      # units between boxes side by side
SWEEPS = 40                     # how often the columns are gone through
LIGHT = 1e-3                    # how much a line that passes by counts beside a box


def set_places(rows, above, below):
    """x of every box: columns stand as near to what they are joined with as the columns beside allow."""
    block = columns(rows, above)
    for b in block.values():                            # as far to the left as can be, first
        b[0].x = 0.0
    beside = [(a, b, a.right + APART + b.left) for row in rows for a, b in itertools.pairwise(row)]
    moved = True
    while moved:
        moved = False
        for a, b, gap in beside:
            a, b = block[id(a)][0], block[id(b)][0]
            if b.x < a.x + gap:
                b.x, moved = a.x + gap, True
    blocks = list({id(b): b for b in block.values()}.values())
    low: dict = {id(b): [] for b in blocks}             # of each column: (the first box of a column beside it, how far apart)
    high: dict = {id(b): [] for b in blocks}
    for a, b, gap in beside:
        low[id(block[id(b)])].append((block[id(a)][0], gap))
        high[id(block[id(a)])].append((block[id(b)][0], gap))
    for sweep in range(SWEEPS):
        for b in blocks[::-1] if sweep % 2 == 0 else blocks:
            near = [(block[id(n)][0].x, 1.0 if n.drawn or not m.drawn else LIGHT) for m in b for n in above[id(m)] + below[id(m)]
                    if block[id(n)] is not b]
            if near:
                wanted = sum(x * share for x, share in near) / sum(share for _, share in near)
                wanted = min([wanted, *(n.x - gap for n, gap in high[id(b)])])
                b[0].x = max([wanted, *(n.x + gap for n, gap in low[id(b)])])
    for b in blocks:
        for m in b:
            m.x = b[0].x


def columns(rows, above):
    """{id(box): the boxes that share its x, the uppermost first}: a line that passes by stays straight, and a chain of ops, too.

    From row to row no two of these joints cross, so columns never change sides.
    """
    block = {id(b): [b] for row in rows for b in row}
    for upper, lower in itertools.pairwise(rows):
        place = {id(b): i for i, b in enumerate(upper)}
        joints = [((a.drawn or b.drawn) + (a.drawn != b.drawn), j, place[id(a)], a, b) for j, b in enumerate(lower) for a in above[id(b)]]
        taken: list = []
        for _, j, i, a, b in sorted(joints, key=lambda joint: joint[:3]):       # within lines first, then op to op, then the others
            if all((i < k and j < m) or (i > k and j > m) for k, m in taken):
                taken.append((i, j))
                block[id(a)].append(b)
                block[id(b)] = block[id(a)]
    return block
