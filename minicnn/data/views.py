"""Several looks at one image: a test that averages over crops, mirrors and scales is right more often than one look is.

AlexNet (section 4.1) looks ten times: at the four corners and the centre, and at their mirrors, and averages the softmax outputs;
in its table that makes 39.0 % errors of ImageNet 2010 into 37.5 %. VGG (arXiv:1409.1556, section 4.2) does so at several scales.

    probabilities, labels = predict(model, dataset, transforms.paper_test(227), views="10")     # a whole data set
    probabilities = average_predictions(model, map(normalize, multi_scale_views(image, 227)))   # one image
"""

import contextlib
import itertools

import numpy as np

import minicnn as mc
from minicnn.backend import to_device
from minicnn.data.loader import DataLoader
from minicnn.data.transforms import CenterCrop, Compose, Resize
from minicnn.data.transforms.crops import middle, room
from minicnn.data.transforms.step import Step, check_size

SIDES = (224, 256, 384, 480, 640)


def ten_crops(image, size):
    """(10, size, size, C): top left, top right, bottom left, bottom right and centre of an image (H, W, C), then their mirrors."""
    check_size("ten_crops", "size", size)
    H, W = room("ten_crops", image, size)
    if H * W <= 5 * size * size:                # of a Picture: to compute all of it is less work than each crop by itself
        image = np.asarray(image)
    places = [(0, 0), (0, W - size), (H - size, 0), (H - size, W - size), (middle(H, size), middle(W, size))]
    five = [image[top:top + size, left:left + size] for top, left in places]
    return np.stack(five + [crop[:, ::-1] for crop in five])


def multi_scale_views(image, size, sides=SIDES):
    """Ten crops of each scale: yields (10, size, size, C) for each length of the shorter side; one less than `size` is raised to it."""
    for side in raised(size, sides):
        yield ten_crops(Resize(side)(image), size)


def raised(size, sides):
    """The lengths of the shorter side that crops of `size` can be cut from."""
    sides = [max(check_size("multi_scale_views", "side", side), size) for side in sides]
    if not sides:
        raise ValueError("multi_scale_views: no sides, no views")
    return sides


def average_predictions(model, views, batch_size=128):
    """The mean of the model's softmax outputs over views of one image: (classes,) float32, on the CPU.

    Args:
        model: a Module, on either device, used in evaluation mode; or a function from a Tensor to logits, on the CPU.
        views: float32 arrays (H, W, C), or several together as (n, H, W, C), with the arithmetic of the training done; a generator
            will do, no more than a batch of them is in memory.
        batch_size: how many go through the model at once.
    """
    total, count = np.float64(0), 0
    singles = (one for some in views for one in (some if np.ndim(some) == 4 else [some]))
    with evaluating(model):
        while some := list(itertools.islice(singles, batch_size)):
            batch = np.stack(some)
            if batch.ndim != 4 or batch.dtype.kind != "f":
                raise ValueError(f"average_predictions: a view is float32 (H, W, C), not {batch.dtype} {batch.shape[1:]}; "
                                 "the steps that the training ends with (MeanPixel, Normalize) make floats of bytes")
            total = total + softmax_of(model, batch.transpose(0, 3, 1, 2)).sum(0)
            count += len(batch)
    if not count:
        raise ValueError("average_predictions: no views")
    return (total / count).astype(np.float32)


def predict(model, dataset, transform, views="1", batch_size=128, workers=None):
    """The model's probabilities for every image of a data set, and the right answers: (N, classes) float32, (N,) int64, on the CPU.

    Args:
        model: a Module, on either device; used in evaluation mode.
        dataset: as for DataLoader.
        transform: that of a test, without chance: Resize, CenterCrop, and the arithmetic that the training ends with.
        views: "1", the image as the transform has it; "10", ten crops in place of the CenterCrop; "multi", ten crops at each of five
            scales, in place of Resize and CenterCrop.
        batch_size: how many views go through the model at once.
        workers: as for DataLoader.

    The same each time; with another batch_size the same but for rounding. Raises what DataLoader raises, with the file's name.
    """
    check_size("predict", "batch_size", batch_size)
    transform, V = with_views(transform, views)
    device = device_of_model(model)
    loader = DataLoader(dataset, max(1, batch_size // V), transform, seed=0, workers=workers, device=device)
    probabilities, labels = [], []
    with contextlib.closing(loader), evaluating(model):
        for images, right in loader:
            tall = images.transpose(0, 2, 3, 1)                                                 # (n, V * H, W, C): see TenCrops
            n, VH, W, C = tall.shape
            every = tall.reshape(n * V, VH // V, W, C).transpose(0, 3, 1, 2)
            p = np.concatenate([softmax_of(model, every[i:i + batch_size]) for i in range(0, n * V, batch_size)])
            probabilities.append(p.reshape(n, V, -1).mean(axis=1).astype(np.float32))
            labels.append(right)
    return np.concatenate(probabilities), np.concatenate(labels)


class TenCrops(Step):
    """Ten crops, one below the other in one tall image (10 * size, size, C), in which a DataLoader can carry them.

    Args:
        size: of a crop, in pixels.
        sides: scale the image to each of these lengths of the shorter side, and take ten crops of each; None: of the image as it is.
    """

    def __init__(self, size, sides=None):
        self.size = check_size("TenCrops", "size", size)
        self.sides = None if sides is None else tuple(raised(size, sides))
        self.at_least = max(self.sides) if self.sides else None

    def __call__(self, image, rng=None):
        some = multi_scale_views(image, self.size, self.sides) if self.sides else [ten_crops(image, self.size)]
        return np.concatenate([crops.reshape(-1, *crops.shape[2:]) for crops in some])


def with_views(transform, views):
    """A test's transform with TenCrops put in where `views` says so, and how many views it makes of an image."""
    if views not in ("1", "10", "multi"):
        raise ValueError(f'predict: views is "1", "10" or "multi", not {views!r}')
    transform = Compose(transform)
    if transform.random:
        raise ValueError(f"predict: this transform is one for training, with chance in it: {transform!r}; use one like paper_test")
    if views == "1":
        return transform, 1
    choose, arithmetic = transform.without_arithmetic()
    kinds = [type(step) for step in choose.steps]
    if kinds[-1:] != [CenterCrop] or (views == "multi" and kinds != [Resize, CenterCrop]):
        what = "the CenterCrop" if views == "10" else "Resize and CenterCrop"
        raise ValueError(f'predict: views="{views}" are put in the place of {what}, before the arithmetic; not found in {transform!r}')
    size = choose.steps[-1].size
    if views == "10":
        return Compose(*choose.steps[:-1], TenCrops(size), *arithmetic), 10
    return Compose(TenCrops(size, SIDES), *arithmetic), 10 * len(SIDES)


def softmax_of(model, x):
    """Probabilities (N, classes) float64 on the CPU, for inputs (N, C, H, W) on either device."""
    x = mc.Tensor(to_device(x, device_of_model(model)))
    return mc.ops.softmax(model(x)).numpy().astype(np.float64)


def device_of_model(model):
    """Where the model's parameters are; the CPU if it has none."""
    return next((p.device for p in getattr(model, "parameters", list)()), "cpu")


@contextlib.contextmanager
def evaluating(model):
    """Inside, the model is in evaluation mode and nothing is recorded; afterwards every part is in the mode that it was in."""
    parts = [part for _, part in getattr(model, "named_modules", list)()]
    modes = [part.training for part in parts]
    for part in parts:
        part.training = False
    try:
        with mc.no_grad():
            yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
