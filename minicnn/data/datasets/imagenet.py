"""ImageNet (ILSVRC2012) as it was distributed: training images in one folder per class, validation images in one flat directory.

    ROOT/train/<wnid>/*.JPEG                    1,281,167 images; a wnid is WordNet's ID of a class, such as n02119789
    ROOT/val/<wnid>/*.JPEG                      50,000 images, if they were sorted into folders; or
    ROOT/val/ILSVRC2012_val_00000001.JPEG ...   flat, as distributed, and one of the three label files below
    ROOT/ILSVRC/Data/CLS-LOC/train, .../val     Kaggle's folders, with the same content

The labels of a flat val/ come from the first of these files that exists in ROOT, ROOT/data, ROOT/ILSVRC2012_devkit_t12/data, or val/:

    LOC_val_solution.csv                        Kaggle's: a header, then lines "ILSVRC2012_val_00000001,n01751748 111 ..."
    imagenet_2012_validation_synset_labels.txt  TensorFlow's: line k is the wnid of image k
    ILSVRC2012_validation_ground_truth.txt      the devkit's: line k is the class of image k, as a devkit ID, 1 to 1000. Needs synsets.txt
                                                beside it, which maps IDs to wnids: lines "1 n02119789 kit fox"

**The devkit's IDs are not in the order of the wnids**, but plain lists of wnids (Caffe's synsets.txt, Kaggle's LOC_synset_mapping.txt)
are: read with one of these, all labels would be wrong, and the only symptom would be a network that never learns. So a list without IDs
is refused. The devkit stores its IDs in meta.mat; with SciPy, this writes them to synsets.txt:

    python -c "import scipy.io; [print(s[0], s[1]) for s in scipy.io.loadmat('meta.mat', squeeze_me=True)['synsets'][:1000]]" > synsets.txt
"""

import os
import re
from collections.abc import Iterable

from minicnn.data.datasets.files import DataError, check_split, first_existing, printable_path, read_lines
from minicnn.data.datasets.folder import FileDataset, check_classes, class_names, describe_dir, image_names, labels_of, scan_dir
from minicnn.text import format_list

LABEL_DIRS = ("", "data", "ILSVRC2012_devkit_t12/data", "val", "ILSVRC/Data/CLS-LOC/val")
WNID, VAL_IMAGE = re.compile(r"n\d{8}"), re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)
HELP = "help(minicnn.data.datasets.imagenet)"


class ImageNet(FileDataset):
    """ImageNet: the 1000 classes of the 2012 challenge (Russakovsky et al., arXiv:1409.0575), or some of them in the same folders.

    Args:
        root: the folder with train/ and val/, or Kaggle's; help(minicnn.data.datasets.imagenet) describes both, and the label files.
        split: "train" or "val".
        classes: the wnids in the desired order; by default train's folders, sorted.

    Raises DataError: a folder or the label file is missing, a label is not among the classes, or the archives are not unpacked.
    """

    def __init__(self, root: str | os.PathLike[str], split: str = "train", classes: Iterable[str] | None = None) -> None:
        check_split(split, ("train", "val"))
        folder = os.path.join(images_root(root), split)
        wnids = wnids_in(folder)
        if wnids or split == "train":
            self.read_class_folders(folder, wnids, classes)
        else:
            self.read_flat_dir(root, folder, classes)

    def read_class_folders(self, folder: str, wnids: list[str], classes: Iterable[str] | None) -> None:
        """Initialize from one folder per class."""
        if not wnids:
            raise DataError(f"{printable_path(folder)}: must have one folder per class, named n01440764 etc., "
                            f"got {describe_dir(folder)}.{untar_hint(folder)}")
        classes = check_classes(folder, wnids, classes)
        files = [image_names(os.path.join(folder, name)) for name in classes]
        empty = [name for name, names in zip(classes, files, strict=True) if not names]
        if empty:
            raise DataError(f"{printable_path(folder)}: no images in {format_list(empty)}; add some, or remove the folders."
                            f"{untar_hint(folder)}")
        super().__init__(folder, classes, classes, [name for names in files for name in names], labels_of(files))

    def read_flat_dir(self, root: str | os.PathLike[str], folder: str, classes: Iterable[str] | None) -> None:
        """Initialize from one folder with all images, in the order of their numbers, and a label file."""
        wnids = flat_labels(root, folder)
        train = os.path.join(images_root(root), "train")
        if classes is None:
            classes = wnids_in(train) if os.path.isdir(train) else sorted(set(wnids.values()))
        classes = list(classes)
        label_of = {wnid: label for label, wnid in enumerate(classes)}
        unknown = sorted(set(wnids.values()) - set(label_of))
        if unknown:
            raise DataError(f"{printable_path(folder)}: images of classes that are not in train/: {format_list(unknown)}; "
                            "add those classes to train/, or move the images elsewhere")
        super().__init__(folder, classes, [""] * len(classes), list(wnids), [label_of[wnid] for wnid in wnids.values()])


def images_root(root: str | os.PathLike[str]) -> str:
    """The folder with train/ and val/: the root itself, or ILSVRC/Data/CLS-LOC in Kaggle's tree."""
    kaggle = os.path.join(root, "ILSVRC", "Data", "CLS-LOC")
    return kaggle if os.path.isdir(kaggle) else str(root)


def is_imagenet_root(root: str | os.PathLike[str]) -> bool:
    """Whether a folder has ImageNet's layout: a flat val/ of ILSVRC2012_val_* images, or Kaggle's folders."""
    images = images_root(root)
    val = os.path.join(images, "val")
    return images != str(root) or (os.path.isdir(val) and any(VAL_IMAGE.fullmatch(entry.name) for entry in scan_dir(val)))


def wnids_in(folder: str) -> list[str]:
    """The sub-folders that are named like classes, sorted."""
    return [name for name in class_names(folder) if WNID.fullmatch(name)]


def untar_hint(folder: str) -> str:
    """How to unpack the archives in a folder; empty if there are none."""
    if not any(entry.name.endswith(".tar") for entry in scan_dir(folder)):
        return ""
    return f" Unpack the archives:  cd {printable_path(folder)}; for f in *.tar; do mkdir -p ${{f%.tar}}; tar xf $f -C ${{f%.tar}}; done"


def flat_labels(root: str | os.PathLike[str], folder: str) -> dict[str, str]:
    """{file name: wnid} of the images of a flat val/, in the order of their numbers."""
    files = {int(match[1]): match[0] for entry in scan_dir(folder) if (match := VAL_IMAGE.fullmatch(entry.name))}
    if not files:
        raise DataError(f"{printable_path(folder)}: must have one folder per class, or images named ILSVRC2012_val_00000001.JPEG etc., "
                        f"got {describe_dir(folder)}.{untar_hint(folder)}")
    for name, read in READERS.items():
        path = first_existing(os.path.join(root, label_dir, name) for label_dir in LABEL_DIRS)
        if path:
            wnids = read(path)
            missing = [file for number, file in files.items() if number not in wnids]
            if missing:
                raise DataError(f"{printable_path(path)}: no label for {format_list(missing)} of {printable_path(folder)}; "
                                "download it again")
            return {files[number]: wnids[number] for number in sorted(files)}
    solution, synset_labels, ground_truth = READERS
    raise DataError(f"{printable_path(folder)}: the images are not sorted into class folders, and there is no label file. Put one of these "
                    f"into {printable_path(root)}: Kaggle's {solution}; {synset_labels}; or the devkit's {ground_truth} with a synsets.txt "
                    f"({HELP} describes them)")


def read_solution(path: str) -> dict[int, str]:
    """{number of the image: wnid} of LOC_val_solution.csv."""
    wnids = {}
    for line in read_lines(path)[1:]:
        match = re.match(r"ILSVRC2012_val_(\d{8}),(n\d{8})\b", line)
        if not match:
            raise DataError(f'{printable_path(path)}: lines must be like "ILSVRC2012_val_00000001,n01751748 ...", got {line[:60]!r}; '
                            "download it again")
        wnids[int(match[1])] = match[2]
    return wnids


def read_wnids(path: str) -> dict[int, str]:
    """{number of the image: wnid} of a file with one wnid per line."""
    wnids = [line.strip() for line in read_lines(path)]
    wrong = [wnid for wnid in wnids if not WNID.fullmatch(wnid)]
    if wrong:
        raise DataError(f"{printable_path(path)}: lines must be wnids such as n01751748, got {wrong[0][:60]!r}; download it again")
    return dict(enumerate(wnids, 1))


def read_ground_truth(path: str) -> dict[int, str]:
    """{number of the image: wnid} of ILSVRC2012_validation_ground_truth.txt, by way of the devkit IDs in synsets.txt."""
    here = os.path.dirname(path)
    mapping = first_existing(os.path.join(here, *up, "synsets.txt") for up in ((), ("..",), ("..", "..")))
    if not mapping:
        raise DataError(f"{printable_path(path)}: holds the devkit's class IDs, which are not in the order of the wnids. It needs a file "
                        f'synsets.txt beside it that maps them to wnids, with lines like "1 n02119789 kit fox" '
                        f"({HELP} shows how to make it from meta.mat)")
    wnid_of = read_synsets(mapping)
    lines = [line.strip() for line in read_lines(path)]
    wrong = [line for line in lines if not re.fullmatch("[0-9]{1,6}", line) or int(line) not in wnid_of]
    if wrong:
        raise DataError(f"{printable_path(path)}: lines must be class IDs of {printable_path(mapping)}, got {wrong[0][:60]!r}; "
                        "download both again")
    return {number: wnid_of[int(line)] for number, line in enumerate(lines, 1)}


def read_synsets(path: str) -> dict[int, str]:
    """{devkit ID of a class: its wnid} of synsets.txt."""
    wnids = {}
    for line in read_lines(path):
        match = re.match(r"([0-9]{1,6})[\s,]+(n\d{8})\b", line.strip())
        if not match:
            raise DataError(f"""{printable_path(path)}: lines must be a devkit ID and a wnid, like "1 n02119789", got {line[:60]!r}. """
                            "A plain list of wnids (Caffe's, Kaggle's) is in another order than the IDs: all labels would be wrong")
        wnids[int(match[1])] = match[2]
    return wnids


READERS = {                         # of the label files of a flat val/, in the order of preference
    "LOC_val_solution.csv": read_solution,
    "imagenet_2012_validation_synset_labels.txt": read_wnids,
    "ILSVRC2012_validation_ground_truth.txt": read_ground_truth,
}
