"""Dropout, on and off: does it prevent overfitting, and what does it cost?

    python examples/experiments/dropout_on_and_off.py [--seeds 5] [--epochs N] [--limit N] [--out DIR]

The paper, section 4.2: in the first two fully connected layers; without it the network overfits substantially; with it, it takes
roughly twice as many iterations to converge.

Here: AlexNet "small" (experiment.py) with few images and many epochs, so that there is something to overfit; a constant rate.
Overfitting is the test error minus the training error at the end, both of the whole network, as in a test. To converge is to have 20 %
training error.
"""

import functools
import sys

from experiment import Claim, Condition, Experiment, at_end, gap, main, small, until

from minicnn.nn import Dropout, Sequential


def network(dropout, classes, channels, side):
    """AlexNet "small", or the same without its two layers of dropout."""
    whole = small(classes, channels, side)
    return Sequential(**{name: layer for name, layer in zip(whole.names, whole, strict=True)
                         if dropout or not isinstance(layer, Dropout)})


CONDITIONS = {"without": Condition(functools.partial(network, False), lr=0.01),
              "dropout": Condition(functools.partial(network, True), lr=0.01)}

CLAIMS = [Claim("test - training error, %", gap, "without", "dropout", "overfits a lot without"),
          Claim("test error, %", at_end("test_error"), "without", "dropout", "no number"),
          Claim("iterations to 20 % training error", until(20), "dropout", "without", "roughly 2 times", expect=2, ratio=True)]

EXPERIMENT = Experiment("dropout_on_and_off", "Dropout on and off", __doc__, CONDITIONS, CLAIMS, seeds=5, epochs=15, limit=1000,
                        looks=15, curves=("test_error", "train_error"), levels=(20,))

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
