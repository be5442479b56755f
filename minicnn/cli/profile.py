"""`minicnn profile`: where the time of a training step goes, layer by layer, forward and backward.

    minicnn profile --arch one-tower                a batch of 16 images
    minicnn profile --arch paper --batch-size 128 --device gpu --json FILE

Exit code 0: done. 2: invalid arguments, no such device, or FILE cannot be written.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from minicnn.backend.arrays import gpu_unavailable_reason
from minicnn.cli.models import available_models
from minicnn.examples.arguments import device_name, positive_int
from minicnn.inspect.profile import profile
from minicnn.optim import SGD
from minicnn.tensor import Tensor


def main(argv: Sequence[str] | None = None) -> int:
    models = available_models()
    parser = argparse.ArgumentParser(prog="minicnn profile", description=__doc__.partition("\n")[0],
                                     epilog="exit code 0: done; 2: invalid arguments, no such device, or FILE cannot be written")
    parser.add_argument("--arch", choices=list(models), default="one-tower", help="the network (default: %(default)s)")
    parser.add_argument("--batch-size", type=positive_int, default=16, metavar="N", help="images in a batch (default: %(default)s)")
    parser.add_argument("--repeats", type=positive_int, default=5, metavar="N", help="steps to time (default: %(default)s)")
    parser.add_argument("--device", type=device_name, default="cpu", help="cpu (the default), gpu, or gpu:1 for the second GPU")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the measurements to this file")
    args = parser.parse_args(argv)
    if args.device != "cpu" and gpu_unavailable_reason():
        print(f"error: {gpu_unavailable_reason()}", file=sys.stderr)
        return 2

    build, (C, side, classes) = models[args.arch]
    model = build().to(args.device)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.batch_size, side, side, C), dtype=np.float32).transpose(0, 3, 1, 2)      # channels last in memory
    optimizer = SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    result = profile(model, Tensor(images, device=args.device), rng.integers(0, classes, args.batch_size), args.repeats, optimizer)
    print(f"{args.arch}: {result}")
    if args.json:
        try:
            args.json.write_text(result.json(), encoding="utf-8")
        except OSError as error:
            print(f"error: --json: {error}", file=sys.stderr)
            return 2
    return 0
