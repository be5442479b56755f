"""`minicnn train`: the training program examples/train_alexnet.py, from an installed minicnn and in any folder."""

from minicnn.examples import train_alexnet


def main(argv: list[str] | None = None) -> int:
    return train_alexnet.main(argv, prog="minicnn train")
