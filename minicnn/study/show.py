"""`minicnn show`: an op's formula, its forward and backward, and what the CPU and the GPU do, side by side.

    minicnn show                        the ops, a line for each
    minicnn show conv2d                 formula, forward and backward, both bodies, the CUDA kernels
    minicnn show conv2d --loops         also the definition by plain loops, which the tests compare with
    minicnn show conv2d --check         also: is its backward the derivative of its forward, and is each wrong one refused?

All of it is cut out of the source, so it is what runs. A wide terminal shows two columns; COLUMNS=200 minicnn show ... makes one wide.
Exit code 0: done. 1: a check said no. 2: no such op, or no tests to take loops and cases from.
"""

import argparse
import os
import re
import shutil
import sys

from minicnn.gradcheck import GradcheckError, gradcheck
from minicnn.study import anatomy

TWO_COLUMNS = 150           # from this width on
GAP = "  |  "
BOLD, DIM, GREEN, RED, PLAIN = "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m"


def main(argv=None):
    parser = argparse.ArgumentParser(prog="minicnn show", description=__doc__.partition("\n")[0],
                                     epilog="Exit code 0: done; 1: a check said no; 2: no such op, or no tests to ask.")
    parser.add_argument("op", nargs="?", metavar="OP", help="which one; without it, what there is")
    parser.add_argument("--loops", action="store_true", help="also the definition by plain loops")
    parser.add_argument("--check", action="store_true", help="also check its gradient, and that each wrong backward is refused")
    args = parser.parse_args(argv)
    page = Page(shutil.get_terminal_size().columns, sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    if args.op is None:
        if args.loops or args.check:
            parser.error("--loops and --check want an OP")
        contents(page)
        return 0
    try:
        op = anatomy.find(args.op)
        show(op, page)
        if args.loops:
            loops(op, page)
        return 0 if not args.check or check(op, page) else 1
    except anatomy.NotThere as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        return 2


def contents(page):
    """One line for each op."""
    wide = max(map(len, anatomy.names()))
    for name in anatomy.names():
        print(f"{page.paint(BOLD, name.ljust(wide))}  {first_line(anatomy.find(name).function)}")
    print("\nminicnn show OP tells all of one; minicnn exercises OP lets you write its backward.")


def first_line(thing):
    return thing.__doc__.strip().partition("\n")[0]


def show(op, page):
    """Formula, forward and backward, what they use, and the bodies for each device."""
    source, definition = op.source, op.source.definitions[op.name]
    print(page.paint(BOLD, f"{source.cut(definition).partition(':' + chr(10))[0].removeprefix('def ')}") + f"        {source.where}\n")
    print(op.formula)
    directions = {name: op.methods(name) for name in ("forward", "backward")}
    page.beside(*((f"{name}", "\n\n".join((f"# {cls.__name__}\n" if cls is not op.cls else "") + source.cut(node) for cls, node in found))
                  for name, found in directions.items()))

    own = [n for cls in op.cls.__mro__ for n in getattr(source.definitions.get(cls.__name__), "body", [])
           if getattr(n, "name", "multiply_adds") not in ("forward", "backward", "multiply_adds")]
    reached = {}
    for node in [n for found in directions.values() for _, n in found] + own:
        reached.update({(s.where, name): (s, name) for s, name in anatomy.used(source, node)})
    shared = [(s, name) for s, name in reached.values() if name not in s.bodies]
    page.one("what they use", "\n\n".join([source.cut(n) for n in own] + [s.cut(s.definitions[name]) for s, name in shared]))

    pairs, seen = [(s, name) for s, name in reached.values() if name in s.bodies], set(reached)
    for s, name in pairs:
        page.beside(*body_of(s, name, seen))
    if not pairs:
        print("\nOne body serves both devices: its arrays are NumPy's on the CPU and CuPy's on the GPU, xp_of(x) is the one or the other.")
    bodies = [(s, body) for s, name in pairs for body in s.bodies[name]]
    elsewhere([(source, n) for found in directions.values() for _, n in found]
              + [(s, s.definitions[name]) for s, name in [*reached.values(), *bodies]])


def body_of(source, name, seen):
    """Both columns of a name with two bodies: (heading, text) for the CPU and for the GPU; what is in `seen` is not shown again."""
    columns = []
    for device, body in zip(("CPU", "GPU"), source.bodies[name], strict=True):
        node = source.definitions[body]
        also = anatomy.used(source, node)
        nodes = [node, *(s.definitions[n] for s, n in also)]
        texts = [source.cut(node)] + [s.cut(s.definitions[n]) for s, n in also if (s.where, n) not in seen]
        seen.update((s.where, n) for s, n in also)
        for file, parts in anatomy.kernels_of(nodes).items() if device == "GPU" else ():
            texts += [f"// minicnn/{file}", *(part for part in parts if part not in seen)]
            seen.update(parts)
        columns.append((f"{name}, {device}        {source.where}", "\n\n".join(texts)))
    return columns


def elsewhere(pieces):
    """Name what is used and not shown, and where it is."""
    places: dict[str, list[str]] = {}
    for source, node in pieces:
        for name in anatomy.names_in(node):
            module, there = source.imports.get(name, ("", None))
            if module.startswith("minicnn") and name != "Function":
                file = f"{module}.{there}" if there and f"{module}.{there}" in sys.modules else module
                if file in (anatomy.NOT_MATHS, "minicnn.ops.winograd") or not file.startswith("minicnn.ops."):
                    places.setdefault(file.replace(".", "/") + ".py", []).append(name)
    if places:
        print("\nElsewhere: " + "; ".join(f"{', '.join(dict.fromkeys(found))} in {file}" for file, found in places.items()) + ".")


def loops(op, page):
    """The definition by loops, from the op's test."""
    definition = anatomy.definition_of(op.cls)
    source, expression = definition.source, definition.naive
    parts = [source.cut(source.definitions[name]) for s, name in anatomy.used(source, expression) if s is source]
    if not hasattr(expression, "id"):
        parts.append("naive = " + anatomy.ast.unparse(expression))
    page.one(f"by loops        {source.where}", "\n\n".join(parts))


def check(op, page):
    """Gradient-check the op on all its cases, and its wrong backwards where they show; whether all is as it should be."""
    definition, good = anatomy.definition_of(op.cls), True
    wide = max(map(len, definition.cases))
    page.heading("check: is backward the derivative of forward?")
    for case, (args, inputs) in definition.cases.items():
        report, refused = ask(definition.op, args, inputs)
        good &= not refused
        print(f"{case.ljust(wide)}  {page.verdict(not refused, 'no' if refused else 'yes')}  {report}")
    page.heading("check: is each wrong backward refused?")
    for mistake in definition.wrong:
        print(f"{page.paint(BOLD, mistake.__name__)}: {first_line(mistake)}")
        shown = {case: (args, inputs) for case, (args, inputs) in definition.cases.items() if anatomy.shows(mistake, args, inputs)}
        good &= bool(shown)
        print(f"    shows in {len(shown)} of {len(definition.cases)} cases")
        for case, (args, inputs) in shown.items():
            report, refused = ask(mistake, args, inputs)
            good &= refused
            print(f"    {case.ljust(wide)}  {page.verdict(refused, 'refused' if refused else 'NOT REFUSED')}  {report}")
    return bool(good)


def ask(op, args, inputs):
    """What the gradient check reports, and whether it refused."""
    try:
        return gradcheck(lambda *tensors: op(*args)(*tensors), inputs).worst, False
    except GradcheckError as error:
        return error.report.worst if error.report else error, True


class Page:
    """Prints headings and blocks of source on a terminal of so many columns, in colour or not."""

    def __init__(self, width, colour):
        self.width, self.colour = width, colour

    def paint(self, colour, text):
        return f"{colour}{text}{PLAIN}" if self.colour else text

    def verdict(self, good, text):
        return self.paint(GREEN if good else RED, text)

    def heading(self, text):
        print("\n" + self.paint(BOLD, f"--- {text}") + "\n")

    def one(self, heading, text):
        """A block, whose lines are left as they are."""
        if text:
            self.heading(heading)
            print("\n".join(self.shade(line, line) for line in text.splitlines()))

    def beside(self, left, right):
        """Two blocks, each (heading, text): side by side where there is room, else one below the other."""
        if self.width < TWO_COLUMNS:
            self.one(*left)
            self.one(*right)
            return
        width = (self.width - len(GAP)) // 2
        columns = [list(self.column(heading, text, width)) for heading, text in (left, right)]
        print()
        for i in range(max(map(len, columns))):
            (text, painted), (_, other) = (column[i] if i < len(column) else ("", "") for column in columns)
            print((painted + " " * (width - len(text)) + GAP + other).rstrip())

    def column(self, heading, text, width):
        """(line, line as painted) for each line of a block, long ones folded."""
        for line in folded(f"--- {heading}", width):
            yield line, self.paint(BOLD, line)
        yield "", ""
        for line in text.splitlines():
            for part in folded(line, width):
                yield part, self.shade(part, line)

    def shade(self, part, line):
        """Comments are dim."""
        comment = re.search(r"(?:^|\s)(?:#|//)\s.*$", part)
        return part[:comment.start()] + self.paint(DIM, comment[0]) if comment and self.colour else part


def folded(line, width):
    """The line in pieces of at most `width`, cut at spaces where there are some; what goes on is indented deeper."""
    indent = " " * min(len(line) - len(line.lstrip()) + 8, width // 2)
    while len(line) > width:
        at = line.rfind(" ", len(indent) + 1, width)
        at = at if at > 0 else width
        yield line[:at].rstrip()
        line = indent + line[at:].lstrip()
    yield line
