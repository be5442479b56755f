"""Helpers of the figures: matplotlib's Figure, an image on its axes, a grid of tiles, and one image as a batch."""

import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minicnn.backend.arrays import ceil_div, is_array, to_device
from minicnn.nn.module import Module
from minicnn.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FilePath: TypeAlias = str | os.PathLike[str]

PLAIN_TEXT: dict[str, Any] = {"parse_math": False}      # for names given by users: a $ in them is not a formula


def figure_class() -> "type[Figure]":
    """matplotlib's Figure class: it draws to files and leaves the caller's own plots, and their backend, alone.

    Raises ImportError, with the command to install it, if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('figures need matplotlib: run  python -m pip install "matplotlib>=3.8"') from None
    return Figure


def save_figure(figure: "Figure", path: FilePath, dpi: float = 110) -> "Figure":
    """Write the figure to a file in the format of its suffix; returns the figure."""
    figure.savefig(path, dpi=dpi)
    return figure


def show_image(axes: Any, image: Any) -> None:
    """Draw an image (H, W, C), uint8, grey (C = 1) or colour (C = 3), without ticks. Raises ValueError for other shapes and dtypes."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype != np.uint8:
        raise ValueError(f"an image must be a uint8 array (H, W, 1) or (H, W, 3), as data sets give it, got {image.dtype} {image.shape}")
    show_pixels(axes, image, 255)
    remove_ticks(axes)


def show_pixels(axes: Any, pixels: Any, white: float) -> None:
    """Draw pixels (H, W, 1 or 3) of 0 to `white`, the value of white (for colour 255 if uint8, 1 if float: matplotlib's rule)."""
    if pixels.shape[2] == 1:
        axes.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=white)
    else:
        axes.imshow(pixels)


def remove_ticks(axes: Any) -> None:
    """Remove ticks and numbers; keep a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set(color="0.75", linewidth=0.5)


def make_grid(tiles: Any, columns: int, gap: int, fill: float) -> Any:
    """Tiles (N, H, W) side by side in `columns` columns, `gap` pixels of value `fill` between them: one array, of the tiles' dtype."""
    N, H, W = tiles.shape
    rows = ceil_div(N, columns)
    grid = np.full((rows * columns, H + gap, W + gap), fill, tiles.dtype)
    grid[:N, :H, :W] = tiles
    grid = grid.reshape(rows, columns, H + gap, W + gap).transpose(0, 2, 1, 3).reshape(rows * (H + gap), columns * (W + gap))
    return grid[:rows * (H + gap) - gap, :columns * (W + gap) - gap]


def batch_of_one(caller: str, model: Module, x: Any) -> Any:
    """One input of the network, (C, H, W) or (1, C, H, W), as an array (1, C, H, W) on the device of the model.

    Raises ValueError for other shapes, in the name of the function `caller`.
    """
    x = x.data if isinstance(x, Tensor) else x if is_array(x) else np.asarray(x, np.float32)
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or len(x) != 1:
        raise ValueError(f"{caller}: x must be one input of the network, (C, H, W), got {x.shape}; of a batch take one: x[0]")
    return to_device(x, model.device)


def check_same_size(caller: str, x: Any, image: Any) -> None:
    """Raise ValueError unless `image` (H, W, C) is as large as the network's input x (1, C, H, W), pixel upon pixel."""
    expected, got = (" x ".join(map(str, size)) for size in (x.shape[2:], np.shape(image)[:2]))
    if got != expected:
        raise ValueError(f"{caller}: image must be as large as the network's input, {expected} pixels, got {got}; give the crop that the "
                         "network gets: transform.split_affine()[0](image)")


def class_name(classes: Any, label: int) -> str:
    """The name of a class, or "class 7" if `classes` is None."""
    return f"class {label}" if classes is None else str(classes[label])


def truncate(name: Any, length: int = 26) -> str:
    """A name cut to at most `length` characters, the last one an ellipsis if anything was cut."""
    name = str(name)
    return name if len(name) <= length else name[:length - 1] + "…"
