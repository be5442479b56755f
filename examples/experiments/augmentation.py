"""Data augmentation: do random crops, reflections and colour shifts reduce overfitting and the test error?

    python examples/experiments/augmentation.py [--num-seeds 4] [--epochs N] [--max-images N] [--data photos] [--out DIR]

The paper, section 4.1: without random crops and reflections the network overfits substantially; shifting the colours along
their principal components lowers the top-1 error by over 1 point.

Here: AlexNet "small" (experiment.py) with few images and many epochs. On Fashion-MNIST a crop is a shift by up to two pixels, and as
its images are grey, a colour shift makes them brighter or darker. Its garments vary less than photographs: all shoes point to the left,
in the test set too, so reflections are images that the test does not have. With --data photos, crops and colours are as in the paper.
"""

import sys

from minicnn.data.transforms import PCAColorJitter, RandomHorizontalFlip
from minicnn.examples.experiments.experiment import Claim, Condition, Experiment, at_end, generalization_gap, main, small


def crops(data):
    """The paper's first form of augmentation: a random crop, reflected with probability 1/2."""
    return [data.crop, RandomHorizontalFlip()]


def crops_and_colours(data):
    """And its second: PCA colour shifts with sigma 0.1."""
    return [*crops(data), PCAColorJitter.fit(data.training, max_images=500)]


CONDITIONS = {"none": Condition(small), "crops": Condition(small, augment=crops),
              "crops, colours": Condition(small, augment=crops_and_colours)}

CLAIMS = [Claim("test - training error, %", generalization_gap, "none", "crops", "overfits a lot without"),
          Claim("test error, %", at_end("test_error"), "none", "crops", "no number"),
          Claim("test error, %", at_end("test_error"), "crops", "crops, colours", "over 1 (top-1)", expected=1)]

EXPERIMENT = Experiment("augmentation", "Augmentation", __doc__, CONDITIONS, CLAIMS, num_seeds=4, epochs=10, max_images=1000,
                        decay=True, curves=("test_error", "train_error"))

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
