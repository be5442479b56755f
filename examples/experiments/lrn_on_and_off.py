"""Local response normalisation, on and off: does it lower the test error?

    python examples/experiments/lrn_on_and_off.py [--seeds 5] [--epochs N] [--limit N] [--out DIR]

The paper, section 3.3: it lowers the top-1 and top-5 errors on ImageNet by 1.4 and 1.2 points, and that of a four-layer network on
CIFAR-10 from 13 % to 11 %.

    y_c = x_c * (k + alpha * sum of the squares of five neighbouring channels)^-beta        k 2, alpha 0.0001, beta 0.75

Here: AlexNet "small" (experiment.py) without it; with the paper's constants; and with an alpha a thousand times as large. The paper's
pixels go up to 255, so its sums of squares are large; ours have variance 1, and 0.0001 times their sums is little beside k = 2: what is
left of the formula is a division by 2^0.75. To tell what that alone does, there is a condition with alpha 0.
"""

import functools
import sys

from experiment import Claim, Condition, Experiment, at_end, main, small

from minicnn.nn import LocalResponseNorm, Sequential


def network(alpha, classes, channels, side):
    """AlexNet "small" with this alpha; None: without the layers that normalise."""
    layers = {}
    whole = small(classes, channels, side)
    for name, layer in zip(whole.names, whole, strict=True):
        if name.startswith("norm"):
            if alpha is None:
                continue
            layer = LocalResponseNorm(alpha=alpha)
        layers[name] = layer
    return Sequential(**layers)


CONDITIONS = {name: Condition(functools.partial(network, alpha), lr=0.01) for name, alpha in
              {"without": None, "division only": 0.0, "LRN": 1e-4, "LRN, alpha 0.1": 0.1}.items()}

CLAIMS = [Claim("test error, %", at_end("test_error"), "without", "LRN", "1.4 (top-1), 1.2 (top-5); 2 on CIFAR-10", expect=1.4),
          Claim("test error, %", at_end("test_error"), "division only", "LRN", "no number"),
          Claim("test error, %", at_end("test_error"), "division only", "LRN, alpha 0.1", "no number")]

EXPERIMENT = Experiment("lrn_on_and_off", "LRN on and off", __doc__, CONDITIONS, CLAIMS, seeds=5, epochs=3, limit=3000, looks=6, decay=True)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
