"""Dropout on and off: does it prevent overfitting, and what does it cost?

    python examples/experiments/dropout_on_and_off.py [--num-seeds 5] [--epochs N] [--max-images N] [--out DIR]

The paper, section 4.2: in the first two fully connected layers; without it the network overfits substantially; with it, it takes
roughly twice as many iterations to converge.

Here: AlexNet "small" (experiment.py) with few images and many epochs, so that it can overfit; a constant learning rate. Overfitting is
measured by the generalization gap at the end, the test error minus the training error, both in evaluation mode. Convergence means 20 %
training error.
"""

import functools
import sys

from minicnn.examples.experiments.experiment import Claim, Condition, Experiment, at_end, generalization_gap, iterations_until, main, small
from minicnn.nn import Dropout, Sequential


def network(dropout, classes, channels, side):
    """AlexNet "small", with or without its two dropout layers."""
    model = small(classes, channels, side)
    return Sequential(**{name: layer for name, layer in zip(model.names, model, strict=True)
                         if dropout or not isinstance(layer, Dropout)})


CONDITIONS = {"without": Condition(functools.partial(network, False), lr=0.01),
              "dropout": Condition(functools.partial(network, True), lr=0.01)}

CLAIMS = [Claim("test - training error, %", generalization_gap, "without", "dropout", "overfits a lot without"),
          Claim("test error, %", at_end("test_error"), "without", "dropout", "no number"),
          Claim("iterations to 20 % training error", iterations_until(20), "dropout", "without", "roughly 2 times", expected=2, ratio=True)]

EXPERIMENT = Experiment("dropout_on_and_off", "Dropout on and off", __doc__, CONDITIONS, CLAIMS, num_seeds=5, epochs=15, max_images=1000,
                        evaluations=15, curves=("test_error", "train_error"), levels=(20,))

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
