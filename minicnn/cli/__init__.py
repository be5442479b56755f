"""The command `minicnn` (also `python -m minicnn`), with one subcommand for each job.

A subcommand is a module minicnn.cli.<name> with a `main(argv)` that parses its own arguments and returns an exit code. Only the chosen
one is imported, so `minicnn doctor` works where what another subcommand needs is missing.

Exit codes: 0 done; 1 a check failed or something is wrong (see each subcommand's --help); 2 wrong usage; 130 interrupted by Ctrl-C.
"""

import argparse
import importlib
import os
import sys

COMMANDS = {        # name: its line of --help
    "doctor": "check this machine: what is installed, what works, and how to fix what does not",
    "train": "train AlexNet: the program examples/train_alexnet.py, from any folder",
    "show": "show an op: its formula, forward and backward, CPU and GPU code, from the source",
    "exercises": "exercises: write an op's backward, or find a bug in one; and their grading",
    "profile": "measure where the time of a training step goes, layer by layer, forward and backward",
    "graph": "draw a network's graph as SVG: ops, shapes, parameters, memory saved for backward",
    "figures": "figures of a run: feature maps, saliency, occlusion, confusion matrix, nearest neighbours, ...",
    "report": "a run as one page for a browser: every layer, forward and backward, step by step",
    "data": "inspect a data set before training on it, and pack it for speed",
}


def main(argv: list[str] | None = None) -> int:
    """Run the subcommand argv[0] with the other arguments (default: sys.argv[1:]). Returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="minicnn", description="A deep-learning framework small enough to read in an afternoon.",
                                     epilog="minicnn COMMAND --help describes a command.")
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    for name, description in COMMANDS.items():
        commands.add_parser(name, help=description, add_help=False)
    command = parser.parse_args(argv[:1]).command           # the other arguments are the subcommand's
    if command is None:
        parser.print_help()
        return 0
    try:
        code: int = importlib.import_module(f"minicnn.cli.{command}").main(argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:                                 # the reader has closed the pipe: minicnn doctor | head -3
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # or Python's flush at exit fails again
        return 1
    return code


def version() -> str:
    import minicnn
    return f"minicnn {minicnn.__version__}"
