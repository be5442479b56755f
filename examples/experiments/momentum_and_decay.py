"""Momentum and weight decay: how does each change the training error?

    python examples/experiments/momentum_and_decay.py [--num-seeds 4] [--epochs N] [--max-images N] [--out DIR]

The paper, section 5: momentum 0.9 and weight decay 0.0005. The decay is not merely a regularizer: the network needs it to learn, and it
reduces the training error. The paper does not say by how much, nor how much momentum helps.

    v <- m v - lr (d w + g)       w <- w + v

Here: AlexNet "small" (experiment.py). In each step the decay shrinks the weights by a fraction lr d / (1 - m), which is 0.0001 with the
paper's d. The few steps here shrink them by a few percent (the paper's 840,000 replaced them many times over), so ten times the decay is
tried too. With momentum 0.9 each gradient is applied 1 / (1 - 0.9) = 10 times in total: without momentum, the same learning rate is
tried, and one ten times as large.
"""

import sys

from minicnn.examples.experiments.experiment import Claim, Condition, Experiment, at_end, main, small

CONDITIONS = {"the paper's": Condition(small, lr=0.02, momentum=0.9, weight_decay=0.0005),
              "no decay": Condition(small, lr=0.02, momentum=0.9, weight_decay=0.0),
              "decay x 10": Condition(small, lr=0.02, momentum=0.9, weight_decay=0.005),
              "no momentum": Condition(small, lr=0.02, momentum=0.0, weight_decay=0.0005),
              "no momentum, rate x 10": Condition(small, lr=0.2, momentum=0.0, weight_decay=0.0005)}

CLAIMS = [Claim("training error, %", at_end("train_error"), "no decay", "the paper's", "decay reduces it"),
          Claim("training error, %", at_end("train_error"), "no decay", "decay x 10", "decay reduces it"),
          Claim("training error, %", at_end("train_error"), "no momentum", "the paper's", "no number"),
          Claim("training error, %", at_end("train_error"), "no momentum, rate x 10", "the paper's", "no number")]

EXPERIMENT = Experiment("momentum_and_decay", "Momentum and weight decay", __doc__, CONDITIONS, CLAIMS, num_seeds=4, epochs=3,
                        max_images=3000, evaluations=6, decay=True, curves=("train_error",))

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
