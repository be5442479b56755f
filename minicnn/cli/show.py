"""`minicnn show`: an op's formula, its forward and backward, and what runs on the CPU and on the GPU, side by side.

    minicnn show                        the list of ops
    minicnn show conv2d                 formula, forward and backward, CPU and GPU bodies, CUDA kernels
    minicnn show conv2d --reference     also the definition by plain loops, which the tests compare with
    minicnn show conv2d --check         also gradient-checks its backward, and checks that every wrong backward is rejected

All of it is extracted from the source, so it is the code that runs. A wide terminal shows two columns; COLUMNS=200 forces them.
Exit code 0: done. 1: a check failed. 2: no such op.
"""

import argparse
import os
import shutil
import sys

from minicnn.learn import op_source
from minicnn.learn.show import Page, check, contents, reference, show


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="minicnn show", description=(__doc__ or "").partition("\n")[0],
                                     epilog="Exit code 0: done; 1: a check failed; 2: no such op.")
    parser.add_argument("op", nargs="?", metavar="OP", help="the op to show (default: list all ops)")
    parser.add_argument("--reference", action="store_true", help="also show the definition by plain loops")
    parser.add_argument("--check", action="store_true", help="also check its gradient, and that every wrong backward is rejected")
    args = parser.parse_args(argv)
    page = Page(shutil.get_terminal_size().columns, sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    if args.op is None:
        if args.reference or args.check:
            parser.error("--reference and --check need an OP")
        contents(page)
        return 0
    try:
        op = op_source.find(args.op)
        show(op, page)
        if args.reference:
            reference(op, page)
        return 0 if not args.check or check(op, page) else 1
    except op_source.NotFoundError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        return 2
