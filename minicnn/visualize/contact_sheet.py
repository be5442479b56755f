"""A contact sheet: images of a data set, each beside augmented versions of it, as the network gets them in training.

It reveals wrong labels, wrong colours, and an augmentation that crops off the object.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from minicnn.backend import random
from minicnn.backend.arrays import ceil_div
from minicnn.data.datasets.files import printable_path
from minicnn.data.lazy_image import to_pillow
from minicnn.data.transforms import PCAColorJitter, alexnet_train

CELL, GAP, TEXT = 150, 6, 16            # in pixels: the side of an image, the gap between images, the height of a line of text
GREY = (90, 90, 90)


def contact_sheet(dataset: Any, path: str | os.PathLike[str], rows: int = 6, columns: int = 7, size: int = 227, seed: int = 0) -> None:
    """Write a contact sheet: `rows` images of different classes, and augmented versions of each.

    The first column is the image itself; the others are transforms.alexnet_train(size) of it in successive epochs, with the colours
    jittered along the principal components of the images shown, and without the subtraction of the mean.

    Args:
        dataset: RGB or grey images, see minicnn.data.datasets.
        path: the image file to write; its extension decides the format.
        rows, columns: of the sheet.
        size: the side of the network's input in pixels.
        seed: of the augmentation.

    Raises DataError: an image cannot be read; OSError: the file cannot be written; ValueError: Pillow does not know the extension.
    """
    indices = sample_per_class(dataset, rows)
    grey = dataset[indices[0]][0].shape[2] == 1
    transform = alexnet_train(size, mean=0, color=None if grey else PCAColorJitter(color_covariance(dataset, indices)))
    sheet = Image.new("RGB", (GAP + columns * (CELL + GAP), GAP + TEXT + len(indices) * (CELL + TEXT + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    draw.text((GAP, GAP), "original", GREY, font)
    draw.text((GAP + CELL + GAP, GAP), f"the network's input in training: {size} x {size}, one version per epoch", GREY, font)
    for row, i in enumerate(indices):
        top = GAP + TEXT + row * (CELL + TEXT + GAP)
        image, label = dataset[i]
        for column in range(columns):
            version = image if column == 0 else transform(image, random.generator(random.SAMPLES, column - 1, i, seed=seed))
            cell = thumbnail(version)
            sheet.paste(cell, (GAP + column * (CELL + GAP) + (CELL - cell.width) // 2, top + (CELL - cell.height) // 2))
        draw.text((GAP, top + CELL + 1), printable(font, f"{dataset.classes[label]}: {printable_path(dataset.name(i))}"), "black", font)
    sheet.save(path)


def sample_per_class(dataset: Any, max_images: int) -> list[int]:
    """The indices of `max_images` images, evenly spread over the classes; several of each class if there are few.

    A data set without an attribute `labels` is assumed to be sorted by class: its sample is evenly spread over the indices.
    """
    if not hasattr(dataset, "labels"):
        return [int(n) for n in np.linspace(0, len(dataset) - 1, min(max_images, len(dataset)))]
    labels = np.asarray(dataset.labels)
    classes = np.unique(labels)
    selected = classes[np.linspace(0, len(classes) - 1, min(max_images, len(classes))).astype(int)]
    per_class = ceil_div(max_images, len(selected))
    indices = [np.flatnonzero(labels == label)[:per_class] for label in selected]
    return [int(n) for n in np.concatenate(indices)[:max_images]]


def color_covariance(dataset: Any, indices: Sequence[int]) -> np.ndarray:
    """The covariance (3, 3) of the colours of these images, from every 16th pixel."""
    return np.cov(np.concatenate([dataset[i][0][::4, ::4].reshape(-1, 3) for i in indices]).T)


def thumbnail(pixels: Any) -> Image.Image:
    """An image (H, W, 3 or 1), with values of about 0 to 255, as a Pillow image that fits into a cell."""
    image = to_pillow(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    scale = CELL / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC).convert("RGB")


def printable(font: Any, text: str) -> str:
    """The text without characters that the font lacks: without FreeType, Pillow's default font has Latin-1 only."""
    return text if isinstance(font, ImageFont.FreeTypeFont) else text.encode("latin-1", "replace").decode("latin-1")
