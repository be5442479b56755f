"""What all pictures share: matplotlib's Figure, an image on it, and one input as the network wants it."""

import numpy as np

from minicnn.backend import is_array, to_device
from minicnn.data.views import device_of_model
from minicnn.tensor import Tensor

AS_IT_IS = {"parse_math": False}            # for names that users give: a $ in them is no formula


def figure_class():
    """matplotlib's Figure: it draws to files and leaves the caller's own plots, and their backend, alone."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('pictures need matplotlib: run  python -m pip install "matplotlib>=3.8"') from None
    return Figure


def saved(figure, path, dpi=110):
    """Write the figure as a file of the kind that its name ends in; returns it."""
    figure.savefig(path, dpi=dpi)
    return figure


def show_picture(axes, picture):
    """An image (H, W, C), uint8, grey (C = 1) or colour (C = 3), without axes."""
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[2] not in (1, 3) or picture.dtype != np.uint8:
        raise ValueError(f"a picture is a uint8 array (H, W, 1) or (H, W, 3), as data sets give it, not {picture.dtype} {picture.shape}")
    if picture.shape[2] == 1:
        axes.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(picture)
    no_axes(axes)


def no_axes(axes):
    """Neither ticks nor numbers, but a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set(color="0.75", linewidth=0.5)


def one_input(what, model, x):
    """One input of the network, (C, H, W) or (1, C, H, W), as a batch of one on the device of the model."""
    x = x.data if isinstance(x, Tensor) else x if is_array(x) else np.asarray(x, np.float32)
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or len(x) != 1:
        raise ValueError(f"{what}: x is one input of the network, (C, H, W), not {x.shape}; of a batch take one: x[0]")
    return to_device(x, device_of_model(model))


def same_place(what, x, picture):
    """`picture` (H, W, C) is as large as the network's input x (1, C, H, W), so that a place in one is that place in the other."""
    if np.shape(picture)[:2] != tuple(x.shape[2:]):
        raise ValueError(f"{what}: the picture has {' x '.join(map(str, np.shape(picture)[:2]))} pixels, the network's input "
                         f"{' x '.join(map(str, x.shape[2:]))}; give the part that the network sees: "
                         "transform.without_arithmetic()[0](picture)")


def class_name(classes, label):
    """The name of a class; its number where there are no names."""
    return f"class {label}" if classes is None else str(classes[label])
