"""What one layer answers to every image of a data set, batch by batch: the network's own description of the images.

    for numbers, found in features(model, dataset, transform):          # of images dataset[numbers[i]]
        ...                                                             # found[i], (F,)
"""

import contextlib

import numpy as np

from minicnn.autograd import Hook
from minicnn.backend import to_device
from minicnn.data import DataLoader
from minicnn.data.views import device_of_model, evaluating
from minicnn.nn import Linear
from minicnn.tensor import Tensor


def features(model, dataset, transform, layer=None, batch_size=128, workers=None, on_bad="skip"):
    """Yields (numbers (n,) int64, features (n, F) float32, on the CPU) for each batch of a data set, in its order.

    Args:
        model: a Module, on either device; used in evaluation mode.
        dataset, transform, workers, on_bad: as for DataLoader, the transform that of a test.
        layer: dotted name of the layer whose answer is wanted, flat; None: what the last Linear gets, of AlexNet the 4096 of fc7.
        batch_size: how many images are in memory at once.

    Raises ValueError for a layer that the model has not, or that did not run, and what DataLoader raises.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if layer is not None and layer not in modules:
        raise ValueError(f"features: this network has no layer {layer!r}; it has {', '.join(modules)}")
    if layer is None and not any(isinstance(module, Linear) for module in modules.values()):
        raise ValueError(f"features: this network has no Linear layer; say which layer is meant, one of {', '.join(modules)}")
    loader = DataLoader(Numbered(dataset), batch_size, transform, seed=0, workers=workers, device=device_of_model(model), on_bad=on_bad,
                        bad_limit=len(dataset))
    with contextlib.closing(loader):
        for images, numbers in loader:
            with evaluating(model), Listen(modules.get(layer)) as listen:
                model(Tensor(images))
            if listen.heard is None:
                raise ValueError(f"features: layer {layer or 'Linear'!r} did not run when this network was called; name one that does")
            yield numbers, np.asarray(to_device(listen.heard.reshape(len(numbers), -1), "cpu"), np.float32)


class Listen(Hook):
    """Keeps the answer of one layer; without one, what the last Linear gets."""

    def __init__(self, module=None):
        self.module, self.heard = module, None

    def after_module(self, module, inputs, output):
        if module is self.module:
            self.heard = output.data
        elif self.module is None and isinstance(module, Linear):
            self.heard = inputs[0].data


class Numbered:
    """A data set whose labels are the images' numbers: so one knows which they are where unreadable ones were left out."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.in_memory = getattr(dataset, "in_memory", True)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        return self.dataset[i][0], i

    def picture(self, i, at_least=None):
        return self.dataset.picture(i, at_least)[0] if hasattr(self.dataset, "picture") else self.dataset[i][0], i

    def name(self, i):
        return self.dataset.name(i) if hasattr(self.dataset, "name") else f"image {i}"
