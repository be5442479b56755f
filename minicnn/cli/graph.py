"""`minicnn graph`: draw the graph of a network, op by op, as SVG for a browser.

    minicnn graph --arch paper                      paper.svg
    minicnn graph --arch mini --out FILE

Exit code 0: done. 2: invalid arguments, or FILE cannot be written.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from minicnn.cli.models import available_models
from minicnn.visualize.graph import network_svg, save


def main(argv: Sequence[str] | None = None) -> int:
    models = available_models()
    parser = argparse.ArgumentParser(prog="minicnn graph", description=__doc__.partition("\n")[0],
                                     epilog="exit code 0: done; 2: invalid arguments, or FILE cannot be written")
    parser.add_argument("--arch", choices=list(models), default="paper", help="the network (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="the file to write (default: ARCH.svg)")
    args = parser.parse_args(argv)
    build, (C, side, _) = models[args.arch]
    out = args.out or pathlib.Path(f"{args.arch}.svg")
    try:
        save(network_svg(build(), (C, side, side), title=args.arch), out)
    except OSError as error:
        print(f"error: --out: {error}", file=sys.stderr)
        return 2
    print(f"{out}: open it in a browser")
    return 0
