"""The source of an op, by component: formula, forward, backward, CPU and GPU bodies, CUDA kernels, and its test cases.

Everything is extracted from the files by their syntax trees, or imported from minicnn.learn.cases. Nothing is copied by hand, so
it is the code that runs.
"""

import ast
import dataclasses
import difflib
import functools
import importlib
import inspect
import pathlib
import pkgutil
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from minicnn import ops
from minicnn.autograd import Function
from minicnn.learn import cases

T = TypeVar("T")
PACKAGE = pathlib.Path(__file__).parents[1]         # the folder minicnn/

# Helpers that `show` lists but does not print: shapes and strides, argument checks, the Winograd transforms.
NOT_FOLLOWED = ("minicnn.ops.layout", "minicnn.ops.checks", "minicnn.ops.conv2d.winograd")


class NotFoundError(Exception):
    """There is no such op or bug; the message lists similar names."""


@dataclasses.dataclass
class Op:
    """An op: its public function, its Function, and the source of the module that defines both."""

    name: str
    function: Callable[..., Any]
    cls: type[Function]
    source: "Source"

    @property
    def formula(self) -> str:
        """The docstring of the op's module."""
        return (self.source.module.__doc__ or "").strip()

    @property
    def inputs(self) -> list[str]:
        """The names of forward's arguments: x, w, b."""
        return list(inspect.signature(self.cls.forward).parameters)[1:]

    def methods(self, name: str) -> list[tuple[type, ast.FunctionDef]]:
        """(class, node) of this method, then of those that it calls by super(), as long as they are in the op's module."""
        found: list[tuple[type, ast.FunctionDef]] = []
        for cls in self.cls.__mro__:
            node = method_of(self.source.definitions.get(cls.__name__), name)
            if node and (not found or f"super().{name}(" in self.source.cut(found[-1][1])):
                found.append((cls, node))
        return found


@dataclasses.dataclass
class OpTest:
    """The test cases of an op, from minicnn.learn.cases."""

    op: type[Function]                  # as the cases run it: dropout there draws the same mask each time
    cases: dict[str, Any]               # name: (constructor arguments, input arrays)
    naive: ast.expr                     # the expression in OPS that is the definition by plain loops
    wrong: list[type[Function]]         # wrong backwards; the docstring says what the mistake is
    source: "Source"                    # of the module that has the cases

    def mistake(self, name: str) -> type[Function]:
        """The wrong backward of this name. NotFoundError lists similar names."""
        return look_up({w.__name__: w for w in self.wrong}, name, "bug")


class Source:
    """The text of an imported module, and its top-level definitions and imports by name."""

    def __init__(self, module: types.ModuleType) -> None:
        self.module = module
        self.path = pathlib.Path(str(module.__file__))
        text = self.path.read_text(encoding="utf-8")
        self.lines, self.tree = text.splitlines(), ast.parse(text)
        self.definitions: dict[str, Any] = {}       # name: FunctionDef, ClassDef, or the Assign that gives the name its value
        self.imports: dict[str, tuple[str, str | None]] = {}        # name: (module, name in it), or (module, None)
        self.bodies: dict[str, tuple[str, ...]] = {}    # name: (CPU body, GPU body), where  name = by_device(CPU body, GPU body)
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
    def relative_path(self) -> str:
        """The path from the folder that the package is in: minicnn/ops/relu.py."""
        return self.path.relative_to(PACKAGE.parent).as_posix()

    def cut(self, node: Any, docstring: bool = True) -> str:
        """The source lines of a node, with comments and decorators, dedented; docstring=False omits a function's docstring."""
        start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        lines = dict(enumerate(self.lines[start - 1:node.end_lineno], start))
        if not docstring and isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            first, *others = node.body
            lines = {i: line for i, line in lines.items() if not first.lineno <= i < others[0].lineno}
        return textwrap.dedent("\n".join(lines.values()))

    def body(self, function: ast.FunctionDef) -> str:
        """The source lines of a function without its signature."""
        return textwrap.dedent("\n".join(self.lines[function.body[0].lineno - 1:function.end_lineno]))


@functools.cache
def source_of(module_name: str) -> Source:
    """The Source of an imported module."""
    return Source(sys.modules[module_name])


def names_in(node: ast.AST) -> list[str]:
    """The names that a node uses, each once, in the order of the text."""
    found = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
    return list(dict.fromkeys(n.id for n in sorted(found, key=lambda n: (n.lineno, n.col_offset))))


def method_of(node: Any, name: str) -> ast.FunctionDef | None:
    """The method of this name that a class (an ast.ClassDef, or None) defines itself, or None."""
    return next((n for n in getattr(node, "body", []) if isinstance(n, ast.FunctionDef) and n.name == name), None)


def is_op_maths(module_name: str) -> bool:
    """Whether a module belongs to the maths of the ops."""
    return module_name.startswith("minicnn.ops.") and module_name not in NOT_FOLLOWED


def dependencies(source: Source, node: ast.AST, follow: Callable[[str], bool] = is_op_maths) -> list[tuple[Source, str]]:
    """The functions and constants that a node uses, directly or indirectly: (source, name), in the order of first use.

    Args:
        source: the Source that the node is in.
        node: a definition or an expression.
        follow: called with a module's name; says whether names imported from it are followed.

    A name with two bodies (see `Source.bodies`) is listed, but its bodies are not searched. Classes are skipped.
    """
    found: dict[tuple[str, str], tuple[Source, str]] = {}

    def visit(source: Source, node: ast.AST) -> None:
        for name in names_in(node):
            origin = source
            if name in source.imports:
                module, original_name = source.imports[name]
                if original_name is None or not follow(module):
                    continue
                origin, name = source_of(module), original_name
            definition = origin.definitions.get(name)
            key = origin.module.__name__, name
            if definition is None or isinstance(definition, ast.ClassDef) or key in found:
                continue
            found[key] = origin, name
            if name not in origin.bodies:
                visit(origin, definition)

    visit(source, node)
    return list(found.values())


# Ops and their test cases by name

def names() -> list[str]:
    """The names of all ops."""
    return list(ops.__all__)


def find(name: str) -> Op:
    """The op of this name. NotFoundError lists similar names."""
    function = look_up({n: getattr(ops, n) for n in names()}, name, "op")
    source = source_of(function.__module__)
    classes = [getattr(source.module, n) for n in names_in(source.definitions[function.__name__]) if n in source.definitions]
    return Op(name, function, next(c for c in classes if isinstance(c, type) and issubclass(c, Function)), source)


def look_up(candidates: Mapping[str, T], name: str, kind: str) -> T:
    """candidates[name]. NotFoundError lists similar names, or all of them."""
    if name in candidates:
        return candidates[name]
    normalized = {n.lower().replace("_", ""): n for n in candidates}
    similar = difflib.get_close_matches(name.lower().replace("_", ""), normalized, n=3, cutoff=0.5)
    raise NotFoundError(f"there is no {kind} {name!r}; " + (f"did you mean {' or '.join(normalized[n] for n in similar)}?" if similar else
                                                            f"the {kind}s are {', '.join(candidates)}"))


def op_test(cls: type[Function]) -> OpTest:
    """The test cases of a Function. NotFoundError if it has none."""
    if cls not in op_tests():
        raise NotFoundError(f"minicnn.learn.cases has no cases for {cls.__name__}")
    return op_tests()[cls]


@functools.cache
def op_tests() -> dict[type[Function], OpTest]:
    """The OpTest of every Function, from the dicts OPS in the modules of minicnn.learn.cases."""
    tests = {}
    for info in pkgutil.iter_modules(cases.__path__):
        module = importlib.import_module(f"{cases.__name__}.{info.name}")
        source = source_of(module.__name__)
        rows = source.definitions["OPS"].value.values           # of the dict, as expressions
        for (cls, (op, op_cases, _, wrong)), row in zip(module.OPS.items(), rows, strict=True):
            tests[cls] = OpTest(op, op_cases, row.elts[2], wrong, source)
    return tests


# CUDA

FUNCTION = re.compile(r'(?:^//[^\n]*\n)*^(?:extern "C" __global__ void|__device__ \w+) (\w+)\([^{]*\)\n\{\n.*?^\}\n', re.M | re.S)


@functools.cache
def kernels_in(file: str) -> tuple[dict[str, str], str]:
    """({name: source} of the functions in minicnn/`file`, the rest of its text)."""
    text = (PACKAGE / file).read_text(encoding="utf-8")
    return {m[1]: m[0].rstrip() for m in FUNCTION.finditer(text)}, re.sub(r"\n{3,}", "\n\n", FUNCTION.sub("", text)).strip()


def kernels_of(nodes: Iterable[ast.AST]) -> dict[str, list[str]]:
    """The CUDA source that these Python functions launch: {file: [head, function, ...]}, a function after those that it calls."""
    strings = [n.value for node in nodes for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    found = {}
    for file in dict.fromkeys(s for s in strings if s.endswith(".cu")):
        functions, head = kernels_in(file)
        called: dict[str, str] = {}

        def add(name: str, functions: dict[str, str] = functions, called: dict[str, str] = called) -> None:
            for other in functions:
                if other != name and re.search(rf"\b{other}\(", functions[name]):
                    add(other)
            called[name] = functions[name]

        for name in dict.fromkeys(s for s in strings if s in functions):
            add(name)
        found[file] = [*filter(None, [head]), *called.values()]
    return found
