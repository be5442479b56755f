"""An op on a terminal page: its formula, forward and backward, and its CPU and GPU bodies side by side, extracted from the source.

`minicnn show` prints it: see minicnn.cli.show.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from minicnn.autograd import Function
from minicnn.gradcheck import GradcheckError, gradcheck
from minicnn.learn import op_source
from minicnn.learn.cases import affects

TWO_COLUMNS = 150           # terminals of at least this width show two columns
GAP = "  |  "
BOLD, DIM, GREEN, RED, PLAIN = "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m"


class Page:
    """Prints headings and blocks of source to a terminal.

    Args:
        width: in characters; from TWO_COLUMNS on, blocks are printed side by side.
        colour: whether to use ANSI colours.
    """

    def __init__(self, width: int, colour: bool) -> None:
        self.width, self.colour = width, colour

    def paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self.colour else text

    def verdict(self, good: bool, text: str) -> str:
        return self.paint(GREEN if good else RED, text)

    def heading(self, text: str) -> None:
        print("\n" + self.paint(BOLD, f"--- {text}") + "\n")

    def block(self, heading: str, text: str) -> None:
        """A heading and lines of source, which are not wrapped; nothing if there are none."""
        if text:
            self.heading(heading)
            print("\n".join(self.dim_comment(line, line) for line in text.splitlines()))

    def side_by_side(self, left: tuple[str, str], right: tuple[str, str]) -> None:
        """Two blocks, each (heading, text): in two columns where the page is wide enough, else one below the other."""
        if self.width < TWO_COLUMNS:
            self.block(*left)
            self.block(*right)
            return
        width = (self.width - len(GAP)) // 2
        columns = [list(self.column(heading, text, width)) for heading, text in (left, right)]
        print()
        for i in range(max(map(len, columns))):
            (text, painted), (_, other) = (column[i] if i < len(column) else ("", "") for column in columns)
            print((painted + " " * (width - len(text)) + GAP + other).rstrip())

    def column(self, heading: str, text: str, width: int) -> Iterator[tuple[str, str]]:
        """(line, the line with its colours) for each line of a block, long lines wrapped."""
        for line in wrap(f"--- {heading}", width):
            yield line, self.paint(BOLD, line)
        yield "", ""
        for line in text.splitlines():
            for part in wrap(line, width):
                yield part, self.dim_comment(part, line)

    def dim_comment(self, part: str, line: str) -> str:
        comment = re.search(r"(?:^|\s)(?:#|//)\s.*$", part)
        return part[:comment.start()] + self.paint(DIM, comment[0]) if comment and self.colour else part


def wrap(line: str, width: int) -> Iterator[str]:
    """The line in pieces of at most `width` characters, broken at spaces where possible; continuation lines are indented further."""
    indent = " " * min(len(line) - len(line.lstrip()) + 8, width // 2)
    while len(line) > width:
        at = line.rfind(" ", len(indent) + 1, width)
        at = at if at > 0 else width
        yield line[:at].rstrip()
        line = indent + line[at:].lstrip()
    yield line


def contents(page: Page) -> None:
    """Print the list of ops, one line each."""
    width = max(map(len, op_source.names()))
    for name in op_source.names():
        print(f"{page.paint(BOLD, name.ljust(width))}  {first_line(op_source.find(name).function)}")
    print("\nminicnn show OP shows one of them; minicnn exercises OP lets you write its backward.")


def first_line(thing: Any) -> str:
    return str(thing.__doc__).strip().partition("\n")[0]


def show(op: op_source.Op, page: Page) -> None:
    """Print an op's formula, its forward and backward, the functions that they use, and the bodies for each device."""
    source, definition = op.source, op.source.definitions[op.name]
    signature = source.cut(definition).partition(":\n")[0].removeprefix("def ")
    print(page.paint(BOLD, signature) + f"        {source.relative_path}\n")
    print(op.formula)
    forward, backward = op.methods("forward"), op.methods("backward")
    page.side_by_side(("forward", methods_text(op, forward)), ("backward", methods_text(op, backward)))

    helpers = [node for cls in op.cls.__mro__ for node in getattr(source.definitions.get(cls.__name__), "body", [])
               if isinstance(node, ast.FunctionDef) and node.name not in ("forward", "backward", "multiply_adds")]
    used: dict[tuple[str, str], tuple[op_source.Source, str]] = {}
    for node in [n for _, n in forward + backward] + helpers:
        used.update({(s.relative_path, name): (s, name) for s, name in op_source.dependencies(source, node)})
    one_body = [s.cut(s.definitions[name]) for s, name in used.values() if name not in s.bodies]
    page.block("helpers", "\n\n".join([source.cut(n) for n in helpers] + one_body))

    two_bodies = [(s, name) for s, name in used.values() if name in s.bodies]
    seen: set[Any] = set(used)
    for s, name in two_bodies:
        page.side_by_side(*body_columns(s, name, seen))
    if not two_bodies:
        print("\nOne body serves both devices: arrays are NumPy's on the CPU and CuPy's on the GPU, and xp_of(x) is the library of x.")
    bodies = [(s, body) for s, name in two_bodies for body in s.bodies[name]]
    list_imports([(source, n) for _, n in forward + backward] + [(s, s.definitions[name]) for s, name in [*used.values(), *bodies]])


def methods_text(op: op_source.Op, methods: Iterable[tuple[type, ast.FunctionDef]]) -> str:
    """The source of these methods; those of a parent class are headed by its name."""
    return "\n\n".join(("" if cls is op.cls else f"# {cls.__name__}\n") + op.source.cut(node) for cls, node in methods)


def body_columns(source: op_source.Source, name: str, seen: set[Any]) -> list[tuple[str, str]]:
    """(heading, text) of the CPU body and of the GPU body of a name with two bodies. Functions in `seen` are not shown again."""
    columns = []
    for device, body in zip(("CPU", "GPU"), source.bodies[name], strict=True):
        node = source.definitions[body]
        used = op_source.dependencies(source, node)
        texts = [source.cut(node)] + [s.cut(s.definitions[n]) for s, n in used if (s.relative_path, n) not in seen]
        seen.update((s.relative_path, n) for s, n in used)
        if device == "GPU":
            for file, kernels in op_source.kernels_of([node, *(s.definitions[n] for s, n in used)]).items():
                texts += [f"// minicnn/{file}", *(kernel for kernel in kernels if kernel not in seen)]
                seen.update(kernels)
        columns.append((f"{name}, {device}        {source.relative_path}", "\n\n".join(texts)))
    return columns


def list_imports(nodes: Iterable[tuple[op_source.Source, ast.AST]]) -> None:
    """Print the names that these nodes import from minicnn and that are not shown, and the files that define them."""
    files: dict[str, list[str]] = {}
    for source, node in nodes:
        for name in op_source.names_in(node):
            module, original_name = source.imports.get(name, ("", None))
            if f"{module}.{original_name}" in sys.modules:              # from minicnn.backend import cuda: the name is a module
                module = f"{module}.{original_name}"
            if module.startswith("minicnn.") and name != "Function" and not op_source.is_op_maths(module):
                files.setdefault(module.replace(".", "/") + ".py", []).append(name)
    if files:
        print("\nImported: " + "; ".join(f"{', '.join(dict.fromkeys(found))} from {file}" for file, found in files.items()) + ".")


def reference(op: op_source.Op, page: Page) -> None:
    """Print the reference implementation, plain loops, that the tests compare the op with."""
    test = op_source.op_test(op.cls)
    pieces = [test.source.cut(test.source.definitions[name])
              for source, name in op_source.dependencies(test.source, test.naive) if source is test.source]
    if not isinstance(test.naive, ast.Name):            # an expression such as  each(math.exp)
        pieces.append("naive = " + ast.unparse(test.naive))
    page.block(f"reference        {test.source.relative_path}", "\n\n".join(pieces))


def check(op: op_source.Op, page: Page) -> bool:
    """Gradient-check the op in all its cases, and each wrong backward in the cases that it affects.

    Returns True if the op's backward is accepted and every wrong one is rejected.
    """
    test, good = op_source.op_test(op.cls), True
    width = max(map(len, test.cases))
    page.heading("check: is backward the derivative of forward?")
    for case, (args, inputs) in test.cases.items():
        accepted, report = gradient_check(test.op, args, inputs)
        good &= accepted
        print(f"{case.ljust(width)}  {page.verdict(accepted, 'yes' if accepted else 'no')}  {report}")
    page.heading("check: is each wrong backward rejected?")
    for mistake in test.wrong:
        print(f"{page.paint(BOLD, mistake.__name__)}: {first_line(mistake)}")
        affected = {case: (args, inputs) for case, (args, inputs) in test.cases.items() if affects(mistake, args, inputs)}
        good &= bool(affected)
        print(f"    affects {len(affected)} of {len(test.cases)} cases")
        for case, (args, inputs) in affected.items():
            accepted, report = gradient_check(mistake, args, inputs)
            good &= not accepted
            print(f"    {case.ljust(width)}  {page.verdict(not accepted, 'NOT REJECTED' if accepted else 'rejected')}  {report}")
    return good


def gradient_check(function: type[Function], args: tuple[Any, ...], inputs: list[Any]) -> tuple[bool, Any]:
    """(whether gradcheck accepts the backward, its worst entry or its error)."""
    try:
        return True, gradcheck(lambda *tensors: function(*args)(*tensors), inputs).worst
    except GradcheckError as error:
        return False, error.report.worst if error.report else error
