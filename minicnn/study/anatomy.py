"""Where the parts of an op are: formula and bodies in its module, loops, cases and mistakes in its test.

Everything is cut out of the files by their syntax trees, or read from the tests as they are imported. Nothing is copied by hand, so
what is shown is what runs.
"""

import ast
import dataclasses
import difflib
import functools
import importlib
import inspect
import pathlib
import re
import sys
import textwrap
import types
from collections.abc import Callable

import minicnn
from minicnn import ops
from minicnn.autograd import Function

PACKAGE = pathlib.Path(minicnn.__file__).parent
TESTS = PACKAGE.parent / "tests"        # beside the package in a checkout, not in an installed copy
NOT_MATHS = "minicnn.ops.layout"        # shapes and strides; named when an op uses it, not followed


class NotThere(Exception):
    """What was asked for does not exist here; the message says what does, or how to get it."""


@dataclasses.dataclass
class Op:
    """An op: its public function, its Function, and the module that both are in."""

    name: str
    function: Callable
    cls: type[Function]
    source: "Source"

    @property
    def formula(self):
        return self.source.module.__doc__.strip()

    @property
    def inputs(self):
        """What forward calls them: x, w, b."""
        return list(inspect.signature(self.cls.forward).parameters)[1:]

    def methods(self, name):
        """(class, node) for this method, and for what it calls by super(), as far as the op's module goes."""
        found: list[tuple[type, ast.stmt]] = []
        for cls in self.cls.__mro__:
            node = method_of(self.source.definitions.get(cls.__name__), name)
            if node and (not found or f"super().{name}(" in self.source.cut(found[-1][1])):
                found.append((cls, node))
        return found


@dataclasses.dataclass
class Definition:
    """What an op's test knows of it."""

    op: type[Function]                  # as the test runs it: dropout there draws the same mask each time
    cases: dict                         # name: (args of the constructor, input arrays)
    naive: ast.expr                     # the definition by plain loops, as the test names it
    wrong: list[type[Function]]         # wrong backwards; the docstring says what is mistaken
    source: "Source"

    def mistake(self, name):
        return one_of({w.__name__: w for w in self.wrong}, name, "mistake")


def shows(mistake, args, inputs):
    """Whether a mistake makes a difference in this case, as tests/check.py has it."""
    return not hasattr(mistake, "shows") or bool(mistake.shows(args, *inputs))


class Source:
    """A module as text, and its top-level definitions by name."""

    def __init__(self, module):
        self.module = module
        self.path = pathlib.Path(module.__file__)
        text = self.path.read_text(encoding="utf-8")
        self.lines, self.tree = text.splitlines(), ast.parse(text)
        self.definitions: dict[str, ast.FunctionDef | ast.ClassDef | ast.Assign] = {}       # Assign: a name that is given a value
        self.imports: dict[str, tuple[str, str | None]] = {}        # name: (module, name in it), or (module, None)
        self.bodies = {}        # name: (CPU body, GPU body), where  name = by_device(CPU body, GPU body)
        for node in self.tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                self.definitions[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name, value = node.targets[0].id, node.value
                self.definitions[name] = node
                if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "by_device":
                    self.bodies[name] = tuple(a.id for a in value.args if isinstance(a, ast.Name))
            elif isinstance(node, ast.Import):
                self.imports.update({a.asname or a.name: (a.name, None) for a in node.names})
            elif isinstance(node, ast.ImportFrom) and node.module:
                self.imports.update({a.asname or a.name: (node.module, a.name) for a in node.names})

    @property
    def where(self):
        """The path as one would type it in the repository."""
        return self.path.relative_to(PACKAGE.parent).as_posix()

    def cut(self, node, docstring=True):
        """The lines of a node, whole, so with their comments; at will without its docstring."""
        start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        lines = dict(enumerate(self.lines[start - 1:node.end_lineno], start))
        if not docstring and isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            first, *others = node.body
            lines = {i: line for i, line in lines.items() if not first.lineno <= i < others[0].lineno}
        return textwrap.dedent("\n".join(lines.values()))

    def body(self, function):
        """The lines of a function without its head."""
        return textwrap.dedent("\n".join(self.lines[function.body[0].lineno - 1:function.end_lineno]))


@functools.cache
def source_of(module_name):
    return Source(sys.modules[module_name])


def names_in(node):
    """The names that a node uses, each once, in the order of the text."""
    found = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
    return list(dict.fromkeys(n.id for n in sorted(found, key=lambda n: (n.lineno, n.col_offset))))


def method_of(node, name):
    """The method of that name that a class defines itself, or None."""
    return next((n for n in getattr(node, "body", []) if isinstance(n, ast.FunctionDef) and n.name == name), None)


def used(source, node, follow=lambda module: module.startswith("minicnn.ops.") and module != NOT_MATHS):
    """What a node uses, directly or not: (source, name) in the order in which a reader meets it.

    Functions and values at the top of a module are followed, also into those modules that `follow` says yes to. A name with two bodies
    is not looked into: see `Source.bodies`. Classes are left out.
    """
    found: dict[tuple[str, str], tuple[Source, str]] = {}

    def visit(source, node):
        for name in names_in(node):
            there = source
            if name in source.imports:
                module, name_there = source.imports[name]
                if name_there is None or not follow(module):
                    continue
                there, name = source_of(module), name_there
            definition = there.definitions.get(name)
            if definition is None or isinstance(definition, ast.ClassDef) or (there.where, name) in found:
                continue
            found[there.where, name] = there, name
            if name not in there.bodies:
                visit(there, definition)

    visit(source, node)
    return list(found.values())


# Finding

def names():
    return list(ops.__all__)


def find(name):
    """The op of that name. NotThere names those that are spelt alike."""
    function = one_of({n: getattr(ops, n) for n in names()}, name, "op")
    source = source_of(function.__module__)
    classes = [getattr(source.module, n) for n in names_in(source.definitions[function.__name__]) if n in source.definitions]
    return Op(name, function, next(c for c in classes if isinstance(c, type) and issubclass(c, Function)), source)


def one_of(things, name, kind):
    if name in things:
        return things[name]
    lower = {n.lower().replace("_", ""): n for n in things}
    near = difflib.get_close_matches(name.lower().replace("_", ""), lower, n=3, cutoff=0.5)
    raise NotThere(f"there is no {kind} {name!r}; " + (f"did you mean {' or '.join(lower[n] for n in near)}?" if near else
                                                       f"there are {', '.join(things)}"))


@functools.cache
def definition_of(cls):
    """What the test of this Function says, in its call  check_op(Op, *CASES[case], naive, WRONG, device)  or in its TABLE."""
    module = the_test_of(cls.__module__.rpartition(".")[2])
    source, known = source_of(module.__name__), vars(module)
    for call in ast.walk(source.tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "check_op":
            op, cases, naive, wrong, *_ = call.args
            if (isinstance(cases, ast.Starred) and isinstance(cases.value, ast.Subscript)
                    and isinstance(op, ast.Name) and op.id in known and cls in known[op.id].__mro__):
                return Definition(known[op.id], value(cases.value.value, known), naive, value(wrong, known), source)
    if cls in known.get("TABLE", {}):
        cases, _, wrong = known["TABLE"][cls]
        row = next(v for k, v in zip(*table(source), strict=True) if value(k, known) is cls)
        return Definition(cls, cases, row.elts[1], wrong, source)
    raise NotThere(f"{source.where} has no cases for {cls.__name__}")


def table(source):
    """Keys and values of the dict TABLE."""
    node = source.definitions["TABLE"].value
    return node.keys, node.values


def value(expression, known):
    return eval(compile(ast.Expression(expression), "<a test>", "eval"), dict(known))


def the_test_of(name) -> types.ModuleType:
    """The test of the ops in minicnn/ops/`name`.py, imported."""
    found = sorted((TESTS / "ops").glob(f"test_{name}.py")) or sorted((TESTS / "ops").glob(f"test_*{name}*.py"))
    if not (TESTS / "check.py").exists():
        raise NotThere("the plain loops, the cases and the wrong backwards are in minicnn's tests, which are not installed with it; "
                       'get its source, and in that folder run  python -m pip install -e ".[test]"')
    if not found:
        raise NotThere(f"there is no tests/ops/test_{name}.py, so there are no cases")
    before = list(sys.path)
    sys.path[:0] = [str(TESTS / "ops"), str(TESTS)]
    try:
        return importlib.import_module(found[0].stem)
    except ModuleNotFoundError as error:
        raise NotThere(f"minicnn's tests, which know the cases and the wrong backwards, need {error.name}: "
                       f"python -m pip install {error.name}") from error
    finally:
        sys.path[:] = before


# CUDA

FUNCTION = re.compile(r'(?:^//[^\n]*\n)*^(?:extern "C" __global__ void|__device__ \w+) (\w+)\([^{]*\)\n\{\n.*?^\}\n', re.M | re.S)


@functools.cache
def kernels_in(file):
    """Of minicnn/`file`: its functions by name, and what else it says."""
    text = (PACKAGE / file).read_text(encoding="utf-8")
    return {m[1]: m[0].rstrip() for m in FUNCTION.finditer(text)}, re.sub(r"\n{3,}", "\n\n", FUNCTION.sub("", text)).strip()


def kernels_of(nodes):
    """The CUDA that these functions start: {file: [head, function, ...]}, what a kernel calls before it."""
    strings = [n.value for node in nodes for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    found = {}
    for file in dict.fromkeys(s for s in strings if s.endswith(".cu")):
        functions, head = kernels_in(file)
        called: dict[str, str] = {}

        def add(name, functions=functions, called=called):
            for other in functions:
                if other != name and re.search(rf"\b{other}\(", functions[name]):
                    add(other)
            called[name] = functions[name]

        for name in dict.fromkeys(s for s in strings if s in functions):
            add(name)
        found[file] = [*filter(None, [head]), *called.values()]
    return found
