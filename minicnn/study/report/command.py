"""`minicnn report`: writes the report of a run anew.

    minicnn report runs/mini-1                  runs/mini-1/report.html
    minicnn report runs/mini-1 --out page.html

Exit code 0: done. 2: no such run, its data are gone, or the page cannot be written.
"""

import argparse
import pathlib
import sys
import time

import minicnn as mc
from minicnn.data import DataError
from minicnn.study.report.page import write
from minicnn.study.run import open_run


def main(argv=None):
    parser = argparse.ArgumentParser(prog="minicnn report", description=__doc__.partition("\n")[0],
                                     epilog="Exit code 0: done; 2: no such run, its data are gone, or the page cannot be written.")
    parser.add_argument("run", type=pathlib.Path, metavar="RUN", help="the folder of a run, for instance runs/mini-1")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="where to (default: RUN/report.html)")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    try:
        path = write(open_run(args.run), args.out)
    except (DataError, mc.CheckpointError, OSError, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, in {time.perf_counter() - began:.0f} s; open it in a browser")
    return 0
