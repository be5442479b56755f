"""Feature extraction: the output of one layer for every image of a data set, batch by batch.

    for indices, values in features(model, dataset, transform):         # of the images dataset[indices[i]]
        ...                                                             # values[i], (F,)
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from minicnn.backend.arrays import to_device
from minicnn.data.loader import DataLoader
from minicnn.hooks import Hook
from minicnn.nn import Linear
from minicnn.nn.module import Module, eval_mode
from minicnn.tensor import Tensor


def features(model: Module, dataset: Any, transform: Any, layer: str | None = None, batch_size: int = 128, workers: int | None = None,
             on_error: str = "skip") -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (indices (n,) int64, features (n, F) float32), on the CPU, for each batch of a data set, in its order.

    Args:
        model: a Module, on either device; used in evaluation mode.
        dataset, workers, on_error: as for DataLoader.
        transform: a test transform, as for DataLoader.
        layer: dotted name of the layer whose output is returned, flattened; None: the input of the last Linear, for AlexNet the
            4096 numbers of fc7.
        batch_size: images per forward pass.

    Raises ValueError for a layer that the model does not have or that did not run, and what DataLoader raises.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if layer is not None and layer not in modules:
        raise ValueError(f"features: this network has no layer {layer!r}; it has {', '.join(modules)}")
    if layer is None and not any(isinstance(module, Linear) for module in modules.values()):
        raise ValueError(f"features: this network has no Linear layer; name the layer, one of {', '.join(modules)}")
    loader = DataLoader(IndexedDataset(dataset), batch_size, transform, seed=0, workers=workers, device=model.device, on_error=on_error,
                        max_errors=len(dataset))
    with contextlib.closing(loader):
        for images, indices in loader:
            with eval_mode(model), FeatureHook(modules[layer] if layer else None) as hook:
                model(Tensor(images))
            if hook.captured is None:
                raise ValueError(f"features: layer {layer or 'Linear'!r} did not run when this network was called; name one that does")
            yield indices, np.asarray(to_device(hook.captured.reshape(len(indices), -1), "cpu"), np.float32)


class FeatureHook(Hook):
    """Captures the output of one layer; without one, the input of the last Linear that runs."""

    def __init__(self, module: Module | None = None) -> None:
        self.module = module
        self.captured: Any = None

    def after_module(self, module, inputs, output):
        if module is self.module:
            self.captured = output.data
        elif self.module is None and isinstance(module, Linear):
            self.captured = inputs[0].data


class IndexedDataset:
    """A data set whose labels are the images' indices, which identify the images when unreadable ones are skipped."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.in_memory = getattr(dataset, "in_memory", True)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        return self.dataset[i][0], i

    def load(self, i, min_size=None):
        return self.dataset.load(i, min_size)[0] if hasattr(self.dataset, "load") else self.dataset[i][0], i

    def name(self, i):
        return self.dataset.name(i) if hasattr(self.dataset, "name") else f"image {i}"
