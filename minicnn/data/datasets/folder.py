"""Image files in folders, one folder per class."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from minicnn.data.datasets.files import DataError, PackedStrings, printable_path
from minicnn.data.datasets.images import IMAGE_FILES, read_lazy_image
from minicnn.data.lazy_image import LazyImage
from minicnn.text import format_list


class FileDataset:
    """A data set of image files with labels; a file is read when its item is requested.

    Args:
        root: the folder above all of them.
        classes: the class names, in label order.
        folders: for each class, the folder of its images, relative to the root ("" for the root itself).
        names: for each image, its path relative to the folder of its class; in order.
        labels: for each image, its label.

    An item that cannot be read raises DataError, which names the file.
    """

    in_memory = False

    def __init__(self, root: str | os.PathLike[str], classes: Iterable[str], folders: Iterable[str], names: Iterable[str],
                 labels: Any) -> None:
        self.root, self.classes, self.folders = str(root), list(classes), list(folders)
        self.names, self.labels = PackedStrings(names), np.asarray(labels, np.min_scalar_type(len(self.classes)))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        image, label = self.load(i)
        return np.asarray(image), label

    def load(self, i: int, min_size: int | None = None) -> tuple[LazyImage, int]:
        """(LazyImage, label) of item i; a large JPEG may be decoded smaller, its shorter side no less than `min_size` pixels."""
        return read_lazy_image(self.name(i), min_size), int(self.labels[i])

    def name(self, i: int) -> str:
        """The path of image i."""
        return os.path.join(self.root, self.folders[self.labels[i]], self.names[i])

    def fingerprint(self) -> str:
        """A checksum (SHA-256) of the classes and of all files' names, labels and sizes, in order.

        It changes when files are added, removed or resized; their content is not read. A file that is missing counts as one of size -1.
        """
        sha = hashlib.sha256(repr(self.classes).encode("utf-8", "surrogatepass"))
        for label, name in zip(self.labels.tolist(), self.names, strict=True):
            name = f"{self.folders[label]}/{name}"
            try:
                size = os.stat(f"{self.root}/{name}").st_size
            except OSError:
                size = -1
            sha.update(b"%b\0%d %d\n" % (os.fsencode(name), label, size))
        return sha.hexdigest()


class ImageFolder(FileDataset):
    """Image files in one folder per class: root/<class>/**/*.jpg, and PNG, WebP, ...; classes in alphabetical order.

    Images may lie in sub-folders of a class's folder. Names that begin with a dot are skipped; symbolic links are followed.

    Args:
        root: the folder.
        classes: the class names in the desired order (those of the training set, say); they must be the names of the sub-folders.

    Raises DataError: no such folder, fewer than two classes, a class without images, other classes than those given; and, when its
    item is requested, an image that cannot be read.
    """

    def __init__(self, root: str | os.PathLike[str], classes: Iterable[str] | None = None) -> None:
        found = class_names(root)
        if len(found) < 2:
            got = f"only the class {found[0]!r}" if found else "no sub-folders"
            raise DataError(f"{printable_path(root)}: must have at least two classes, a sub-folder of images for each, got {got}")
        classes = check_classes(root, found, classes)
        files = [image_names(os.path.join(root, name)) for name in classes]
        for name, names in zip(classes, files, strict=True):
            if not names:
                raise DataError(no_images(os.path.join(root, name)))
        super().__init__(root, classes, classes, [name for names in files for name in names], labels_of(files))


def check_classes(root: str | os.PathLike[str], found: list[str], classes: Iterable[str] | None) -> list[str]:
    """The classes in the given order, by default in that of the folders. Raises DataError unless both are the same names."""
    classes = found if classes is None else list(classes)
    if sorted(classes) != found:
        missing, extra = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
        raise DataError(f"{printable_path(root)}: its sub-folders differ from the given classes (those of train/); "
                        f"missing: {format_list(missing) or 'none'}; unexpected: {format_list(extra) or 'none'}")
    return classes


def labels_of(files: list[list[str]]) -> np.ndarray:
    """The labels of the files of each class, one class after the other."""
    return np.repeat(np.arange(len(files)), [len(names) for names in files])


def no_images(folder: str | os.PathLike[str]) -> str:
    """The message for a class without images."""
    return f"{printable_path(folder)}: no images in this class; add some, or remove the folder"


def class_names(root: str | os.PathLike[str]) -> list[str]:
    """The names of the sub-folders, sorted, without hidden ones. Raises DataError if the folder cannot be listed."""
    return sorted(entry.name for entry in scan_dir(root) if is_folder(entry) and not entry.name.startswith("."))


def image_names(folder: str | os.PathLike[str]) -> list[str]:
    """The paths of all image files below a folder, relative to it, sorted, without hidden ones.

    Symbolic links are followed, but no folder is visited twice, nor any that contains this one: a link that forms a cycle ends there.
    Only the extension decides whether a file is an image. Raises DataError if a folder cannot be listed.
    """
    real = os.path.realpath(folder)
    seen = {real, *parents(real)}
    names, pending = [], [""]
    while pending:
        inside = pending.pop()
        for entry in scan_dir(os.path.join(folder, inside)):
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                real = os.path.realpath(entry.path)
                if real not in seen:
                    seen.add(real)
                    pending.append(f"{inside}{entry.name}/")
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_FILES and (entry.is_symlink() or entry.is_file()):
                names.append(inside + entry.name)           # a broken symbolic link too: reading it fails, and the error names it
    return sorted(names)


def parents(path: str) -> Iterator[str]:
    """All folders above a path."""
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path


def scan_dir(folder: str | os.PathLike[str]) -> Sequence[os.DirEntry[str]]:
    """The entries of a folder, sorted by name. Raises DataError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        raise DataError(f"{printable_path(folder)}: no such folder; it must be a folder with one sub-folder of images per class") from None
    except OSError as error:
        raise DataError(f"{printable_path(folder)}: this folder cannot be listed ({error.strerror or error})") from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is neither."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def describe_dir(folder: str | os.PathLike[str]) -> str:
    """The names of the first few entries of a folder, for a message."""
    return format_list(entry.name + ("/" if is_folder(entry) else "") for entry in scan_dir(folder)) or "nothing"
