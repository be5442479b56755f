"""What `verify` found, as text."""

from minicnn.data.datasets.files import shown


def describe(report, most=20):
    """The report in words; of long lists only `most` lines."""
    lines = [shown(report["where"]) + (" (a fast look: only the beginning of each file)" if report["fast"] else ""), ""]
    lines += table(report["sets"], most)
    if report["sizes"]:
        lines.append("")
        for name, size in report["sizes"].items():
            lines.append(f"{name:9} {size['width']} x {size['height']}" + (f"  {size['file']}" if "file" in size else ""))
        lines.append("kinds     " + ", ".join(f"{kind} {count}" for kind, count in report["kinds"].items()))
    for name in ("notes", "problems"):
        found = report[name]
        if found:
            lines += ["", f"{len(found)} {name if len(found) > 1 else name[:-1]}:", *(f"  {shown(sentence)}" for sentence in found[:most])]
            lines += [f"  ... and {len(found) - most} more (--json has them all)"] * (len(found) > most)
    return "\n".join([*lines, *["", "no problems"] * (not report["problems"])])


def table(sets, most):
    """A line for each class, and how many images each set has of it; of many classes the smallest and the largest."""
    classes = list(dict.fromkeys(name for one in sets.values() for name in one["classes"]))
    rows = [[shown(name), *(str(one["classes"].get(name, "-")) for one in sets.values())] for name in classes]
    if len(classes) > 2 * most:
        first = next(iter(sets.values()))["classes"]
        order, half = sorted(range(len(classes)), key=lambda n: first.get(classes[n], 0)), most // 2
        left_out = [f"... {len(classes) - 2 * half} more", *["..."] * len(sets)]
        rows = [*(rows[n] for n in order[:half]), left_out, *(rows[n] for n in order[-half:])]
    rows = [["class", *sets], *rows, ["all", *(str(one["images"]) for one in sets.values())],
            ["MB", *(f"{one['bytes'] / 1e6:.1f}" for one in sets.values())]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
