"""Local response normalization (LRN) on and off: does it lower the test error?

    python examples/experiments/lrn_on_and_off.py [--num-seeds 5] [--epochs N] [--max-images N] [--out DIR]

The paper, section 3.3: it lowers the top-1 and top-5 errors on ImageNet by 1.4 and 1.2 points, and that of a four-layer network on
CIFAR-10 from 13 % to 11 %.

    y_c = x_c * (k + alpha * sum of the squares of five neighbouring channels)^-beta        k 2, alpha 0.0001, beta 0.75

Here: AlexNet "small" (experiment.py) without LRN; with the paper's constants; and with an alpha a thousand times as large. The paper's
pixels go up to 255, so its sums of squares are large. Here pixels have variance 1, and 0.0001 times the sum of squares is small compared
with k = 2, so that LRN is nearly a division by 2^0.75. A condition with alpha 0 shows the effect of this division alone.
"""

import functools
import sys

from minicnn.examples.experiments.experiment import Claim, Condition, Experiment, at_end, main, small
from minicnn.nn import LocalResponseNorm, Sequential


def network(alpha, classes, channels, side):
    """AlexNet "small" with this alpha; None: without its LRN layers."""
    layers = {}
    model = small(classes, channels, side)
    for name, layer in zip(model.names, model, strict=True):
        if name.startswith("norm"):
            if alpha is None:
                continue
            layer = LocalResponseNorm(alpha=alpha)
        layers[name] = layer
    return Sequential(**layers)


CONDITIONS = {name: Condition(functools.partial(network, alpha), lr=0.01) for name, alpha in
              {"without": None, "division only": 0.0, "LRN": 1e-4, "LRN, alpha 0.1": 0.1}.items()}

CLAIMS = [Claim("test error, %", at_end("test_error"), "without", "LRN", "1.4 (top-1), 1.2 (top-5); 2 on CIFAR-10", expected=1.4),
          Claim("test error, %", at_end("test_error"), "division only", "LRN", "no number"),
          Claim("test error, %", at_end("test_error"), "division only", "LRN, alpha 0.1", "no number")]

EXPERIMENT = Experiment("lrn_on_and_off", "LRN on and off", __doc__, CONDITIONS, CLAIMS, num_seeds=5, epochs=3, max_images=3000,
                        evaluations=6, decay=True)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
