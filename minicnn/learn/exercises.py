"""Exercises: an op with an empty backward to write, or with a bug in its backward to find.

An exercise is a Python file with the op's class, taken from its source, and the code that the class needs. minicnn.learn.grading
grades it; `minicnn exercises` writes it: see minicnn.cli.exercises.
"""

import ast
import inspect
import os
import re
import textwrap
from collections.abc import Iterable

from minicnn.autograd import Function
from minicnn.backend import random
from minicnn.learn import op_source

CASES = "minicnn.learn.cases"
ANY = "?"                                               # a bug to be chosen by the seed
NOT_HANDED_OUT = ("backward", "multiply_adds")          # methods that a template does not show


def contents() -> None:
    """Print the list of exercises, one line for each op."""
    width = max(map(len, op_source.names()))
    for name in op_source.names():
        test = op_source.op_test(op_source.find(name).cls)
        print(f"{name.ljust(width)}  {len(test.cases):2} cases, {len(test.wrong):2} bugs")
    print("\nminicnn exercises OP --out FILE writes an exercise.")


def hand_out(op: op_source.Op, bug: str | None, seed: int, out: str | os.PathLike[str] | None) -> None:
    """Print an exercise, or write it to a new file.

    Args:
        op: the op that the exercise is about.
        bug: None: backward is to be written. The name of a wrong backward, or ANY: backward has this bug, which is to be found.
        seed: chooses the bug if `bug` is ANY.
        out: the file, which must not exist yet (else FileExistsError); None prints the exercise.
    """
    if bug is None:
        text = template(op, out)
    else:
        test = op_source.op_test(op.cls)
        i = random.generator(random.CHECKS, seed=seed).integers(len(test.wrong))
        text = inject_bug(op, test.wrong[i] if bug == ANY else test.mistake(bug), out)
    if out is None:
        print(text, end="")
        return
    try:
        with open(out, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise FileExistsError(f"{out} exists already and is not overwritten; choose another name for --out") from None
    print(f"wrote {out}; grade it with:  minicnn exercises {op.name} --grade {out}")


def template(op: op_source.Op, out: str | os.PathLike[str] | None = None) -> str:
    """The exercise to write backward: the op's class with a stub in its place. `out` is the file name for the instructions."""
    source = op.source
    cls = source.definitions[op.cls.__name__]
    head = "\n".join(source.lines[cls.lineno - 1:cls.body[0].lineno - 1])
    body = "\n\n".join(textwrap.indent(source.cut(node), "    ") for node in cls.body if getattr(node, "name", "") not in NOT_HANDED_OUT)
    text = f"{head}\n{body}\n\n{textwrap.indent(stub(op), '    ')}\n"
    task = "Write its backward: given gy, the gradient of the loss with respect to y, return the gradient with respect to each input."
    return page(op, task, import_lines(source, [ast.parse(text)], op), text, out)


def stub(op: op_source.Op) -> str:
    """A backward that raises NotImplementedError, with comments on its arguments and what it must return."""
    _, node = op.methods("backward")[0]
    head = textwrap.dedent("\n".join(op.source.lines[node.lineno - 1:node.body[0].lineno - 1]))
    names = ", ".join(a.arg for a in node.args.args[2:])
    saved = f"Saved by forward: {names}." if names else "Forward saved nothing; self.shapes are the shapes of its inputs."
    gradients = ", ".join(f"dL/d{name}" for name in op.inputs)
    if inspect.signature(op.cls.forward).parameters[op.inputs[-1]].default is None:
        gradients += f" (without the last if no {op.inputs[-1]} was given)"
    shapes = "each with the shape of its input" if len(op.inputs) > 1 else f"with the shape of {op.inputs[0]}"
    return head + textwrap.indent(f"""
# gy has the shape of y, the output of forward. {saved}
# Return {gradients}, {shapes}.
raise NotImplementedError("write the backward of {op.name} here")""", "    ")


def inject_bug(op: op_source.Op, mistake: type[Function], out: str | os.PathLike[str] | None = None) -> str:
    """The exercise to find a bug: the op with the backward of `mistake`, one of its wrong backwards.

    The classes between the mistake and the op are merged into one, so that neither names nor docstrings give the bug away.
    """
    source = op_source.op_test(op.cls).source
    common = op_source.source_of(CASES)                 # has base classes of several wrong backwards, such as Remembers
    methods: dict[str, str] = {}
    bases = []
    for cls in reversed(mistake.__mro__[:mistake.__mro__.index(op.cls)]):
        if cls.__name__ in common.definitions:
            bases.append(cls.__name__)
            continue
        for node in source.definitions[cls.__name__].body:
            if isinstance(node, ast.FunctionDef) and node.name != "affects":
                text = source.cut(node, docstring=False)
                if node.name in methods and f"super().{node.name}(" in text:
                    raise RuntimeError(f"{mistake.__name__}.{node.name} and the method that it calls by super() cannot be merged")
                methods[node.name] = text
    body = textwrap.indent("\n\n".join(methods.values()), "    ")
    text = f"class {op.cls.__name__}({', '.join([*bases, 'Reference'])}):\n{body}\n"
    text = re.sub(r"\bwrong(?=\b|_)", "some", text)     # a method named wrong_gx would give the bug away
    tree = ast.parse(text)
    used = [(s, s.definitions[name]) for s, name in op_source.dependencies(source, tree, follow=lambda module: module == CASES)]
    used.sort(key=lambda item: isinstance(item[1], ast.Assign))         # functions before the constants that call them
    pieces = [common.cut(common.definitions[name]) for name in bases] + [s.cut(node, docstring=False) for s, node in used]
    imports = import_lines(source, [tree, *(node for _, node in used)], op)
    imports.append(f"from {op.source.module.__name__} import {op.cls.__name__} as Reference")
    task = ("Its backward has a bug: find it and fix it. (Reference is minicnn's own op: forward, and all that super() calls, are correct."
            + (" self.arrays are the inputs.)" if bases else ")"))
    return page(op, task, imports, "\n\n\n".join([*pieces, text]), out)


def page(op: op_source.Op, task: str, imports: list[str], text: str, out: str | os.PathLike[str] | None) -> str:
    """The whole file: a docstring with the formula of forward, the task and the command that grades it; imports; the code."""
    modules = sorted(line for line in imports if line.startswith("import"))
    names = sorted(line for line in imports if not line.startswith("import"))
    command = f"    minicnn exercises {op.name} --grade {out or 'FILE'}"
    intro = "\n\n".join(["Exercise: " + op.name, formula_of_forward(op), "\n".join(textwrap.wrap(task, 110)), command])
    return f'"""{intro}\n"""\n\n' + "\n".join(modules) + "\n\n" + "\n".join(names) + f"\n\n\n{text}"


def formula_of_forward(op: op_source.Op) -> str:
    """The formulas of forward in the docstring of the op's module. The dL/d... formulas and the prose would give the solution away."""
    first, *rest = op.formula.split("\n")
    if "dL/d" not in op.formula:                    # a module whose formulas are all about backward
        return (op.function.__doc__ or "").strip().partition("\n")[0]
    formulas = [line.partition("dL/d")[0].rstrip() for line in rest if line.startswith("    ")]
    return "\n\n".join([first, "\n".join(line for line in formulas if line)])


def import_lines(source: op_source.Source, trees: Iterable[ast.AST], op: op_source.Op) -> list[str]:
    """The import statements that this code needs: as `source` has them, or from the op's module."""
    modules = ["import numpy as np"]
    names_from: dict[str, list[str]] = {}
    for name in sorted({name for tree in trees for name in op_source.names_in(tree)} - {"np"}):
        module, original_name = source.imports.get(name, (None, None))
        if source is op.source and name in source.definitions and name != op.cls.__name__:
            names_from.setdefault(source.module.__name__, []).append(name)
        elif module and original_name is None:
            modules.append(f"import {module}" + (f" as {name}" if name != module else ""))
        elif module and original_name and module != CASES:
            names_from.setdefault(module, []).append(original_name if original_name == name else f"{original_name} as {name}")
    return modules + [f"from {module} import {', '.join(names)}" for module, names in names_from.items()]
