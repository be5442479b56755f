"""AlexNet in five variants: as published, as usually taught, as in Caffe, as in torchvision, and small enough for small images.

    python examples/alexnet.py [variant]       prints the network as a table

Source: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012.
All differences between the variants are in the table VARIANTS and in the loop below it.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from minicnn import summary
from minicnn.nn import (
    AdaptiveAvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    init,
)

# Images are 227 pixels wide without padding, or 224 with padding 2: both give the 55 x 55 of the paper. (The paper says 224;
# its program rounded sizes up. 224 without padding gives 54 x 54 without any error, and 49 million parameters.)
VARIANTS: dict[str, tuple[Any, ...]] = {
    #             filters of conv1 ... conv5      groups           conv1          fc6, fc7  input   LRN           dropout
    #                                                          kernel stride pad
    "paper":       ((96, 256, 384, 384, 256), (1, 2, 1, 2, 2), (11, 4, 0),     4096,     227, "before pool", "after"),
    "one-tower":   ((96, 256, 384, 384, 256), (1, 1, 1, 1, 1), (11, 4, 0),     4096,     227, "before pool", "after"),
    "caffenet":    ((96, 256, 384, 384, 256), (1, 2, 1, 2, 2), (11, 4, 0),     4096,     227, "after pool", "after"),
    "torchvision": ((64, 192, 384, 256, 256), (1, 1, 1, 1, 1), (11, 4, 2),     4096,     224, None, "before"),
    "mini":        ((32, 64, 96, 96, 64), (1, 2, 1, 2, 2), (5, 1, 2),          512,      28, "before pool", "after"),
}


def alexnet(variant: str = "paper", num_classes: int = 1000, in_channels: int = 3, image_size: int | None = None,
            variants: Mapping[str, tuple[Any, ...]] = VARIANTS) -> Sequential:
    """AlexNet: a Sequential of named layers from images (N, in_channels, image_size, image_size) to logits (N, num_classes).

    Args:
        variant: "paper" (two groups), "one-tower", "caffenet" (pool before LRN), "torchvision" (no LRN, average pool)
            or "mini" (the same sequence of ops for images of 28 to 64 pixels).
        num_classes: outputs of fc8.
        in_channels: 3 for colour, 1 for grey.
        image_size: width and height of the input in pixels; None: that of the variant.
        variants: a table to use in place of VARIANTS.

    The weights are those of the layers' constructors: initialise them with one of INITS.
    Raises ValueError for an unknown variant and for an image size that it cannot take.
    """
    if variant not in variants:
        raise ValueError(f"alexnet: variant must be one of {', '.join(variants)}, got {variant!r}")
    filters, groups, (kernel, stride, pad), hidden, default_size, lrn, dropout = variants[variant]
    size = default_size if image_size is None else image_size
    if variant == "mini" and not 28 <= size <= 64:
        raise ValueError(f"alexnet: image_size must be 28 to 64 for mini, got {size}; use another variant or another size")

    layers: dict[str, Module] = {}
    channels = in_channels
    for i, (out, g) in enumerate(zip(filters, groups, strict=True), start=1):
        if i == 1:
            layers["conv1"] = Conv2d(channels, out, kernel, stride=stride, padding=pad)
            size = (size + 2 * pad - kernel) // stride + 1
        else:
            layers[f"conv{i}"] = Conv2d(channels, out, 5 if i == 2 else 3, padding=2 if i == 2 else 1, groups=g)
        layers[f"relu{i}"] = ReLU()
        if i in (1, 2, 5):
            if lrn == "before pool" and i < 5:
                layers[f"norm{i}"] = LocalResponseNorm()
            layers[f"pool{i}"] = MaxPool2d(3, stride=2)         # overlapping: the window is larger than the step
            size = (size - 3) // 2 + 1
            if lrn == "after pool" and i < 5:
                layers[f"norm{i}"] = LocalResponseNorm()
        channels = out
    if size < 1:
        raise ValueError(f"alexnet: an image of {image_size} pixels is too small for {variant}; it is made for {default_size}")

    if variant == "torchvision":
        layers["avgpool"], size = AdaptiveAvgPool2d(6), 6       # so that other image sizes fit too
    layers["flatten"] = Flatten()
    features = channels * size * size
    for i in (6, 7):
        if dropout == "before":
            layers[f"drop{i}"] = Dropout(0.5)
        layers[f"fc{i}"] = Linear(features, hidden)
        layers[f"relu{i}"] = ReLU()
        if dropout == "after":
            layers[f"drop{i}"] = Dropout(0.5)
        features = hidden
    layers["fc8"] = Linear(hidden, num_classes)
    return Sequential(**layers)


def alexnet_paper_(model: Module) -> None:
    """The paper's initialisation (AlexNet, section 5): weights N(0, 0.01^2); biases 1 in conv2, conv4, conv5, fc6 and fc7, 0 elsewhere."""
    for layer, bias in zip(weight_layers("alexnet_paper_", model), (0, 1, 0, 1, 1, 1, 1, 0), strict=True):
        init.normal_(layer.weight, 0.01)
        init.constant_(layer.bias, bias)


def alexnet_caffe_(model: Module) -> None:
    """The initialisation of Caffe's bvlc_alexnet: the paper's, but biases 0.1 in place of 1, and N(0, 0.005^2) in fc6 and fc7.

    Its authors found that initialising to 1 "gave flat loss". Source: models/bvlc_alexnet in the Caffe repository.
    """
    stds = (0.01, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.01)
    for layer, std, bias in zip(weight_layers("alexnet_caffe_", model), stds, (0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0), strict=True):
        init.normal_(layer.weight, std)
        init.constant_(layer.bias, bias)


def weight_layers(init_name: str, model: Module) -> list[Any]:
    """conv1 ... conv5, fc6, fc7, fc8; ValueError if the network is not of this form."""
    layers = init.layers_with_weights(model)
    if [layer.weight.ndim for layer in layers] != [4] * 5 + [2] * 3:
        raise ValueError(f"{init_name}: the network must have AlexNet's five convolutions and three linear layers; "
                         "for any other network use nn.init.kaiming_")
    return layers


# The choices of --init.
INITS: dict[str, Callable[[Module], None]] = {"kaiming": init.kaiming_, "paper": alexnet_paper_, "caffe": alexnet_caffe_}


def input_size(variant: str) -> int:
    """Width and height, in pixels, of the images that a variant is made for."""
    size: int = VARIANTS[variant][4]
    return size


if __name__ == "__main__":
    variant = sys.argv[1] if len(sys.argv) > 1 else "one-tower"
    grey = variant == "mini"
    try:
        network = alexnet(variant, num_classes=10 if grey else 1000, in_channels=1 if grey else 3)
    except ValueError as error:
        sys.exit(str(error))
    print(summary(network, (1 if grey else 3, input_size(variant), input_size(variant))))
