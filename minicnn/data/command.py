"""`minicnn data`: look at a data set before it is trained on, and pack it for speed.

    minicnn data verify photos                  what is there, what cannot be read, what is there twice
    minicnn data show photos sheet.png          what augmentation makes of it
    minicnn data pack photos packed             scaled and packed once, so that training reads a few large files
    minicnn data check-pack packed              whether that is still as it was written

Exit code 0: done, and nothing is wrong. 1: something is wrong with the data. 2: a wrong command line, or no data there.
"""

import argparse
import json
import os
import sys

from minicnn.data.datasets import DataError, open_dataset
from minicnn.data.datasets.opening import PACK_INDEX

SOURCE = "a folder with train/ and val/, or what else train_alexnet.py takes as --data"


def main(argv=None):
    args = parse(argv)
    try:
        return args.job(args)
    except (DataError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def verify(args):
    """0 if there are no problems, 1 if there are."""
    from minicnn.data import check
    report = check.verify(args.data, args.fast, args.workers)
    print(json.dumps(report, indent=1) if args.json else check.describe(report))
    return 1 if report["problems"] else 0


def show(args):
    from minicnn.data.sheet import contact_sheet
    contact_sheet(open_dataset(args.data)[0], args.out, args.rows, args.columns, args.size, args.seed)
    print(f"see {args.out}")
    return 0


def pack(args):
    """Pack both halves, each into a folder of its own."""
    from minicnn.data import packed
    train, val = open_dataset(args.source)
    for name, half in (("train", train), ("val", val)):
        done = packed.pack(half, os.path.join(args.destination, name), args.format, args.side, args.quality, args.workers,
                           on_bad="skip" if args.skip_bad else "raise")
        print(f"{name}: {len(done)} images")
        for _, _, reason in done.skipped:
            print(f"  left out: {reason}")
    print(f"train with it:  python examples/train_alexnet.py --data {args.destination}")
    return 0


def check_pack(args):
    """0 if every byte is as it was written, 1 if not."""
    from minicnn.data import packed
    folders = [folder for name in ("", "train", "val") if os.path.exists(os.path.join(folder := os.path.join(args.data, name), PACK_INDEX))]
    if not folders:
        raise DataError(f"{args.data}: not a packed set, nor a folder with train/ and val/ that are; minicnn data pack  makes them")
    problems = [problem for folder in folders for problem in packed.verify(folder, args.workers)]
    print("\n".join(problems) or f"{args.data}: as it was written")
    return 1 if problems else 0


def parse(argv):
    parser = argparse.ArgumentParser(prog="minicnn data", description="Look at a data set, and pack it for speed.",
                                     epilog="exit code 0: done, nothing is wrong; 1: something is wrong with the data; "
                                            "2: a wrong command line, or no data there")
    jobs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def job(name, function, what):
        one = jobs.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        one.set_defaults(job=function)
        return one

    one = job("verify", verify, "look at every image: what is there, what cannot be read, what is there twice")
    one.add_argument("data", metavar="DIR", help=SOURCE + "; or a folder of classes")
    one.add_argument("--fast", action="store_true", help="read only the beginning of each file")
    one.add_argument("--json", action="store_true", help="print the whole report as JSON")
    one.add_argument("--workers", type=positive, help="threads (default: one for each core)")

    one = job("show", show, "a contact sheet: some images, and what the network sees of them in training")
    one.add_argument("data", metavar="DIR", help=SOURCE)
    one.add_argument("out", metavar="OUT.png")
    one.add_argument("--rows", type=positive, default=6, help="images (default: 6)")
    one.add_argument("--columns", type=positive, default=7, help="the image and its versions (default: 7)")
    one.add_argument("--size", type=positive, default=227, help="side of the network's input (default: 227)")
    one.add_argument("--seed", type=int, default=0, help="another seed, other versions (default: 0)")

    one = job("pack", pack, "scale all images once and write them into a few large files, DST/train and DST/val")
    one.add_argument("source", metavar="SRC", help=SOURCE)
    one.add_argument("destination", metavar="DST", help="a new folder; or one that was left half done, to go on with it")
    one.add_argument("--format", choices=["jpeg", "raw"], default="jpeg",
                     help="jpeg (small, the default), or raw (no loss, nothing to decode)")
    one.add_argument("--side", type=positive, default=256, help="the shorter side of each image (default: 256)")
    one.add_argument("--quality", type=positive, default=90, help="of JPEGs, 1 to 100 (default: 90)")
    one.add_argument("--workers", type=positive, help="threads (default: one for each core)")
    one.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be read, and name them")

    one = job("check-pack", check_pack, "read all of a packed set, and see whether it is as it was written")
    one.add_argument("data", metavar="DIR", help="what  minicnn data pack  wrote")
    one.add_argument("--workers", type=positive, help="threads (default: one for each core)")
    return parser.parse_args(argv)


def positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return int(text)
