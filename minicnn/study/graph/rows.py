"""In which row a box stands, and in which order the boxes of a row do, so that few lines cross."""

import itertools

SWEEPS = 12                     # how often the rows are gone through, down and up in turn


def set_rows(boxes, edges):
    """One below the lowest source; what has no source, one above its highest target."""
    for source, target in edges:                        # in the order of the targets: a source's row is known
        boxes[target].row = max(boxes[target].row, boxes[source].row + 1)
    targets = {target for _, target in edges}
    for i, box in enumerate(boxes):
        rows = [boxes[target].row for source, target in edges if source == i]
        if i not in targets and rows:
            box.row = min(rows) - 1


def in_order(rows, above, below):
    """The rows with their boxes in the order, of those tried, in which the fewest lines cross."""
    best, fewest = rows, crossings(rows, below)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        downwards = sweep % 2 == 0
        rows = [list(row) for row in rows]
        place = {id(b): i for row in rows for i, b in enumerate(row)}
        for row in rows if downwards else rows[::-1]:
            neighbours = above if downwards else below
            row.sort(key=lambda b, n=neighbours: mean([place[id(a)] for a in n[id(b)]], place[id(b)]))
            place.update((id(b), i) for i, b in enumerate(row))
        count = crossings(rows, below)
        if count < fewest:
            best, fewest = rows, count
    return best


def crossings(rows, below):
    """How many pairs of lines cross."""
    count = 0
    for upper, lower in itertools.pairwise(rows):
        place = {id(b): i for i, b in enumerate(lower)}
        ends = [(i, place[id(b)]) for i, a in enumerate(upper) for b in below[id(a)]]
        count += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(ends, 2))
    return count


def mean(numbers, otherwise):
    return sum(numbers) / len(numbers) if numbers else otherwise
