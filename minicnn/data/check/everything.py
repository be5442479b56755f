"""All images of the data sets that belong together (train, val), even where something is wrong with these."""

import bisect
import itertools
import os
from typing import Any

from minicnn.data.datasets import DataError, FileDataset, opening
from minicnn.data.datasets.files import shown
from minicnn.data.datasets.folder import class_names, image_names
from minicnn.data.datasets.imagenet import ILSVRC2012, images_root, looks_like_it, wnids_in


class Everything:
    """The images of several data sets, {name: data set}, numbered from the first of the first to the last of the last."""

    def __init__(self, sets):
        self.sets, self.names, self.starts = sets, list(sets), [0, *itertools.accumulate(map(len, sets.values()))]

    def __len__(self):
        return self.starts[-1]

    def set_of(self, n):
        """The name of the set of image n."""
        return self.names[bisect.bisect_right(self.starts, n) - 1]

    def place(self, n):
        """The data set of image n, and its number there."""
        k = bisect.bisect_right(self.starts, n) - 1
        return self.sets[self.names[k]], n - self.starts[k]

    def part(self, name):
        """Where the images of a set are among all."""
        k = self.names.index(name)
        return slice(self.starts[k], self.starts[k + 1])

    def name(self, n):
        """Its file, as text that can be printed."""
        dataset, i = self.place(n)
        return shown(dataset.name(i))


def find(where):
    """{name: data set} of what `where` names, and sentences about what is wrong with their folders.

    Folders of classes are taken as they are, with empty classes and without a val/; what else there is, as `open_dataset` takes it.
    """
    root = str(where)
    sets: dict[str, Any] = {}
    problems: list[str] = []
    if os.path.isdir(root):
        imagenet = looks_like_it(root)
        for name in ("train", *opening.VALIDATION):
            folder = os.path.join(images_root(root), name)
            if not os.path.isdir(folder) or os.path.exists(os.path.join(folder, opening.PACK_INDEX)) or (imagenet and name == "test"):
                continue
            heap = imagenet and name == "val" and not wnids_in(folder)
            sets[name] = ILSVRC2012(root, name) if heap else as_it_is(folder, problems)
        if not sets and any(image_names(os.path.join(root, name)) for name in class_names(root)):
            sets["all"] = as_it_is(root, problems)
    return sets or dict(zip(("train", "val"), opening.open_dataset(where), strict=True)), problems


def as_it_is(folder, problems):
    """A folder of classes with whatever there is; what ImageFolder would refuse is added to the problems."""
    classes = class_names(folder)
    if not classes:
        problems.append(f"{shown(folder)}: no folders of classes; one sub-folder of images for each class is wanted")
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        path = os.path.join(folder, name)
        try:
            files = image_names(path)
        except DataError as error:
            problems.append(str(error))
            continue
        if not files:
            problems.append(f"{shown(path)}: no images in this class; put some in, or remove the folder")
        names += files
        labels += [label] * len(files)
    return FileDataset(folder, classes, classes, names, labels)
