"""A contact sheet: photographs, and beside each what the network gets to see of it in training.

What looks wrong here is wrong: a label, colours, or an augmentation that cuts off what matters.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from minicnn import random
from minicnn.data.datasets.files import shown
from minicnn.data.transforms import PCAColour, paper_train

CELL, GAP, TEXT = 150, 6, 16            # pixels: of a picture's side, between pictures, and of a line of text
GREY = (90, 90, 90)


def contact_sheet(dataset, path, rows=6, columns=7, size=227, seed=0):
    """Write a PNG (or what else the path's extension says) with `rows` images of different classes, and of each some augmented versions.

    The first column is the image as it is; the others are what `transforms.paper_train(size)` makes of it in one epoch after the other,
    with colours shifted along those of the first images of the set, and without the subtraction of the mean.

    Args:
        dataset: of RGB or grey images.
        rows, columns: of the sheet.
        size: of the network's input.
        seed: another seed, other versions.

    Raises DataError: an image cannot be read; OSError: the file cannot be written; ValueError: an extension that Pillow does not know.
    """
    numbers = one_of_each_class(dataset, rows)
    grey = dataset[numbers[0]][0].shape[2] == 1
    transform = paper_train(size, mean=0, colour=None if grey else PCAColour(covariance(dataset, numbers)))
    sheet = Image.new("RGB", (GAP + columns * (CELL + GAP), GAP + TEXT + len(numbers) * (CELL + TEXT + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    draw.text((GAP, GAP), "as it is", GREY, font)
    draw.text((GAP + CELL + GAP, GAP), f"as the network sees it in training: {size} x {size}, epoch after epoch", GREY, font)
    for row, i in enumerate(numbers):
        top = GAP + TEXT + row * (CELL + TEXT + GAP)
        image, label = dataset[i]
        for column in range(columns):
            version = image if column == 0 else transform(image, random.generator(random.SAMPLES, column - 1, i, seed=seed))
            cell = fitted(version)
            sheet.paste(cell, (GAP + column * (CELL + GAP) + (CELL - cell.width) // 2, top + (CELL - cell.height) // 2))
        draw.text((GAP, top + CELL + 1), printable(font, f"{dataset.classes[label]}: {shown(dataset.name(i))}"), "black", font)
    sheet.save(path)


def one_of_each_class(dataset, most):
    """The numbers of `most` images, evenly spread over the classes; of few classes, several of each.

    A set that does not tell its labels without reading the images has them in order of their classes: so evenly spread over the set.
    """
    if not hasattr(dataset, "labels"):
        return [int(n) for n in np.linspace(0, len(dataset) - 1, min(most, len(dataset)))]
    labels = np.asarray(dataset.labels)
    classes = np.unique(labels)
    taken = classes[np.linspace(0, len(classes) - 1, min(most, len(classes))).astype(int)]
    each = -(-most // len(taken))
    numbers = [np.flatnonzero(labels == label)[:each] for label in taken]
    return [int(n) for n in np.concatenate(numbers)[:most]]


def covariance(dataset, numbers):
    """(3, 3), of the colours of these images."""
    return np.cov(np.concatenate([dataset[i][0][::4, ::4].reshape(-1, 3) for i in numbers]).T)


def fitted(pixels):
    """Pixels of 0 to 255, or a little beyond, (H, W, channels) as a Pillow image that fits into a cell."""
    pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    scale = CELL / max(image.size)
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC).convert("RGB")


def printable(font, text):
    """What of the text this font can print: without FreeType, Pillow's knows Latin-1 only."""
    return text if isinstance(font, ImageFont.FreeTypeFont) else text.encode("latin-1", "replace").decode("latin-1")
