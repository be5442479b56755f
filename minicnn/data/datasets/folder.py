"""Photographs in folders, one folder for each class."""

import hashlib
import os

import numpy as np

from minicnn.data.datasets.files import DataError, Names, listed, shown
from minicnn.data.datasets.images import IMAGE_FILES, read_picture


class FileDataset:
    """Image files with labels; they are read when they are asked for.

    Args:
        root: the folder above all of them.
        classes: the names, in label order.
        folders: for each class, the folder of its images, relative to the root ("" for the root itself).
        names: of each image file, relative to the folder of its class; in order.
        labels: of each image.

    An item raises DataError, with the file's name, if it cannot be read.
    """

    in_memory = False

    def __init__(self, root, classes, folders, names, labels):
        self.root, self.classes, self.folders = str(root), list(classes), list(folders)
        self.names, self.labels = Names(names), np.asarray(labels, np.min_scalar_type(len(self.classes)))

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        picture, label = self.picture(i)
        return np.asarray(picture), label

    def picture(self, i, at_least=None):
        return read_picture(self.name(i), at_least), int(self.labels[i])

    def name(self, i):
        return os.path.join(self.root, self.folders[self.labels[i]], self.names[i])

    def fingerprint(self):
        """A checksum (sha256) over the classes, names, labels and sizes of all files, in order: has anything come or gone since?

        What is in the files is not read. A file that is not there any more counts as one of size -1.
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
    """Photographs in one folder per class: root/<class>/**/*.jpg, and PNG, WebP, ...; classes in alphabetical order.

    Images may lie in folders within the class's. What begins with a dot is passed over; links are followed.

    Args:
        root: the folder.
        classes: the names in the order that is wanted (those of the training set, say); an error if the folder has others.

    Raises DataError: no such folder, fewer than two classes, a class without images; and, when such an item is asked
    for, an image that cannot be read, by name.
    """

    def __init__(self, root, classes=None):
        found = class_names(root)
        if len(found) < 2:
            what = f"only the class {found[0]!r}" if found else "no sub-folders"
            raise DataError(f"{shown(root)}: {what}; there is nothing to tell apart. One sub-folder of images for each class is wanted")
        classes = found if classes is None else list(classes)
        if sorted(classes) != found:
            missing, extra = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
            raise DataError(f"{shown(root)}: its classes are not those wanted; missing: {missing or 'none'}, not known: {extra or 'none'}")
        names, counts = [], []
        for name in classes:
            files = image_names(os.path.join(root, name))
            if not files:
                raise DataError(f"{shown(os.path.join(root, name))}: no images in this class; put some in, or remove the folder")
            names += files
            counts.append(len(files))
        super().__init__(root, classes, classes, names, np.repeat(np.arange(len(classes)), counts))


def class_names(root):
    """The sub-folders of a folder, sorted, without hidden ones. DataError if it cannot be listed."""
    return sorted(entry.name for entry in listing(root) if is_folder(entry) and not entry.name.startswith("."))


def image_names(folder):
    """The image files in a folder and in those within it, by their names relative to it, sorted; hidden ones are left out.

    Links are followed, but no folder is looked into twice, nor any that holds this one: so a link that leads back ends there.
    Whether a file is an image only its extension decides, here. DataError if a folder cannot be listed.
    """
    real = os.path.realpath(folder)
    seen = {real, *parents(real)}
    names, waiting = [], [""]
    while waiting:
        inside = waiting.pop()
        for entry in listing(os.path.join(folder, inside)):
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                real = os.path.realpath(entry.path)
                if real not in seen:
                    seen.add(real)
                    waiting.append(f"{inside}{entry.name}/")
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_FILES and (entry.is_symlink() or entry.is_file()):
                names.append(inside + entry.name)           # a link to nowhere too: to read it fails, and says so
    return sorted(names)


def parents(path):
    """All folders above a path."""
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path


def listing(folder):
    """What is in a folder, sorted, as `os.DirEntry`; or a DataError."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        raise DataError(f"{shown(folder)}: no such folder; a folder with one sub-folder of images for each class is wanted") from None
    except OSError as error:
        raise DataError(f"{shown(folder)}: this folder cannot be listed ({error.strerror or error})") from error


def is_folder(entry):
    """Whether it is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def contents(folder):
    """The first few things in a folder, for a message."""
    return listed(entry.name + "/" * is_folder(entry) for entry in listing(folder)) or "nothing"
