"""Look at every image, by several threads, and put together what was seen."""

import collections

import numpy as np
from tqdm import tqdm

from minicnn import parallel
from minicnn.data.check import repeated
from minicnn.data.check.everything import Everything, find
from minicnn.data.check.looking import look
from minicnn.data.packed.files import ahead

SHARE = 32              # images that a thread looks at in one go
UNEQUAL = 3             # the largest class so many times the smallest: worth a note


def verify(where, fast=False, workers=None, progress=True):
    """Look at every image of a data set. Returns a dict, ready for JSON:

        where, fast
        sets            {"train": {"images": how many, "bytes", "classes": {name: how many}}, "val": ...}
        sizes           {"smallest": {"width", "height", "file"}, "median": ..., "largest": ...} by the number of pixels; or None
        kinds           {"JPEG RGB": how many, ...}
        problems        sentences: unreadable images, empty or missing classes, the same image in two sets or two classes
        notes           sentences that ask for nothing: the same image twice in a class, misnamed files, classes of unequal size
        duplicates      lists of names of files with the same bytes

    Args:
        where: what `open_dataset` takes; or a folder with nothing but a folder of images for each class.
        fast: read only the beginning of each file; damage further on goes unseen.
        workers: threads; by default one for each core.
        progress: show a bar on stderr, if that is a terminal.

    Raises DataError: there is nothing to look at.
    """
    sets, problems = find(where)
    everything, looks = Everything(sets), []
    shares = (range(n, min(n + SHARE, len(everything))) for n in range(0, len(everything), SHARE))
    with tqdm(total=len(everything), unit=" images", dynamic_ncols=True, disable=None if progress else True) as bar:
        for found in ahead(lambda share: [look(everything, n, fast) for n in share], shares, workers or parallel.cores()):
            looks += found
            bar.update(len(found))
    problems += [one.problem for one in looks if one.problem]
    groups = repeated.repetitions(everything, looks, fast)
    bad, harmless = repeated.about(everything, looks, groups)
    about_sets = {name: describe_set(dataset, looks[everything.part(name)]) for name, dataset in sets.items()}
    return {
        "where": str(where), "fast": fast, "sets": about_sets, "sizes": sizes(everything, looks),
        "kinds": dict(collections.Counter(one.kind for one in looks if one.kind).most_common()),
        "problems": problems + different_classes(about_sets) + bad,
        "notes": harmless + misnamed(everything, looks) + unequal(about_sets),
        "duplicates": [[everything.name(n) for n in group] for group in groups],
    }


def describe_set(dataset, looks):
    """How much there is of it."""
    counts = collections.Counter(one.label for one in looks)
    return {"images": len(looks), "bytes": sum(one.nbytes for one in looks),
            "classes": {name: counts[label] for label, name in enumerate(dataset.classes)}}


def different_classes(sets):
    """Sentences about classes that one set has and another has not."""
    first, *others = sets
    return [f"the class {name} is in {have}, but not in {lack}" for other in others for have, lack in ((first, other), (other, first))
            for name in sets[have]["classes"] if name not in sets[lack]["classes"]]


def misnamed(everything, looks):
    """Sentences about files that are something else than their names say; they are read rightly."""
    return [f"{everything.name(n)}: is {one.kind.split()[0]}, whatever its name says" for n, one in enumerate(looks) if one.misnamed]


def unequal(sets):
    """A sentence for each set whose classes are of very different sizes."""
    numbers = {name: [n for n in one["classes"].values() if n] for name, one in sets.items()}
    return [f"{name}: the largest class has {max(n) / min(n):.1f} times as many images as the smallest"
            for name, n in numbers.items() if n and max(n) >= UNEQUAL * min(n)]


def sizes(everything, looks):
    """The smallest and the largest image by the number of pixels, and the median width and height; None if there is no image."""
    seen = [(one.height * one.width, n) for n, one in enumerate(looks) if one.height]
    if not seen:
        return None

    def entry(n):
        return {"width": looks[n].width, "height": looks[n].height, "file": everything.name(n)}

    width, height = (int(np.median([getattr(looks[n], side) for _, n in seen])) for side in ("width", "height"))
    return {"smallest": entry(min(seen)[1]), "median": {"width": width, "height": height}, "largest": entry(max(seen)[1])}
