"""`minicnn report`: write, or rewrite, the report of a run.

    minicnn report runs/mini-1                  runs/mini-1/report.html
    minicnn report runs/mini-1 --out page.html

Exit code 0: done. 2: no such run, its data are missing, or the page cannot be written.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

import minicnn as mc
from minicnn.data import DataError
from minicnn.examples.recipe import load_run
from minicnn.text import format_bytes
from minicnn.visualize.report.html import write


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="minicnn report", description=(__doc__ or "").partition("\n")[0],
                                     epilog="Exit code 0: done; 2: no such run, its data are missing, or the page cannot be written.")
    parser.add_argument("run", type=pathlib.Path, metavar="RUN", help="folder of a run, for instance runs/mini-1")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="output file (default: RUN/report.html)")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    try:
        path = write(load_run(args.run), args.out)
    except (DataError, mc.CheckpointError, OSError, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {format_bytes(path.stat().st_size)}, in {time.perf_counter() - began:.0f} s; open it in a browser")
    return 0
