"""ImageNet as the challenge of 2012 gave it out: training images in folders, validation images in one heap, labels elsewhere.

    ROOT/train/<wnid>/*.JPEG                    1,281,167 images; a wnid is WordNet's number of a class, such as n02119789
    ROOT/val/<wnid>/*.JPEG                      50,000 images, if somebody has sorted them; or
    ROOT/val/ILSVRC2012_val_00000001.JPEG ...   as they come, and one of the three files below
    ROOT/ILSVRC/Data/CLS-LOC/train, .../val     Kaggle's folders, the same within

The labels of the heap come from the first of these that is there, in ROOT, ROOT/data, ROOT/ILSVRC2012_devkit_t12/data, or val/ itself:

    LOC_val_solution.csv                        Kaggle's: a heading, then lines "ILSVRC2012_val_00000001,n01751748 111 ..."
    imagenet_2012_validation_synset_labels.txt  TensorFlow's: line k is the wnid of image k
    ILSVRC2012_validation_ground_truth.txt      the devkit's: line k is the class of image k, as one of the devkit's own numbers, 1 to 1000.
                                                Wants synsets.txt beside it, which tells whose they are: lines "1 n02119789 kit fox"

**The devkit's numbers are not in the order of the wnids**, and plain lists of wnids (Caffe's synsets.txt, Kaggle's
LOC_synset_mapping.txt) are: read with one of these, all labels would be wrong, and nothing would show it but a network that never learns.
So a list without numbers is refused. The devkit keeps its numbers in meta.mat; with SciPy, this writes them down:

    python -c "import scipy.io; [print(s[0], s[1]) for s in scipy.io.loadmat('meta.mat', squeeze_me=True)['synsets'][:1000]]" > synsets.txt
"""

import os
import re

import numpy as np

from minicnn.data.datasets.files import DataError, check_split, first_that_exists, listed, read_lines, shown
from minicnn.data.datasets.folder import FileDataset, class_names, contents, image_names, listing

PLACES = ("", "data", "ILSVRC2012_devkit_t12/data", "val", "ILSVRC/Data/CLS-LOC/val")
WNID, VAL_IMAGE = re.compile(r"n\d{8}"), re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)
HELP = "help(minicnn.data.datasets.imagenet)"


class ILSVRC2012(FileDataset):
    """The 1000 classes of the ImageNet challenge 2012 (Russakovsky et al., arXiv:1409.0575), or some of them in the same folders.

    Args:
        root: the folder with train/ and val/, or Kaggle's; the module's first lines tell how it looks, and where labels come from.
        split: "train" or "val".
        classes: the wnids in the order that is wanted; by default train's folders, sorted.

    Raises DataError: a folder or the labels are missing, and which; a label that is no class; archives that are not unpacked.
    """

    def __init__(self, root, split="train", classes=None):
        check_split(split, ("train", "val"))
        folder = os.path.join(images_root(root), split)
        found = wnids_in(folder)
        if found or split == "train":
            self.read_sorted(folder, found, classes)
        else:
            self.read_heap(root, folder, classes)

    def read_sorted(self, folder, found, classes):
        """A folder for each class."""
        if not found:
            raise DataError(f"{shown(folder)}: no folders that are called like classes, n01440764 and so on; there is: {contents(folder)}."
                            f"{unpacking(folder)}")
        classes = found if classes is None else list(classes)
        if sorted(classes) != found:
            missing, extra = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
            raise DataError(f"{shown(folder)}: its classes are not those wanted; missing: {listed(missing) or 'none'}, "
                            f"not known: {listed(extra) or 'none'}")
        files = [image_names(os.path.join(folder, name)) for name in classes]
        empty = [name for name, names in zip(classes, files, strict=True) if not names]
        if empty:
            raise DataError(f"{shown(folder)}: no images in {listed(empty)}; put some in, or remove the folders.{unpacking(folder)}")
        labels = np.repeat(np.arange(len(classes)), [len(names) for names in files])
        super().__init__(folder, classes, classes, [name for names in files for name in names], labels)

    def read_heap(self, root, folder, classes):
        """All images in one folder, in the order of their numbers, with labels from elsewhere."""
        wnids = heap_labels(root, folder)                                   # {file: wnid}
        train = os.path.join(images_root(root), "train")
        if classes is None:
            classes = wnids_in(train) if os.path.isdir(train) else sorted(set(wnids.values()))
        label_of = {wnid: label for label, wnid in enumerate(classes)}
        unknown = sorted(set(wnids.values()) - set(label_of))
        if unknown:
            raise DataError(f"{shown(folder)}: images of classes that are not in train/: {listed(unknown)}; add those there, "
                            "or move the images elsewhere")
        super().__init__(folder, classes, [""] * len(classes), list(wnids), [label_of[wnid] for wnid in wnids.values()])


def images_root(root):
    """The folder with train/ and val/: the root, or a place in Kaggle's tree."""
    kaggle = os.path.join(root, "ILSVRC", "Data", "CLS-LOC")
    return kaggle if os.path.isdir(kaggle) else str(root)


def looks_like_it(root):
    """Whether a folder has ImageNet's tree: val/ is a heap of ILSVRC2012_val_* images, or the folders are Kaggle's."""
    images = images_root(root)
    val = os.path.join(images, "val")
    return images != str(root) or (os.path.isdir(val) and any(VAL_IMAGE.fullmatch(entry.name) for entry in listing(val)))


def wnids_in(folder):
    """The sub-folders that are called like classes, sorted."""
    return [name for name in class_names(folder) if WNID.fullmatch(name)]


def unpacking(folder):
    """What to do about archives that are still packed; nothing if there are none."""
    if not any(entry.name.endswith(".tar") for entry in listing(folder)):
        return ""
    return f" Unpack the archives:  cd {shown(folder)}; for f in *.tar; do mkdir -p ${{f%.tar}}; tar xf $f -C ${{f%.tar}}; done"


def heap_labels(root, folder):
    """{file name: wnid} of the images of an unsorted val/, in the order of their numbers."""
    files = {int(match[1]): match[0] for entry in listing(folder) if (match := VAL_IMAGE.fullmatch(entry.name))}
    if not files:
        raise DataError(f"{shown(folder)}: neither folders of classes nor images called ILSVRC2012_val_00000001.JPEG and so on; "
                        f"there is: {contents(folder)}.{unpacking(folder)}")
    for name, read in READERS.items():
        path = first_that_exists(os.path.join(root, place, name) for place in PLACES)
        if path:
            wnids = read(path)
            missing = [file for number, file in files.items() if number not in wnids]
            if missing:
                raise DataError(f"{shown(path)}: no label for {listed(missing)} of {shown(folder)}; get it again")
            return {files[number]: wnids[number] for number in sorted(files)}
    solution, wnids, ground_truth = READERS
    raise DataError(f"{shown(folder)}: the images are not sorted into folders of classes, and their labels are missing. Put one of these "
                    f"into {shown(root)}: Kaggle's {solution}; {wnids}; or the devkit's {ground_truth} with a synsets.txt "
                    f"({HELP} tells how they look)")


def read_solution(path):
    """{number of the image: wnid} of Kaggle's table."""
    wnids = {}
    for line in read_lines(path)[1:]:
        match = re.match(r"ILSVRC2012_val_(\d{8}),(n\d{8})\b", line)
        if not match:
            raise DataError(f'{shown(path)}: a line is {line[:60]!r}, but "ILSVRC2012_val_00000001,n01751748 ..." is wanted; get it again')
        wnids[int(match[1])] = match[2]
    return wnids


def read_wnids(path):
    """{number of the image: wnid} of a list."""
    wnids = [line.strip() for line in read_lines(path)]
    wrong = [wnid for wnid in wnids if not WNID.fullmatch(wnid)]
    if wrong:
        raise DataError(f"{shown(path)}: a line is {wrong[0][:60]!r}, but the wnid of an image is wanted, n01751748 say; get it again")
    return dict(enumerate(wnids, 1))


def read_ground_truth(path):
    """{number of the image: wnid}, by way of the devkit's own numbers of the classes."""
    here = os.path.dirname(path)
    mapping = first_that_exists(os.path.join(here, *up, "synsets.txt") for up in ((), ("..",), ("..", "..")))
    if not mapping:
        raise DataError(f"{shown(path)}: these are the devkit's numbers of classes, which are not in the order of the wnids. A file "
                        f'synsets.txt beside it must tell whose they are, in lines like "1 n02119789 kit fox" '
                        f"({HELP} tells how to make it from meta.mat)")
    wnid_of = read_numbers(mapping)
    lines = [line.strip() for line in read_lines(path)]
    wrong = [line for line in lines if not re.fullmatch("[0-9]{1,6}", line) or int(line) not in wnid_of]
    if wrong:
        raise DataError(f"{shown(path)}: a class is {wrong[0][:60]!r}, which {shown(mapping)} does not have; get both again")
    return {number: wnid_of[int(line)] for number, line in enumerate(lines, 1)}


def read_numbers(path):
    """{the devkit's number of a class: its wnid}, from synsets.txt."""
    wnids = {}
    for line in read_lines(path):
        match = re.match(r"([0-9]{1,6})[\s,]+(n\d{8})\b", line.strip())
        if not match:
            raise DataError(f"""{shown(path)}: a line is {line[:60]!r}, but the devkit's number and the wnid are wanted, "1 n02119789". """
                            "A plain list of wnids (Caffe's, Kaggle's) has another order than those numbers: all labels would be wrong")
        wnids[int(match[1])] = match[2]
    return wnids


READERS = {                         # of the files with labels of the heap, best first
    "LOC_val_solution.csv": read_solution,
    "imagenet_2012_validation_synset_labels.txt": read_wnids,
    "ILSVRC2012_validation_ground_truth.txt": read_ground_truth,
}
