"""`minicnn graph`: draws the graph of a network, op by op, for a browser.

    minicnn graph --arch paper                      paper.svg
    minicnn graph --arch mini --out mini.svg

Exit code 0: done. 2: a wrong command line, or the file cannot be written.
"""

import argparse
import pathlib
import sys

from minicnn.study.graph import network_svg, save
from minicnn.study.networks import known_networks


def main(argv=None):
    networks = known_networks()
    parser = argparse.ArgumentParser(
        prog="minicnn graph", description=__doc__.partition("\n")[0],
        epilog=("" if len(networks) > 1 else "AlexNet is in the folder examples/ of the repository, which is not beside this package: "
                "run this in a checkout to draw it. ") + "Exit code 0: done; 2: a wrong command line, or the file cannot be written.")
    parser.add_argument("--arch", choices=list(networks), default="paper" if "paper" in networks else "lenet",
                        help="the network (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="where to (default: ARCH.svg)")
    args = parser.parse_args(argv)
    make, (C, side, _) = networks[args.arch]
    out = args.out or pathlib.Path(f"{args.arch}.svg")
    try:
        save(network_svg(make(), (C, side, side), title=args.arch), out)
    except OSError as error:
        print(f"error: --out: {error}", file=sys.stderr)
        return 2
    print(f"{out}: open it in a browser")
    return 0
