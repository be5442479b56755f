"""CIFAR-10 and CIFAR-100: small colour images in 10 or 100 classes, in the "binary version" or the "python version".

    binary      one record per image: its label (CIFAR-100: coarse, then fine), then 1024 bytes of red, 1024 of green, 1024 of blue
    python      a pickle of {"data": (N, 3072) uint8 in the same order, "labels": [...]}, or "coarse_labels" and "fine_labels"
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from minicnn.data.datasets import unpickle
from minicnn.data.datasets.arrays import ArrayDataset
from minicnn.data.datasets.files import DataError, check_split, printable_path, read_bytes


class CIFAR10(ArrayDataset):
    """CIFAR-10: 32 x 32 colour images in ten classes, 50,000 + 10,000 (Krizhevsky 2009).

    Args:
        root: the folder `cifar-10-batches-bin` (data_batch_1.bin ... data_batch_5.bin and test_batch.bin) or `cifar-10-batches-py`
            (the same names without .bin).
        split: "train" or "test".

    Raises DataError: a file is missing, truncated, or of another format.
    """

    CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, root: str | os.PathLike[str], split: str = "train") -> None:
        check_split(split)
        names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
        images, labels = read_files(root, names, ["labels"], "CIFAR-10")
        super().__init__(images, labels, self.CLASSES)


class CIFAR100(ArrayDataset):
    """CIFAR-100: 32 x 32 colour images in 100 fine or 20 coarse classes, 50,000 + 10,000 (Krizhevsky 2009).

    Args:
        root: the folder `cifar-100-binary` (train.bin, test.bin) or `cifar-100-python` (train, test).
        split: "train" or "test".
        labels: "fine" (100 classes) or "coarse" (20).

    Raises DataError: a file is missing, truncated, or of another format.
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

    def __init__(self, root: str | os.PathLike[str], split: str = "train", labels: str = "fine") -> None:
        check_split(split)
        if labels not in ("fine", "coarse"):
            raise DataError(f'CIFAR100: labels must be "fine" or "coarse", got {labels!r}')
        images, coarse, fine = read_files(root, [split], ["coarse_labels", "fine_labels"], "CIFAR-100")
        super().__init__(images, fine if labels == "fine" else coarse, self.FINE if labels == "fine" else self.COARSE)


def read_files(root: str | os.PathLike[str], names: Sequence[str], label_names: Sequence[str], dataset: str) -> tuple[np.ndarray, ...]:
    """Images (N, 32, 32, 3), then one array (N,) per name of labels, from all these files, in the version that exists."""
    python = any(os.path.exists(os.path.join(root, name)) for name in names)
    contents = [read_python(os.path.join(root, name), label_names, dataset) if python
                else read_binary(os.path.join(root, name + ".bin"), len(label_names), dataset) for name in names]
    pixels, *labels = (np.concatenate(arrays) for arrays in zip(*contents, strict=True))
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), *labels


def read_binary(path: str, num_labels: int, dataset: str) -> tuple[np.ndarray, ...]:
    """Pixels (N, 3072), then `num_labels` arrays of labels (N,), of one file of the binary version."""
    size = num_labels + 3072
    data = np.frombuffer(read_bytes(path), np.uint8)
    if len(data) == 0 or len(data) % size:
        raise DataError(f"{printable_path(path)}: must be a whole number of {dataset} records of {size} bytes, got {len(data)} bytes; "
                        "download it again")
    records = data.reshape(-1, size)
    return records[:, num_labels:], *records[:, :num_labels].T


def read_python(path: str, label_names: Sequence[str], dataset: str) -> tuple[np.ndarray, ...]:
    """Pixels (N, 3072), then one array of labels (N,) per name, of one file of the python version."""
    try:
        values = unpickle.loads(read_bytes(path))
    except unpickle.UnpicklingError as error:
        raise DataError(f"{printable_path(path)}: this pickle is refused ({error}); download the set again, preferably its binary version"
                        ) from error
    values = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in values.items()}
    pixels, labels = values.get("data"), [values.get(name) for name in label_names]
    if not (isinstance(pixels, np.ndarray) and pixels.ndim == 2 and pixels.shape[1] == 3072 and len(pixels)
            and all(are_labels(numbers, len(pixels)) for numbers in labels)):
        raise DataError(f"{printable_path(path)}: not a file of {dataset}'s python version, which has data (N, 3072) and "
                        f"{' and '.join(label_names)}; download it again")
    return pixels, *(np.array(numbers, np.uint8) for numbers in labels)


def are_labels(value: Any, count: int) -> bool:
    """Whether the value is a list of `count` ints of 0 to 255."""
    return isinstance(value, list) and len(value) == count and all(type(number) is int and 0 <= number < 256 for number in value)
