"""`minicnn exercises`: write the backward of an op, or find the bug in one, and have it graded.

    minicnn exercises                                       the list of exercises
    minicnn exercises linear --out mine.py                  the op without its backward: write it
    minicnn exercises linear --bug --out mine.py            with a bug in its backward: find it (another --seed, another bug)
    minicnn exercises linear --grade mine.py                is it correct? if not, where is it wrong, and what may be the reason?

Grading is by the gradient check, in all test cases of the op: backward is compared with finite differences of forward.
Your file is never changed; it is run in a process of its own, for at most --timeout seconds.

Exit code 0: written, or correct. 1: wrong. 2: the file or the command cannot be used; the message says why, and in which line.
"""

import argparse
import sys

from minicnn.learn import op_source
from minicnn.learn.exercises import ANY, contents, hand_out
from minicnn.learn.grading import TIMEOUT, SubmissionError, grade_in_subprocess


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="minicnn exercises", description=(__doc__ or "").partition("\n")[0],
                                     epilog="Exit code 0: written, or correct; 1: wrong; 2: the file or the command cannot be used.")
    parser.add_argument("op", nargs="?", metavar="OP", help="the op (default: list all exercises)")
    parser.add_argument("--bug", nargs="?", const=ANY, metavar="NAME", help="an exercise with this bug, or one chosen by --seed")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="chooses the bug (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", help="write the exercise to this new file (default: print it)")
    parser.add_argument("--grade", metavar="FILE", help="grade this file")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help="limit for grading (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.grade and (args.out or args.bug):
        parser.error("--grade cannot be combined with --out or --bug")
    if args.op is None and (args.grade or args.out or args.bug):
        parser.error("give an OP, for instance linear")
    if args.timeout <= 0:
        parser.error(f"--timeout must be greater than 0, got {args.timeout:g}")
    try:
        if args.op is None:
            contents()
            return 0
        op = op_source.find(args.op)
        if args.grade:
            code, text = grade_in_subprocess(op, args.grade, args.timeout)
            print(text, flush=True)
            return code
        hand_out(op, args.bug, args.seed, args.out)
        return 0
    except (op_source.NotFoundError, SubmissionError, OSError) as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        return 2
