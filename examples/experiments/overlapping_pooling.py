"""Overlapping pooling: windows of 3 x 3 at every second pixel, against windows of 2 x 2 that only touch.

    python examples/experiments/overlapping_pooling.py [--seeds 6] [--epochs N] [--limit N] [--out DIR]

The paper, section 3.4: z = 3, s = 2 lowers the top-1 and top-5 errors by 0.4 and 0.3 points against z = 2, s = 2, which gives an
output of the same size; and a network with overlapping pooling overfits a little less.

Here: AlexNet "small" (experiment.py) with its three poolings of 3 x 3 or of 2 x 2. What comes out has the same size here too
(28, 14, 7, 3), as the last window of 3 x 3 may reach over the edge; so every layer starts from the same weights.
"""

import functools
import sys

from experiment import Claim, Condition, Experiment, at_end, gap, main, small

from minicnn.nn import Linear, MaxPool2d, Sequential


def network(window, classes, channels, side):
    """AlexNet "small" with windows of this size (2 or 3), moved by 2; fc6 is made anew, for what then comes out."""
    whole = small(classes, channels, side)
    layers = dict(zip(whole.names, whole, strict=True))
    for name in ("pool1", "pool2", "pool5"):
        layers[name] = MaxPool2d(window, stride=2, ceil_mode=window == 3)
        side //= 2                                      # for both
    layers["fc6"] = Linear(whole.conv5.weight.shape[0] * side * side, whole.fc6.weight.shape[0])
    return Sequential(**layers)


CONDITIONS = {f"{z} x {z}": Condition(functools.partial(network, z)) for z in (2, 3)}

CLAIMS = [Claim("test error, %", at_end("test_error"), "2 x 2", "3 x 3", "0.4 (top-1), 0.3 (top-5)", expect=0.4),
          Claim("test - training error, %", gap, "2 x 2", "3 x 3", "overfits slightly less")]

EXPERIMENT = Experiment("overlapping_pooling", "Overlapping pooling", __doc__, CONDITIONS, CLAIMS, seeds=6, epochs=3, limit=3000,
                        looks=6, decay=True)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
