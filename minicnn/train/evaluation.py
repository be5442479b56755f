"""Evaluation: a model's predictions for a data set, their accuracy, and test-time augmentation.

    metrics = evaluate(model, loader)                                                               # loss, top1, top5
    probabilities, labels = predict(model, dataset, transforms.alexnet_test(227), tta="10")         # averaged over ten crops
    probabilities = average_predictions(model, map(normalize, multi_scale_ten_crop(image, 227)))    # one image

AlexNet (section 4.1) averages the softmax outputs over ten crops of each image: the four corners and the center, and their
reflections; its table reports an error of 37.5 % with that and of 39.0 % without, on ImageNet 2010. VGG (arXiv:1409.1556, section 4.2)
adds several scales.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from minicnn import ops
from minicnn.autograd import no_grad
from minicnn.backend.arrays import to_device, xp_of
from minicnn.data.loader import DataLoader
from minicnn.data.transforms import CenterCrop, Compose, Resize
from minicnn.data.transforms.base import Transform, check_size, check_square
from minicnn.data.transforms.crop import center_offset, check_crop_fits
from minicnn.nn.module import Module, eval_mode
from minicnn.tensor import Tensor

SCALES = (224, 256, 384, 480, 640)          # lengths of the shorter side, in pixels


def evaluate(model: Module, loader: DataLoader) -> dict[str, float]:
    """The metrics of a model's predictions for all batches of a loader that does not shuffle: see `classification_metrics`."""
    return classification_metrics(*predict_batches(model, loader))


def classification_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics of predictions.

    Args:
        probabilities: (N, classes).
        labels: (N,) ints.

    Returns {"loss": mean cross-entropy, "top1" and "top5": accuracy in percent, "images": N}.
    """
    N = len(labels)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    tiny = np.finfo(probabilities.dtype).tiny
    return {"loss": float(-np.log(np.maximum(probabilities[np.arange(N), labels], tiny)).mean()),
            "top1": 100 * float((best[:, 0] == labels).mean()),
            "top5": 100 * float((best == labels[:, None]).any(axis=1).mean()), "images": N}


def correct(scores: Any, labels: Any) -> Any:
    """(N,) booleans: whether the largest of each row of scores (N, classes) is that of the label; on the device of the scores."""
    return scores.argmax(axis=1) == xp_of(scores).asarray(labels)


def predict(model: Module, dataset: Any, transform: Any, tta: str = "1", batch_size: int = 128,
            workers: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The model's probabilities for every image of a data set, and the labels: (N, classes) float32, (N,) int64, on the CPU.

    Args:
        model: a Module, on either device; used in evaluation mode.
        dataset, workers: as for DataLoader.
        transform: a test transform, not random: Resize, CenterCrop, and the normalization of the training.
        tta: test-time augmentation. "1": none; "10": ten crops in place of the CenterCrop; "multi": ten crops at each of five
            scales, in place of Resize and CenterCrop.
        batch_size: crops per forward pass.

    Deterministic; another batch_size changes rounding errors only. Raises what DataLoader raises, with the file's name, and
    ValueError for an invalid tta or a transform that it cannot be inserted into.
    """
    check_size("predict", "batch_size", batch_size)
    transform, views = with_tta(transform, tta)
    loader = DataLoader(dataset, max(1, batch_size // views), transform, seed=0, workers=workers, device=model.device)
    with contextlib.closing(loader):
        return predict_batches(model, loader, views, batch_size)


def predict_batches(model: Module, loader: DataLoader, views: int = 1, batch_size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities (N, classes) float32 and the labels (N,) int64 for all batches of a loader that does not shuffle.

    Args:
        model: a Module, on either device; used in evaluation mode.
        loader: a DataLoader on the model's device or on the CPU.
        views: crops per image, stacked vertically in each image of the loader (see TenCrop); their probabilities are averaged.
        batch_size: crops per forward pass; None: all crops of a batch.
    """
    probabilities, all_labels = [], []
    with eval_mode(model):
        for images, labels in loader:
            tall = images.transpose(0, 2, 3, 1)                                             # (n, views * H, W, C)
            n, VH, W, C = tall.shape
            crops = tall.reshape(n * views, VH // views, W, C).transpose(0, 3, 1, 2)        # (n * views, C, H, W)
            size = batch_size or len(crops)
            p = np.concatenate([predict_proba(model, crops[i:i + size]) for i in range(0, len(crops), size)])
            probabilities.append(p.reshape(n, views, -1).mean(axis=1).astype(np.float32))
            all_labels.append(labels)
    return np.concatenate(probabilities), np.concatenate(all_labels)


def predict_proba(model: Module | Callable[[Tensor], Tensor], x: Any) -> np.ndarray:
    """Softmax probabilities (N, classes) float64 on the CPU, for inputs (N, C, H, W) on either device.

    The model is used in its current mode.
    """
    return ops.softmax(model(Tensor(to_device(x, getattr(model, "device", "cpu"))))).numpy().astype(np.float64)


def average_predictions(model: Module | Callable[[Tensor], Tensor], views: Iterable[Any], batch_size: int = 128) -> np.ndarray:
    """The mean of the model's softmax outputs over views (crops, flips, scales) of one image: (classes,) float32, on the CPU.

    Args:
        model: a Module, on either device, used in evaluation mode; or a function from a Tensor to logits, on the CPU.
        views: normalized float32 arrays (H, W, C), or several together as (n, H, W, C); a generator is consumed batch by
            batch.
        batch_size: views per forward pass.
    """
    total, count = np.float64(0), 0
    singles = (view for item in views for view in (item if np.ndim(item) == 4 else [item]))
    with eval_mode(model) if isinstance(model, Module) else no_grad():
        while chunk := list(itertools.islice(singles, batch_size)):
            batch = np.stack(chunk)
            if batch.ndim != 4 or batch.dtype.kind != "f":
                raise ValueError(f"average_predictions: a view must be a float32 array (H, W, C), got {batch.dtype} {batch.shape[1:]}; "
                                 "apply the normalization of the training (SubtractMean, Normalize), which makes floats of bytes")
            total = total + predict_proba(model, batch.transpose(0, 3, 1, 2)).sum(0)
            count += len(batch)
    if not count:
        raise ValueError("average_predictions: needs one view or more, got none")
    return (total / count).astype(np.float32)


def ten_crop(image: Any, size: int) -> np.ndarray:
    """(10, size, size, C): the top left, top right, bottom left, bottom right and central crops of an image (H, W, C), then their flips."""
    size = check_square("ten_crop", size)
    H, W = check_crop_fits("ten_crop", image, size)
    if H * W <= 5 * size * size:                # of a LazyImage: computing it whole is less work than computing each crop
        image = np.asarray(image)
    positions = [(0, 0), (0, W - size), (H - size, 0), (H - size, W - size), (center_offset(H, size), center_offset(W, size))]
    crops = [image[top:top + size, left:left + size] for top, left in positions]
    return np.stack(crops + [crop[:, ::-1] for crop in crops])


def multi_scale_ten_crop(image: Any, size: int, scales: Sequence[int] = SCALES) -> Iterator[np.ndarray]:
    """Ten crops at each scale: yields (10, size, size, C) for each length of the shorter side, which is at least `size`."""
    for scale in check_scales(size, scales):
        yield ten_crop(Resize(scale)(image), size)


def check_scales(size, scales):
    """The lengths of the shorter side, each raised to `size` if it is less; ValueError if there is none."""
    scales = [max(check_size("multi_scale_ten_crop", "scale", scale), size) for scale in scales]
    if not scales:
        raise ValueError("multi_scale_ten_crop: needs one scale or more, got none")
    return scales


class TenCrop(Transform):
    """Ten crops, stacked vertically in one tall image (10 * size, size, C), as a DataLoader takes one image per sample.

    Args:
        size: side of a crop, in pixels.
        scales: resize the image to each of these lengths of the shorter side, and take ten crops of each; None: do not resize.
    """

    def __init__(self, size: int, scales: Sequence[int] | None = None) -> None:
        self.size = check_square("TenCrop", size)
        self.scales = None if scales is None else tuple(check_scales(self.size, scales))
        self.min_size = max(self.scales) if self.scales else None

    def __call__(self, image: Any, rng: Any = None) -> np.ndarray:
        tens = multi_scale_ten_crop(image, self.size, self.scales) if self.scales else [ten_crop(image, self.size)]
        return np.concatenate([crops.reshape(-1, *crops.shape[2:]) for crops in tens])


def with_tta(transform, tta):
    """(a test transform with TenCrop in place of its crop for tta "10" and "multi", the number of crops per image)."""
    if tta not in ("1", "10", "multi"):
        raise ValueError(f'predict: tta must be "1", "10" or "multi", got {tta!r}')
    transform = Compose(transform)
    if transform.random:
        raise ValueError(f"predict: transform must not be random, got {transform!r}; use a test transform like alexnet_test")
    if tta == "1":
        return transform, 1
    select, affine = transform.split_affine()
    kinds = [type(step) for step in select.steps]
    if kinds[-1:] != [CenterCrop] or (tta == "multi" and kinds != [Resize, CenterCrop]):
        replaced = "CenterCrop" if tta == "10" else "Resize and CenterCrop"
        raise ValueError(f'predict: tta="{tta}" replaces {replaced}, which must come right before the normalization, got {transform!r}')
    size = select.steps[-1].size
    if tta == "10":
        return Compose(*select.steps[:-1], TenCrop(size), *affine), 10
    return Compose(TenCrop(size, SCALES), *affine), 10 * len(SCALES)
