"""The same image, byte for byte, in more than one place: validation that knows the answers, or a class that contradicts another."""

import collections

from minicnn.data.check.looking import digest_of_file
from minicnn.data.datasets import FileDataset
from minicnn.data.datasets.files import listed


def repetitions(everything, looks, fast):
    """The numbers of images with the same bytes, in groups."""
    groups = grouped((one.digest, n) for n, one in enumerate(looks) if one.nbytes and one.digest)
    return [group for numbers in groups for group in confirmed(everything, numbers)] if fast else groups


def confirmed(everything, numbers):
    """Of images of one size with the same beginning, the groups that are the same to the end."""
    if not isinstance(everything.place(numbers[0])[0], FileDataset):        # in memory: all of it was looked at
        return [numbers]
    paths = ((n, dataset.name(i)) for n in numbers for dataset, i in [everything.place(n)])
    return grouped((digest_of_file(path) or path, n) for n, path in paths)


def grouped(pairs):
    """Of pairs (key, number) the numbers with the same key, where there are several."""
    groups = collections.defaultdict(list)
    for key, number in pairs:
        groups[key].append(number)
    return [numbers for numbers in groups.values() if len(numbers) > 1]


def about(everything, looks, groups):
    """Sentences about images that are in two sets or two classes, and sentences about those that are twice in one class."""
    bad, harmless = [], []
    for numbers in groups:
        sets = sorted({everything.set_of(n) for n in numbers})
        classes = sorted({everything.place(n)[0].classes[looks[n].label] for n in numbers})
        files = listed([everything.name(n) for n in numbers], 4)
        if len(sets) > 1:
            bad.append(f"the same image in {' and '.join(sets)}: {files}")
        elif len(classes) > 1:
            bad.append(f"the same image in the classes {listed(classes)}: {files}")
        else:
            harmless.append(f"the same image more than once in a class: {files}")
    return bad, harmless
