"""Overlapping pooling: 3 x 3 windows with stride 2, against 2 x 2 windows with stride 2, which do not overlap.

    python examples/experiments/overlapping_pooling.py [--num-seeds 6] [--epochs N] [--max-images N] [--out DIR]

The paper, section 3.4: z = 3, s = 2 lowers the top-1 and top-5 errors by 0.4 and 0.3 points against z = 2, s = 2, which gives an
output of the same size; and a network with overlapping pooling overfits a little less.

Here: AlexNet "small" (experiment.py) with its three pooling layers 3 x 3 or 2 x 2. The outputs have the same sizes (28, 14, 7, 3), as
the 3 x 3 windows use ceil_mode; so every layer has the same initial weights.
"""

import functools
import sys

from minicnn.examples.experiments.experiment import Claim, Condition, Experiment, at_end, generalization_gap, main, small
from minicnn.nn import Linear, MaxPool2d, Sequential


def network(window, classes, channels, side):
    """AlexNet "small" with pooling windows of this size (2 or 3) and stride 2; fc6 is replaced to fit their output."""
    model = small(classes, channels, side)
    layers = dict(zip(model.names, model, strict=True))
    for name in ("pool1", "pool2", "pool5"):
        layers[name] = MaxPool2d(window, stride=2, ceil_mode=window == 3)
        side //= 2                                      # for both sizes
    layers["fc6"] = Linear(model.conv5.weight.shape[0] * side * side, model.fc6.weight.shape[0])
    return Sequential(**layers)


CONDITIONS = {f"{z} x {z}": Condition(functools.partial(network, z)) for z in (2, 3)}

CLAIMS = [Claim("test error, %", at_end("test_error"), "2 x 2", "3 x 3", "0.4 (top-1), 0.3 (top-5)", expected=0.4),
          Claim("test - training error, %", generalization_gap, "2 x 2", "3 x 3", "overfits slightly less")]

EXPERIMENT = Experiment("overlapping_pooling", "Overlapping pooling", __doc__, CONDITIONS, CLAIMS, num_seeds=6, epochs=3, max_images=3000,
                        evaluations=6, decay=True)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
