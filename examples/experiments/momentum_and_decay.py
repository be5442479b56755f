"""Momentum, and weight decay: what does each do to the training error?

    python examples/experiments/momentum_and_decay.py [--seeds 4] [--epochs N] [--limit N] [--out DIR]

The paper, section 5: momentum 0.9 and weight decay 0.0005. The decay is no mere regulariser there: the network needs it to learn, and it
makes the training error smaller. How much smaller, and what momentum is worth, the paper does not say.

    v <- m v - lr (d w + g)       w <- w + v

Here: AlexNet "small" (experiment.py). In each step the weights forget a fraction lr d / (1 - m) of themselves: 0.0001 with the paper's
d. So few steps take a few percent off them (the paper's 840,000 renewed them many times), and ten times as much is tried too. Momentum
0.9 makes each gradient count 1 / (1 - 0.9) = 10 times in the end: without it, the same rate is tried, and one ten times as large.
"""

import sys

from experiment import Claim, Condition, Experiment, at_end, main, small

CONDITIONS = {"the paper's": Condition(small, lr=0.02, momentum=0.9, weight_decay=0.0005),
              "no decay": Condition(small, lr=0.02, momentum=0.9, weight_decay=0.0),
              "decay x 10": Condition(small, lr=0.02, momentum=0.9, weight_decay=0.005),
              "no momentum": Condition(small, lr=0.02, momentum=0.0, weight_decay=0.0005),
              "no momentum, rate x 10": Condition(small, lr=0.2, momentum=0.0, weight_decay=0.0005)}

CLAIMS = [Claim("training error, %", at_end("train_error"), "no decay", "the paper's", "decay reduces it"),
          Claim("training error, %", at_end("train_error"), "no decay", "decay x 10", "decay reduces it"),
          Claim("training error, %", at_end("train_error"), "no momentum", "the paper's", "no number"),
          Claim("training error, %", at_end("train_error"), "no momentum, rate x 10", "the paper's", "no number")]

EXPERIMENT = Experiment("momentum_and_decay", "Momentum and weight decay", __doc__, CONDITIONS, CLAIMS, seeds=4, epochs=3, limit=3000,
                        looks=6, decay=True, curves=("train_error",))

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
