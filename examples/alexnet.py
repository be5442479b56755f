"""AlexNet, five times: as published, as usually taught, as in Caffe, as in torchvision, and small enough for small images.

    python examples/alexnet.py [variant]        prints the network as a table

Source: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012.
What differs between the variants is all in the table VARIANTS and in the loop below it.
"""

import sys

from minicnn import summary
from minicnn.nn import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, Module, ReLU, Sequential

# The input side is 227 with no padding, or 224 with padding 2: both give the 55 x 55 of the paper. (The paper says 224;
# its program rounded sizes up. A literal 224 without padding silently gives 54, and 49 million parameters.)
VARIANTS = {
    #             filters of conv1 ... conv5      groups           conv1          fc6, fc7  input   LRN           dropout
    #                                                          kernel stride pad
    "paper":       ((96, 256, 384, 384, 256), (1, 2, 1, 2, 2), (11, 4, 0),     4096,     227, "before pool", "after"),
    "one-tower":   ((96, 256, 384, 384, 256), (1, 1, 1, 1, 1), (11, 4, 0),     4096,     227, "before pool", "after"),
    "caffenet":    ((96, 256, 384, 384, 256), (1, 2, 1, 2, 2), (11, 4, 0),     4096,     227, "after pool", "after"),
    "torchvision": ((64, 192, 384, 256, 256), (1, 1, 1, 1, 1), (11, 4, 2),     4096,     224, None, "before"),
    "mini":        ((32, 64, 96, 96, 64), (1, 2, 1, 2, 2), (5, 1, 2),          512,      28, "before pool", "after"),
}


def alexnet(variant="paper", num_classes=1000, in_channels=3, image_size=None, variants=VARIANTS):
    """One of the variants, as a Sequential of named layers; it gives (N, num_classes) scores, not yet through softmax.

    Args:
        variant: "paper" (two groups), "one-tower", "caffenet" (pool before LRN), "torchvision" (no LRN, average pool)
            or "mini" (the same sequence of ops for images of 28 to 64 pixels).
        num_classes: outputs of fc8.   in_channels: 3 for colour, 1 for grey.
        image_size: side of the square input; by default that of the variant.   variants: a table of your own.
    """
    if variant not in variants:
        raise ValueError(f"alexnet: variant is one of {', '.join(variants)}, not {variant!r}")
    filters, groups, (kernel, stride, pad), hidden, default_size, lrn, dropout = variants[variant]
    size = default_size if image_size is None else image_size
    if variant == "mini" and not 28 <= size <= 64:
        raise ValueError(f"alexnet: mini is made for images of 28 to 64 pixels, not {size}; use another variant or another size")

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


def input_size(variant):
    """The side, in pixels, of the images a variant is made for."""
    return VARIANTS[variant][4]


if __name__ == "__main__":
    variant = sys.argv[1] if len(sys.argv) > 1 else "one-tower"
    grey = variant == "mini"
    try:
        network = alexnet(variant, num_classes=10 if grey else 1000, in_channels=1 if grey else 3)
    except ValueError as error:
        sys.exit(str(error))
    print(summary(network, (1 if grey else 3, input_size(variant), input_size(variant))))
