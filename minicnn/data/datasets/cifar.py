"""CIFAR: small colour pictures in 10 or 100 classes, from the "binary version" or the "python version".

    binary      a record for each image: its label (CIFAR-100: coarse, fine), 1024 bytes of red, 1024 of green, 1024 of blue
    python      a pickle of {"data": (N, 3072) bytes in the same order, "labels": [...]}, or "coarse_labels" and "fine_labels"
"""

import os

import numpy as np

from minicnn.data.datasets import unpickle
from minicnn.data.datasets.arrays import ArrayDataset
from minicnn.data.datasets.files import DataError, check_split, read_bytes, shown


class CIFAR10(ArrayDataset):
    """32 x 32 colour pictures in ten classes (Krizhevsky 2009): 50,000 + 10,000.

    Args:
        root: the folder `cifar-10-batches-bin` (data_batch_1.bin ... data_batch_5.bin and test_batch.bin) or `cifar-10-batches-py`
            (the same names without .bin).
        split: "train" or "test".

    Raises DataError: a file is missing, cut short, or something else than it should be.
    """

    CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, root, split="train"):
        check_split(split)
        names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
        images, labels = read_files(root, names, ["labels"], "CIFAR-10")
        super().__init__(images, labels, self.CLASSES)


class CIFAR100(ArrayDataset):
    """32 x 32 colour pictures in a hundred classes, or in the twenty kinds that these are of (Krizhevsky 2009): 50,000 + 10,000.

    Args:
        root: the folder `cifar-100-binary` (train.bin, test.bin) or `cifar-100-python` (train, test).
        split: "train" or "test".
        labels: "fine", a hundred, or "coarse", twenty.

    Raises DataError: a file is missing, cut short, or something else than it should be.
    """

    FINE = tuple("""
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
        caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
        forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
        mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
        possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
        sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
        willow_tree wolf woman worm
    """.split())
    COARSE = tuple("""
        aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture
        insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
        medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
    """.split())

    def __init__(self, root, split="train", labels="fine"):
        check_split(split)
        if labels not in ("fine", "coarse"):
            raise DataError(f'labels are "fine" or "coarse", not {labels!r}')
        images, coarse, fine = read_files(root, [split], ["coarse_labels", "fine_labels"], "CIFAR-100")
        super().__init__(images, fine if labels == "fine" else coarse, self.FINE if labels == "fine" else self.COARSE)


def read_files(root, names, label_names, what):
    """Images (N, 32, 32, 3) and arrays of labels (N,), from all these files, in the version of them that is there."""
    python = any(os.path.exists(os.path.join(root, name)) for name in names)
    parts = [read_python(os.path.join(root, name), label_names, what) if python
             else read_binary(os.path.join(root, name + ".bin"), len(label_names), what) for name in names]
    pixels, *labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), *labels


def read_binary(path, label_count, what):
    """Pixels (N, 3072) and labels (N,), as often as there are, of one file of the binary version."""
    size = label_count + 3072
    data = np.frombuffer(read_bytes(path), np.uint8)
    if len(data) == 0 or len(data) % size:
        raise DataError(f"{shown(path)}: {len(data)} bytes are no whole number of {what} records of {size}; get it again")
    records = data.reshape(-1, size)
    return records[:, label_count:], *records[:, :label_count].T


def read_python(path, label_names, what):
    """The same of one file of the python version."""
    try:
        values = unpickle.loads(read_bytes(path))
    except unpickle.Refused as error:
        raise DataError(f"{shown(path)}: this pickle is refused ({error}); get the set again, best its binary version") from error
    values = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in values.items()}
    pixels, labels = values.get("data"), [values.get(name) for name in label_names]
    if not (isinstance(pixels, np.ndarray) and pixels.ndim == 2 and pixels.shape[1] == 3072 and len(pixels)
            and all(are_labels(numbers, len(pixels)) for numbers in labels)):
        raise DataError(f"{shown(path)}: not a file of {what}'s python version, with data of 3072 bytes an image and "
                        f"{' and '.join(label_names)}; get it again")
    return pixels, *(np.array(numbers, np.uint8) for numbers in labels)


def are_labels(numbers, count):
    """Whether this is a list of so many numbers of 0 to 255."""
    return isinstance(numbers, list) and len(numbers) == count and all(type(number) is int and 0 <= number < 256 for number in numbers)
