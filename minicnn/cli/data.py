"""`minicnn data`: inspect a data set before training on it, and pack it for speed.

    minicnn data verify photos                  counts and sizes, unreadable images, duplicates
    minicnn data preview photos sheet.png       a contact sheet: images, and augmented versions of each
    minicnn data pack photos packed             decode and resize once, so that training reads a few large files
    minicnn data verify-pack packed             check every byte against its checksum

Exit code 0: done, and nothing is wrong. 1: something is wrong with the data. 2: invalid arguments, or no data set found.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from minicnn.data import DataError, open_dataset, shards
from minicnn.data.datasets.files import printable_path
from minicnn.data.shards.format import INDEX_FILE
from minicnn.data.verify import verify
from minicnn.examples.arguments import positive_int
from minicnn.text import pluralize
from minicnn.visualize.contact_sheet import contact_sheet

SOURCE = "a folder with train/ and val/, or another data set that  minicnn train --data  takes"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    try:
        code: int = args.run(args)
        return code
    except (DataError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run_verify(args: argparse.Namespace) -> int:
    """Print a report; 1 if there are problems."""
    report = verify(args.data, args.fast, args.workers)
    print(json.dumps(report, indent=1) if args.json else format_report(report))
    return 1 if report["problems"] else 0


def run_preview(args: argparse.Namespace) -> int:
    """Write a contact sheet of the training set."""
    contact_sheet(open_dataset(args.data)[0], args.out, args.rows, args.columns, args.size, args.seed)
    print(f"wrote {args.out}")
    return 0


def run_pack(args: argparse.Namespace) -> int:
    """Pack the training and the validation set, each into a folder of its own."""
    for name, source in zip(("train", "val"), open_dataset(args.source), strict=True):
        packed = shards.pack(source, os.path.join(args.destination, name), args.format, args.side, args.quality, args.workers,
                             on_error=args.on_error)
        print(f"{name}: {pluralize(len(packed), 'image')}")
        for _, _, reason in packed.skipped:
            print(f"  skipped: {reason}")
    print(f"train with it:  minicnn train --data {args.destination}")
    return 0


def run_verify_pack(args: argparse.Namespace) -> int:
    """Print the problems of packed sets; 1 if there are any."""
    folders = [folder for name in ("", "train", "val") if os.path.exists(os.path.join(folder := os.path.join(args.data, name), INDEX_FILE))]
    if not folders:
        raise DataError(f"{args.data}: must be a packed set, or a folder with a packed train/ and val/;  minicnn data pack  makes them")
    problems = [problem for folder in folders for problem in shards.verify(folder, args.workers)]
    print("\n".join(problems) or f"{args.data}: no problems")
    return 1 if problems else 0


def format_report(report: dict[str, Any], max_lines: int = 20) -> str:
    """The report of `verify` as text, with at most `max_lines` lines of each list."""
    lines = [printable_path(report["where"]) + (" (fast: only the beginning of each file)" if report["fast"] else ""), ""]
    lines += class_table(report["sets"], max_lines)
    if report["sizes"]:
        lines.append("")
        for name, size in report["sizes"].items():
            lines.append(f"{name:9} {size['width']} x {size['height']}" + (f"  {size['file']}" if "file" in size else ""))
        lines.append("kinds     " + ", ".join(f"{kind} {count}" for kind, count in report["kinds"].items()))
    for name in ("note", "problem"):
        found = report[name + "s"]
        if found:
            lines += ["", f"{pluralize(len(found), name)}:", *(f"  {printable_path(sentence)}" for sentence in found[:max_lines])]
        if len(found) > max_lines:
            lines.append(f"  ... and {len(found) - max_lines} more (--json prints all)")
    if not report["problems"]:
        lines += ["", "no problems"]
    return "\n".join(lines)


def class_table(summaries: dict[str, Any], max_lines: int) -> list[str]:
    """A table of the number of images of each class in each set; of many classes only the smallest and the largest."""
    classes = list(dict.fromkeys(name for summary in summaries.values() for name in summary["classes"]))
    rows = [[printable_path(name), *(str(summary["classes"].get(name, "-")) for summary in summaries.values())] for name in classes]
    if len(classes) > 2 * max_lines:
        first, half = next(iter(summaries.values()))["classes"], max_lines // 2
        order = sorted(range(len(classes)), key=lambda n: first.get(classes[n], 0))
        ellipsis = [f"... {len(classes) - 2 * half} more", *["..."] * len(summaries)]
        rows = [*(rows[n] for n in order[:half]), ellipsis, *(rows[n] for n in order[-half:])]
    rows = [["class", *summaries], *rows, ["all", *(str(summary["images"]) for summary in summaries.values())],
            ["MB", *(f"{summary['bytes'] / 1e6:.1f}" for summary in summaries.values())]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; `run` is the function of the chosen command."""
    parser = argparse.ArgumentParser(prog="minicnn data", description="Inspect a data set, and pack it for speed.",
                                     epilog="exit code 0: done, nothing is wrong; 1: something is wrong with the data; "
                                            "2: invalid arguments, or no data set found")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add_command(name: str, run: Callable[[argparse.Namespace], int], description: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=description, description=description[0].upper() + description[1:] + ".")
        command.set_defaults(run=run)
        return command

    command = add_command("verify", run_verify, "inspect every image: counts and sizes, unreadable images, duplicates")
    command.add_argument("data", metavar="DIR", help=SOURCE + "; or a folder with one folder of images per class")
    command.add_argument("--fast", action="store_true", help="read only the first 4096 bytes of each file")
    command.add_argument("--json", action="store_true", help="print the whole report as JSON")
    command.add_argument("--workers", type=positive_int, metavar="N", help="threads (default: one per core)")

    command = add_command("preview", run_preview, "write a contact sheet: some images, and augmented versions of each")
    command.add_argument("data", metavar="DIR", help=SOURCE)
    command.add_argument("out", metavar="OUT.png")
    command.add_argument("--rows", type=positive_int, default=6, metavar="N", help="number of images (default: %(default)s)")
    command.add_argument("--columns", type=positive_int, default=7, metavar="N", help="the image and its versions (default: %(default)s)")
    command.add_argument("--size", type=positive_int, default=227, metavar="N", help="side of the network's input (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="of the augmentation (default: %(default)s)")

    command = add_command("pack", run_pack, "resize all images once and write them to a few large files, DST/train and DST/val")
    command.add_argument("source", metavar="SRC", help=SOURCE)
    command.add_argument("destination", metavar="DST", help="a new folder; or one where packing was interrupted, to resume it")
    command.add_argument("--format", choices=["jpeg", "raw"], default="jpeg",
                         help="jpeg (small, the default), or raw (lossless, nothing to decode)")
    command.add_argument("--side", type=positive_int, default=256, metavar="N", help="shorter side of each image (default: %(default)s)")
    command.add_argument("--quality", type=positive_int, default=90, metavar="N", help="of JPEGs, 1 to 100 (default: %(default)s)")
    command.add_argument("--workers", type=positive_int, metavar="N", help="threads (default: one per core)")
    command.add_argument("--on-error", choices=["raise", "skip"], default="raise",
                         help="images that cannot be read: stop with an error (raise, the default), or skip and list them")

    command = add_command("verify-pack", run_verify_pack, "read all of a packed set, and check every byte against its checksum")
    command.add_argument("data", metavar="DIR", help="what  minicnn data pack  wrote")
    command.add_argument("--workers", type=positive_int, metavar="N", help="threads (default: one per core)")
    return parser.parse_args(argv)
