"""Augmentation: are crops, mirrors and shifted colours as good as more images?

    python examples/experiments/augmentation.py [--seeds 4] [--epochs N] [--limit N] [--data photos] [--out DIR]

The paper, section 4.1: without random crops and mirrors the network overfits substantially; shifting the colours along
their principal components lowers the top-1 error by over 1 point.

Here: AlexNet "small" (experiment.py) with few images and many epochs. On Fashion-MNIST a crop is a shift by up to two pixels, and what
is grey has one colour, so its shift makes the image brighter or darker. Garments are not as free as photographs: all shoes look to the
left, and so they do in the test; a mirror shows the network what it is never asked. With --data photos crops and colours are the paper's.
"""

import sys

from experiment import Claim, Condition, Experiment, at_end, gap, main, small

from minicnn.data.transforms import PCAColour, RandomMirror


def crops(data):
    """Section 4.1, the first form: another part of the image each time, every other time mirrored."""
    return [data.crop, RandomMirror()]


def crops_and_colours(data):
    """And the second: sigma 0.1 times the standard deviation of the colours."""
    return [*crops(data), PCAColour.fit(data.training, most=500)]


CONDITIONS = {"none": Condition(small), "crops": Condition(small, augment=crops),
              "crops, colours": Condition(small, augment=crops_and_colours)}

CLAIMS = [Claim("test - training error, %", gap, "none", "crops", "overfits a lot without"),
          Claim("test error, %", at_end("test_error"), "none", "crops", "no number"),
          Claim("test error, %", at_end("test_error"), "crops", "crops, colours", "over 1 (top-1)", expect=1)]

EXPERIMENT = Experiment("augmentation", "Augmentation", __doc__, CONDITIONS, CLAIMS, seeds=4, epochs=10, limit=1000,
                        decay=True, curves=("test_error", "train_error"))

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
