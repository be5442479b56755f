"""What must not be covered: the probability of the right class while a grey square hides one place of the image after the other.

Source: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", 2013 (arXiv:1311.2901), section 4.2.
"""

import numpy as np

from minicnn.backend import to_device
from minicnn.data.views import evaluating, softmax_of
from minicnn.study.figures.canvas import AS_IT_IS, class_name, figure_class, no_axes, one_input, same_place, saved, show_picture


def occlusion_map(model, x, window=None, stride=None, fill=0.0, batch_size=64):
    """The probabilities (rows, columns, classes), float64 on the CPU, that the model gives while a square hides each place in turn.

    Args:
        model: a Module, on either device; used in evaluation mode.
        x: one input of it, (C, H, W).
        window: side of the square, in pixels; by default a quarter of the shorter side.
        stride: the image is cut into blocks of stride x stride pixels, and the square is centred on each in turn (at the border a part
            of it hangs out); by default as much as makes at most 28 blocks of the shorter side.
        fill: what the square is filled with. Inputs have mean 0, so 0 is the grey that tells nothing.
        batch_size: how many covered images go through the model at once.

    Raises ValueError for a window or stride that does not fit into the image.
    """
    x = to_device(one_input("occlusion", model, x), "cpu")
    H, W = x.shape[2:]
    window, stride = defaults(H, W, window, stride)
    corners = [corner(row, column, window, stride) for row in range(-(-H // stride)) for column in range(-(-W // stride))]
    probabilities = []
    with evaluating(model):
        for i in range(0, len(corners), batch_size):
            some = corners[i:i + batch_size]
            covered = np.repeat(x, len(some), axis=0)
            for image, (top, left) in zip(covered, some, strict=True):
                image[:, max(top, 0):top + window, max(left, 0):left + window] = fill
            probabilities.append(softmax_of(model, covered))
    return np.concatenate(probabilities).reshape(-(-H // stride), -(-W // stride), -1)


def occlusion(model, x, label, picture, path, window=None, stride=None, classes=None, title=""):
    """Draw the probability of class `label` at each place of the square, beside the image with its worst place marked, as a PNG.

    Args:
        model, x, window, stride: as for `occlusion_map`.
        label: the right class, an int.
        picture: what the network sees, as a user knows it: (H, W, C) uint8, of the same H and W as x.
        path: of the file.
        classes: their names.

    The third panel tells what the network answers instead. Returns the Figure. Raises ValueError for a class that is none.
    """
    x = one_input("occlusion", model, x)
    same_place("occlusion", x, picture)
    H, W = x.shape[2:]
    window, stride = defaults(H, W, window, stride)
    maps = occlusion_map(model, x, window, stride)
    if not 0 <= label < maps.shape[2]:
        raise ValueError(f"occlusion: label is a class, 0 to {maps.shape[2] - 1}, not {label!r}")
    with evaluating(model):
        uncovered = softmax_of(model, x)[0, label]
    figure = figure_class()(figsize=(13, 4.4), layout="constrained")
    axes = figure.subplots(1, 3)
    show_picture(axes[0], picture)
    row, column = np.unravel_index(maps[..., label].argmin(), maps.shape[:2])
    top, left = corner(int(row), int(column), window, stride)
    from matplotlib.patches import Patch, Rectangle
    axes[0].add_patch(Rectangle((left - 0.5, top - 0.5), window, window, fill=False, edgecolor="#ee3377", linewidth=2))
    axes[0].set_title(f"covered here, the probability is {100 * maps[row, column, label]:.3g} %", fontsize=10)
    place = (-0.5, maps.shape[1] * stride - 0.5, maps.shape[0] * stride - 0.5, -0.5)            # pixels: left, right, bottom, top
    shown = axes[1].imshow(maps[..., label], cmap="viridis", vmin=0, vmax=max(maps[..., label].max(), uncovered), extent=place)
    figure.colorbar(shown, ax=axes[1], shrink=0.85, label=f"probability of {class_name(classes, label)}").ax.yaxis.label.set(**AS_IT_IS)
    axes[1].set_title(f"square of {window} x {window} pixels; nothing covered: {100 * uncovered:.3g} %", fontsize=10)
    answers = maps.argmax(axis=2)
    numbers, counts = np.unique(answers, return_counts=True)
    often = numbers[np.argsort(-counts, kind="stable")].tolist()
    rank = {answer: min(i, 7) for i, answer in enumerate(often)}                                # the eighth colour: all others
    colours = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#bbbbbb"]
    axes[2].imshow(np.array([[colour_of(colours[rank[a]]) for a in line] for line in answers.tolist()]), extent=place)
    names = [class_name(classes, a) for a in often[:7]] + ["others"] * (len(often) > 7)
    legend = axes[2].legend(handles=[Patch(color=c, label=n) for c, n in zip(colours, names, strict=False)], fontsize=8,
                            loc="center left", bbox_to_anchor=(1.02, 0.5), borderaxespad=0)
    for text in legend.get_texts():
        text.set(**AS_IT_IS)
    axes[2].set_title("the answer while covered", fontsize=10)
    for a in axes[1:]:
        no_axes(a)
        a.set(xlim=(-0.5, W - 0.5), ylim=(H - 0.5, -0.5))
    figure.suptitle(title or f"{class_name(classes, label)}, with a grey square before it", **AS_IT_IS)
    return saved(figure, path)


def defaults(H, W, window, stride):
    """Window and stride as given, or what is sensible for an image of H x W pixels."""
    window = max(1, min(H, W) // 4) if window is None else window
    stride = -(-min(H, W) // 28) if stride is None else stride
    for name, value in (("window", window), ("stride", stride)):
        if not (isinstance(value, int) and 1 <= value <= min(H, W)):
            raise ValueError(f"occlusion: {name} is a number of pixels, 1 to {min(H, W)} for this image of {H} x {W}, not {value!r}")
    return window, stride


def corner(row, column, window, stride):
    """(top, left) of the square that is centred on this block, in pixels; negative where it hangs out."""
    return tuple(i * stride + (stride - window) // 2 for i in (row, column))


def colour_of(text):
    """'#rrggbb' as three numbers of 0 to 1."""
    return [int(text[i:i + 2], 16) / 255 for i in (1, 3, 5)]
