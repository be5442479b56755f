"""Networks by name, for commands that look at one."""

import functools
import pathlib
import runpy

import minicnn as mc
from minicnn import nn

EXAMPLES = pathlib.Path(mc.__file__).parents[1] / "examples"        # there in a checkout, not in an installed package


def known_networks():
    """What there is: for each name a function that makes it, and (channels, side, classes) of what it is made for."""
    known = {"lenet": (lenet, (1, 28, 10))}
    source = EXAMPLES / "alexnet.py"
    if source.exists():
        module = runpy.run_path(str(source))
        for variant in module["VARIANTS"]:
            C, classes = (1, 10) if variant == "mini" else (3, 1000)
            known[variant] = functools.partial(module["alexnet"], variant, classes, C), (C, module["input_size"](variant), classes)
    return known


def lenet():
    """The network of examples/lenet_fashion.py, for where there are no examples."""
    return nn.Sequential(conv1=nn.Conv2d(1, 6, 5, padding=2), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
                         conv2=nn.Conv2d(6, 16, 5), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2), flatten=nn.Flatten(),
                         fc3=nn.Linear(400, 120), relu3=nn.ReLU(), fc4=nn.Linear(120, 84), relu4=nn.ReLU(), fc5=nn.Linear(84, 10))
