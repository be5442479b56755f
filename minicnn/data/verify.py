"""Verification of a data set before a long training: which images there are, which cannot be read, and which are duplicates."""

import bisect
import collections
import dataclasses
import hashlib
import io
import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from minicnn.backend import threads
from minicnn.data import detect
from minicnn.data.datasets import DataError, FileDataset
from minicnn.data.datasets.files import printable_path
from minicnn.data.datasets.folder import class_names, image_names, no_images
from minicnn.data.datasets.imagenet import ImageNet, images_root, is_imagenet_root, wnids_in
from minicnn.data.datasets.images import decode, explain_error, open_image
from minicnn.data.shards.format import INDEX_FILE, ordered_prefetch_map
from minicnn.text import format_list

CHUNK = 32                              # images that a thread inspects at a time
HEADER_BYTES = 4096                     # of each file that verify(fast=True) reads
IMBALANCE_RATIO = 3                     # of the largest to the smallest class, at which a note is added
SAME_FORMAT = {"MPO": "JPEG"}           # cameras write several JPEGs into one file named .jpg


@dataclasses.dataclass(slots=True)
class ImageInfo:
    """The properties of one image; `problem` is why it cannot be read, or empty."""

    label: int = -1             # -1: unknown, because the image cannot be read
    nbytes: int = 0
    width: int = 0
    height: int = 0
    kind: str = ""              # format and mode: "JPEG RGB"
    misnamed: bool = False      # its extension is that of another format
    digest: bytes = b""
    problem: str = ""


def verify(where: str | os.PathLike[str], fast: bool = False, workers: int | None = None, progress: bool = True) -> dict[str, Any]:
    """Inspect every image of a data set. Returns a report, a dict that can be written as JSON:

        where, fast     the arguments
        sets            {"train": {"images": count, "bytes": count, "classes": {name: count}}, "val": ...}
        sizes           {"smallest": {"width", "height", "file"}, "median": ..., "largest": ...} by number of pixels; None without images
        kinds           {"JPEG RGB": count, ...}
        problems        sentences: unreadable images, empty or missing classes, the same image in two sets or two classes
        notes           sentences about harmless findings: duplicates in one class, misnamed files, class imbalance
        duplicates      lists of names of files with the same bytes

    Args:
        where: what `open_dataset` takes, or a folder with one folder of images per class.
        fast: read only the first 4096 bytes of each file; damage after them is missed.
        workers: threads; by default one per core.
        progress: show a progress bar on stderr, if that is a terminal.

    Raises DataError: there is no data set.
    """
    sets, problems = discover(where)
    images, workers = ConcatDataset(sets), workers or threads.available_cores()
    infos: list[ImageInfo] = []
    chunks = (range(n, min(n + CHUNK, len(images))) for n in range(0, len(images), CHUNK))
    with tqdm(total=len(images), unit=" images", dynamic_ncols=True, disable=None if progress else True) as bar:
        for found in ordered_prefetch_map(lambda chunk: [inspect_image(images, n, fast) for n in chunk], chunks, workers):
            infos += found
            bar.update(len(found))
    duplicates = find_duplicates(images, infos, fast)
    harmful, harmless = describe_duplicates(images, infos, duplicates)
    summaries = {name: summarize_set(dataset, infos[images.slice_of(name)]) for name, dataset in sets.items()}
    problems += [info.problem for info in infos if info.problem]
    misnamed = [f"{images.name(n)}: is a {info.kind.split()[0]} despite its extension" for n, info in enumerate(infos) if info.misnamed]
    return {
        "where": str(where), "fast": fast, "sets": summaries, "sizes": size_statistics(images, infos),
        "kinds": dict(collections.Counter(info.kind for info in infos if info.kind).most_common()),
        "problems": problems + class_differences(summaries) + harmful,
        "notes": harmless + misnamed + class_imbalance(summaries),
        "duplicates": [[images.name(n) for n in group] for group in duplicates],
    }


def discover(where: str | os.PathLike[str]) -> tuple[dict[str, Any], list[str]]:
    """({name: data set}, problems of their folders), for a name or a folder.

    Class folders are accepted as they are, even with empty classes or without a val/; everything else as `open_dataset` accepts it.
    """
    root = str(where)
    sets: dict[str, Any] = {}
    problems: list[str] = []
    if os.path.isdir(root):
        imagenet = is_imagenet_root(root)
        for name in ("train", *detect.VALIDATION_DIRS):
            folder = os.path.join(images_root(root), name)
            if not os.path.isdir(folder) or os.path.exists(os.path.join(folder, INDEX_FILE)) or (imagenet and name == "test"):
                continue
            flat = imagenet and name == "val" and not wnids_in(folder)
            sets[name] = ImageNet(root, name) if flat else lenient_folder(folder, problems)
        if not sets and any(image_names(os.path.join(root, name)) for name in class_names(root)):
            sets["all"] = lenient_folder(root, problems)
    return sets or dict(zip(("train", "val"), detect.open_dataset(where), strict=True)), problems


def lenient_folder(folder: str, problems: list[str]) -> FileDataset:
    """A folder of class folders as a data set, even if it is empty; what ImageFolder would refuse is added to the problems."""
    classes = class_names(folder)
    if not classes:
        problems.append(f"{printable_path(folder)}: must have one sub-folder of images per class, got no sub-folders")
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
            problems.append(no_images(path))
        names += files
        labels += [label] * len(files)
    return FileDataset(folder, classes, classes, names, labels)


class ConcatDataset:
    """Several data sets, {name: data set}, as one sequence of images."""

    def __init__(self, sets: dict[str, Any]) -> None:
        self.sets, self.names, self.starts = sets, list(sets), [0, *itertools.accumulate(map(len, sets.values()))]

    def __len__(self) -> int:
        return self.starts[-1]

    def set_of(self, n: int) -> str:
        """The name of the data set that image n is in."""
        return self.names[bisect.bisect_right(self.starts, n) - 1]

    def locate(self, n: int) -> tuple[Any, int]:
        """(data set, index in it) of image n."""
        name = self.set_of(n)
        return self.sets[name], n - self.slice_of(name).start

    def slice_of(self, name: str) -> slice:
        """The range of a data set in the sequence."""
        k = self.names.index(name)
        return slice(self.starts[k], self.starts[k + 1])

    def name(self, n: int) -> str:
        """The name of image n, printable."""
        dataset, i = self.locate(n)
        return printable_path(dataset.name(i))


def inspect_image(images: ConcatDataset, n: int, fast: bool) -> ImageInfo:
    """Inspect image n: its file, if it has one."""
    dataset, i = images.locate(n)
    if isinstance(dataset, FileDataset):
        return inspect_file(dataset.name(i), int(dataset.labels[i]), fast)
    try:
        image, label = dataset[i]
    except DataError as error:
        return ImageInfo(problem=str(error))
    H, W, C = image.shape
    kind = {1: "grey", 3: "RGB"}.get(C, f"{C} channels")
    return ImageInfo(label, image.nbytes, W, H, kind, digest=digest(repr(image.shape).encode(), image.tobytes()))


def inspect_file(path: str, label: int, fast: bool) -> ImageInfo:
    """Inspect an image file: decode it, or, if `fast`, read its header only."""
    info = ImageInfo(label)
    try:
        with open(path, "rb") as file:
            info.nbytes = os.fstat(file.fileno()).st_size
            data = file.read(HEADER_BYTES if fast else -1)
            info.digest = digest(b"%d " % info.nbytes, data)
            file.seek(0)
            image = open_image(file if fast else io.BytesIO(data))
            info.width, info.height = image.size
            info.kind = sys.intern(f"{image.format} {image.mode}")
            extension = os.path.splitext(path)[1].lower()
            info.misnamed = SAME_FORMAT.get(image.format, image.format) != Image.registered_extensions().get(extension)
            if not fast:
                decode(image, min_size=1)       # a JPEG at an eighth of its size, which still reads all of its bytes
    except Exception as error:                  # as in read_lazy_image: decoders raise many kinds of exception
        info.problem = explain_error(path, error)
    return info


def digest(*contents: bytes) -> bytes:
    """A hash of 16 bytes."""
    blake = hashlib.blake2b(digest_size=16)
    for content in contents:
        blake.update(content)
    return blake.digest()


def digest_of_file(path: str) -> bytes | None:
    """The digest of a whole file, read in pieces; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return digest(*iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return None


def find_duplicates(images: ConcatDataset, infos: Sequence[ImageInfo], fast: bool) -> list[list[int]]:
    """The indices of images with the same bytes, in groups."""
    groups = group_by_key((info.digest, n) for n, info in enumerate(infos) if info.nbytes and info.digest)
    if not fast:
        return groups
    confirmed = []
    for group in groups:                    # of files with the same size and the same first bytes: compare all bytes
        if isinstance(images.locate(group[0])[0], FileDataset):
            paths = ((n, dataset.name(i)) for n in group for dataset, i in [images.locate(n)])
            confirmed += group_by_key((digest_of_file(path) or path, n) for n, path in paths)
        else:
            confirmed.append(group)         # in memory: the digests cover all bytes
    return confirmed


def group_by_key(pairs: Iterable[tuple[Any, int]]) -> list[list[int]]:
    """Of pairs (key, n), the groups of several n with the same key."""
    groups = collections.defaultdict(list)
    for key, n in pairs:
        groups[key].append(n)
    return [group for group in groups.values() if len(group) > 1]


def describe_duplicates(images: ConcatDataset, infos: Sequence[ImageInfo], groups: list[list[int]]) -> tuple[list[str], list[str]]:
    """Two lists of sentences: images in two sets or two classes, which are harmful, and duplicates in one class, which are not."""
    harmful, harmless = [], []
    for group in groups:
        sets = sorted({images.set_of(n) for n in group})
        classes = sorted({images.locate(n)[0].classes[infos[n].label] for n in group})
        files = format_list([images.name(n) for n in group], 4)
        if len(sets) > 1:
            harmful.append(f"the same image in {' and '.join(sets)}: {files}")
        elif len(classes) > 1:
            harmful.append(f"the same image in the classes {format_list(classes)}: {files}")
        else:
            harmless.append(f"the same image more than once in a class: {files}")
    return harmful, harmless


def summarize_set(dataset: Any, infos: Sequence[ImageInfo]) -> dict[str, Any]:
    """The number of images, of bytes, and of images of each class."""
    counts = collections.Counter(info.label for info in infos)
    return {"images": len(infos), "bytes": sum(info.nbytes for info in infos),
            "classes": {name: counts[label] for label, name in enumerate(dataset.classes)}}


def class_differences(summaries: dict[str, Any]) -> list[str]:
    """Sentences about classes that only one of two sets has."""
    first, *others = summaries
    return [f"the class {name} is in {have}, but not in {lack}" for other in others for have, lack in ((first, other), (other, first))
            for name in summaries[have]["classes"] if name not in summaries[lack]["classes"]]


def class_imbalance(summaries: dict[str, Any]) -> list[str]:
    """A sentence for each set whose largest class has at least IMBALANCE_RATIO times as many images as the smallest."""
    sizes = {name: [n for n in summary["classes"].values() if n] for name, summary in summaries.items()}
    return [f"{name}: the largest class has {max(n) / min(n):.1f} times as many images as the smallest"
            for name, n in sizes.items() if n and max(n) >= IMBALANCE_RATIO * min(n)]


def size_statistics(images: ConcatDataset, infos: Sequence[ImageInfo]) -> dict[str, Any] | None:
    """The smallest and the largest image by number of pixels, and the median width and height; None without images."""
    pixels = [(info.height * info.width, n) for n, info in enumerate(infos) if info.height]
    if not pixels:
        return None

    def entry(n):
        return {"width": infos[n].width, "height": infos[n].height, "file": images.name(n)}

    width, height = (int(np.median([getattr(infos[n], side) for _, n in pixels])) for side in ("width", "height"))
    return {"smallest": entry(min(pixels)[1]), "median": {"width": width, "height": height}, "largest": entry(max(pixels)[1])}
