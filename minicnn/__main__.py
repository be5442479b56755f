"""One command, `minicnn` (or `python -m minicnn`), with a subcommand for each job.

A job is a module with a `main(argv)` that reads its own arguments and returns an exit code. Only the one that is asked for
is imported: `minicnn doctor` needs nothing that another job needs.

Exit codes: 0 done; 1 the job found or met something wrong (each job's --help says what); 2 a wrong command line; 130 interrupted.
"""

import argparse
import importlib
import os
import sys

JOBS = {        # the name: its module, and what it does in one line of --help
    "doctor": ("minicnn.doctor", "what is on this machine, what works, and how to mend what does not"),
    "show": ("minicnn.study.show", "an op: its formula, forward and backward, and what the CPU and the GPU do, from the source"),
    "exercises": ("minicnn.study.exercises", "a backward to write or to mend, and a grade for it"),
    "profile": ("minicnn.study.profile", "where the time of a training step goes, layer by layer, forward and backward"),
    "graph": ("minicnn.study.graph.command", "a network's graph as a drawing for a browser: ops, shapes, parameters, what backward keeps"),
    "figures": ("minicnn.study.figures.command", "pictures of a run: what each layer sees, which pixels matter, what it takes for alike"),
    "report": ("minicnn.study.report.command", "a run as one page for a browser: every layer, forward and backward, as it learned"),
    "data": ("minicnn.data.command", "look at a data set before it is trained on, and pack it for speed"),
}


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="minicnn", description="A deep-learning framework small enough to read in an afternoon.",
                                     epilog="minicnn COMMAND --help tells more about each.")
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    for name, (_, what) in JOBS.items():
        commands.add_parser(name, help=what, add_help=False)
    command = parser.parse_args(argv[:1]).command           # what follows it is the job's own
    if command is None:
        parser.print_help()
        return 0
    try:
        code = importlib.import_module(JOBS[command][0]).main(argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:                                 # the reader (`minicnn doctor | head -3`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # or Python complains once more when it ends
        return 1
    return code


def version():
    import minicnn
    return f"minicnn {minicnn.__version__}"


if __name__ == "__main__":
    sys.exit(main())
