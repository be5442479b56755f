"""`minicnn exercises`: write an op's backward yourself, or find the mistake in one, and have it graded.

    minicnn exercises                                       what there is
    minicnn exercises linear --out mine.py                  the op without its backward: write it
    minicnn exercises linear --mistake --out mine.py        with a mistake in its backward: find it (another --seed, another mistake)
    minicnn exercises linear --grade mine.py                is it right now? if not, where, and what may be the matter

Graded is by the gradient check, on all cases of the op's test: backward is compared with finite differences of forward.
Your file is only read; it runs in a process of its own, which may take --seconds.

Exit code 0: handed out, or right. 1: wrong. 2: the file (or the command) cannot be used; the message says why, and in which line.
"""

import argparse
import ast
import contextlib
import faulthandler
import inspect
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap
import traceback

import numpy as np

from minicnn import random
from minicnn.gradcheck import GradcheckError, gradcheck
from minicnn.study import anatomy
from minicnn.tensor import Tensor

SECONDS = 60
SAME = 1e-9             # two gradients, as fractions of the largest entry
ANY = "?"


class Unusable(Exception):
    """The learner's file cannot be graded; the message says why and where."""


def main(argv=None):
    parser = argparse.ArgumentParser(prog="minicnn exercises", description=__doc__.partition("\n")[0],
                                     epilog="Exit code 0: handed out, or right; 1: wrong; 2: a file or a command that cannot be used.")
    parser.add_argument("op", nargs="?", metavar="OP", help="which one; without it, what there is")
    parser.add_argument("--mistake", nargs="?", const=ANY, metavar="NAME", help="hand it out with a mistake in it: this one, or any")
    parser.add_argument("--seed", type=int, default=0, help="which mistake any is (default 0)")
    parser.add_argument("--out", metavar="FILE", help="write the exercise here; without it, on the terminal")
    parser.add_argument("--grade", metavar="FILE", help="grade this file")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"how long grading may take (default {SECONDS})")
    args = parser.parse_args(argv)
    if args.grade and (args.out or args.mistake):
        parser.error("--grade goes with neither --out nor --mistake")
    if args.op is None and (args.grade or args.out or args.mistake):
        parser.error("an OP is wanted: linear, for instance")
    if args.seconds <= 0:
        parser.error("--seconds is more than 0")
    try:
        if args.op is None:
            contents()
            return 0
        op = anatomy.find(args.op)
        if args.grade:
            code, text = grade_apart(op, args.grade, args.seconds)
            print(text, flush=True)
            return code
        hand_out(op, args.mistake, args.seed, args.out)
        return 0
    except (anatomy.NotThere, Unusable, OSError) as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        return 2


def contents():
    wide = max(map(len, anatomy.names()))
    for name in anatomy.names():
        definition = anatomy.definition_of(anatomy.find(name).cls)
        print(f"{name.ljust(wide)}  {len(definition.cases):2} cases, {len(definition.wrong):2} mistakes")
    print("\nminicnn exercises OP --out FILE hands one out.")


# Handing out

def hand_out(op, mistake, seed, out):
    """Print the exercise, or write it to a file that is not there yet."""
    definition = anatomy.definition_of(op.cls) if mistake else None
    if definition is None:
        text = blank(op, out)
    elif mistake == ANY:
        text = planted(op, definition.wrong[random.generator(random.CHECKS, seed=seed).integers(len(definition.wrong))], out)
    else:
        text = planted(op, definition.mistake(mistake), out)
    if out is None:
        print(text, end="")
        return
    try:
        with open(out, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Unusable(f"{out} is there already, and stays as it is; choose another name for --out") from None
    print(f"see {out}; when it is done:  minicnn exercises {op.name} --grade {out}")


def blank(op, out=None):
    """The op's class without the body of its backward."""
    source = op.source
    cls = source.definitions[op.cls.__name__]
    head = "\n".join(source.lines[cls.lineno - 1:cls.body[0].lineno - 1])
    body = "\n\n".join(textwrap.indent(source.cut(node), "    ") for node in cls.body if getattr(node, "name", "") not in HANDED_OUT_LATER)
    text = f"{head}\n{body}\n\n{textwrap.indent(stub(op), '    ')}\n"
    task = "Write its backward: from gy, how the loss changes with y, to how it changes with each input."
    return page(op, task, imports(source, ast.parse(text), op), text, out)


HANDED_OUT_LATER = ("backward", "multiply_adds")


def stub(op):
    """Backward as it is handed out."""
    _, node = op.methods("backward")[0]
    head = textwrap.dedent("\n".join(op.source.lines[node.lineno - 1:node.body[0].lineno - 1]))
    saved = ", ".join(a.arg for a in node.args.args[2:])
    saved = f"Saved by forward: {saved}." if saved else "Forward saved nothing; self.shapes are the shapes of its inputs."
    gradients = ", ".join(f"dL/d{name}" for name in op.inputs)
    if inspect.signature(op.cls.forward).parameters[op.inputs[-1]].default is None:
        gradients += f" (without the last if no {op.inputs[-1]} was given)"
    shapes = "each shaped like its input" if len(op.inputs) > 1 else f"shaped like {op.inputs[0]}"
    return head + textwrap.indent(f"""
# gy is shaped like y, the answer of forward. {saved}
# Return {gradients}, {shapes}.
raise NotImplementedError("backward of {op.name} is still to be written")""", "    ")


def planted(op, mistake, out=None):
    """The op with a mistaken backward: the test's classes for it, put together into one that does not tell which mistake it is."""
    definition = anatomy.definition_of(op.cls)
    source, methods, bases = definition.source, {}, []
    check = anatomy.source_of("check")
    for cls in reversed(mistake.__mro__[:mistake.__mro__.index(op.cls)]):
        if cls.__name__ in check.definitions:
            bases.append(cls.__name__)              # Remembers
            continue
        for node in source.definitions[cls.__name__].body:
            if isinstance(node, ast.FunctionDef) and node.name != "shows":
                text = source.cut(node, docstring=False)
                if node.name in methods and f"super().{node.name}(" in text:
                    raise RuntimeError(f"{mistake.__name__}.{node.name} and the one that it calls by super() do not fit into one class")
                methods[node.name] = text
    head = f"class {op.cls.__name__}({', '.join([*bases, 'AsItShouldBe'])}):"
    text = f"{head}\n{textwrap.indent(f'{chr(10) * 2}'.join(methods.values()), '    ')}\n"
    text = re.sub(r"\bwrong(?=\b|_)", "some", text)                 # (names are not to tell where it is)
    pieces = [check.cut(check.definitions[name]) for name in bases]
    tree = ast.parse(text)
    there = [(s, name) for s, name in anatomy.used(source, tree, follow=lambda module: module == "check")]
    there.sort(key=lambda found: isinstance(found[0].definitions[found[1]], ast.Assign))         # functions before values that call them
    pieces += [s.cut(s.definitions[name], docstring=False) for s, name in there]
    lines = imports(source, [tree, *(s.definitions[name] for s, name in there)], op)
    lines.append(f"from {op.source.module.__name__} import {op.cls.__name__} as AsItShouldBe")
    task = ("Its backward has a mistake in it: find it, and mend it. (Forward, and what super() does, are those of minicnn, and right."
            + (" self.arrays are the inputs.)" if bases else ")"))
    return page(op, task, lines, "\n\n\n".join([*pieces, text]), out)


def page(op, task, lines, text, out):
    """The file as a whole."""
    plain, own = [line for line in lines if line.startswith("import")], [line for line in lines if not line.startswith("import")]
    grade = f"minicnn exercises {op.name} --grade {out or 'FILE'}"
    intro = "\n\n".join(["Exercise: " + op.name, formula_of_forward(op), "\n".join(textwrap.wrap(task, 110)), f"    {grade}"])
    return f'"""{intro}\n"""\n\n' + "\n".join(sorted(plain)) + "\n\n" + "\n".join(sorted(own)) + f"\n\n\n{text}"


def formula_of_forward(op):
    """What the module's docstring says about forward: its formulas without dL/d..., and none of the prose, which tells too much."""
    first, *rest = op.formula.split("\n")
    if "dL/d" not in op.formula:                    # a module whose formulas are all about backward
        return (op.function.__doc__ or "").strip().partition("\n")[0]
    formulas = [line.partition("dL/d")[0].rstrip() for line in rest if line.startswith("    ")]
    return "\n\n".join([first, "\n".join(line for line in formulas if line)])


def imports(source, trees, op):
    """The lines that import what these use: as `source` imports it, or from the op's module."""
    used = {name for tree in (trees if isinstance(trees, list) else [trees]) for name in anatomy.names_in(tree)} | {"np"}
    wanted: dict[str, list[str]] = {}
    plain = ["import numpy as np"]
    for name in sorted(used):
        module, there = source.imports.get(name, (None, None))
        if source is op.source and name in source.definitions and name != op.cls.__name__:
            wanted.setdefault(source.module.__name__, []).append(name)
        elif module and there is None and name != "np":
            plain.append(f"import {module}" + (f" as {name}" if name != module else ""))
        elif module and module != "check" and there:
            wanted.setdefault(module, []).append(there if there == name else f"{there} as {name}")
    return plain + [f"from {module} import {', '.join(found)}" for module, found in wanted.items()]


# Grading

def grade_apart(op, file, seconds=SECONDS):
    """(exit code, text) of `grade`, found in a process of its own, which is ended after so many seconds."""
    path = pathlib.Path(file).resolve()
    if not path.is_file():
        raise Unusable(f"there is no file {file}")
    anatomy.definition_of(op.cls)                   # if the tests are not here, it is said at once
    with tempfile.TemporaryDirectory() as folder:
        result, stuck = pathlib.Path(folder, "result"), pathlib.Path(folder, "stuck")
        start = f"import sys; sys.path[:] = {sys.path!r}; from minicnn.study import exercises; exercises.grade_here(*sys.argv[1:])"
        try:
            done = subprocess.run([sys.executable, "-c", start, op.name, str(path), str(seconds), str(result), str(stuck)],
                                  stdin=subprocess.DEVNULL, timeout=seconds + 30)
            ended = f"its process ended by itself (exit code {done.returncode}); does it leave Python?"
        except subprocess.TimeoutExpired:
            ended = f"not done after {seconds:g} seconds"
        if result.exists():
            verdict, text = json.loads(result.read_text(encoding="utf-8"))
            return verdict, text
        where = re.search(rf'File "{re.escape(str(path))}", line (\d+)', stuck.read_text(encoding="utf-8")) if stuck.exists() else None
        if where:
            ended = f"{at(path, int(where[1]))}: still there after {seconds:g} seconds; an endless loop?"
        elif stuck.exists() and stuck.stat().st_size:
            ended = f"not done after {seconds:g} seconds; if it is right and slow, give it more by --seconds"
        raise Unusable(ended if where else f"{file}: {ended}")


def grade_here(name, file, seconds, result, stuck):
    """What the process does: after so many seconds it writes down where it is, and ends."""
    sys.dont_write_bytecode = True
    with open(stuck, "w", encoding="utf-8") as place:
        faulthandler.dump_traceback_later(float(seconds), exit=True, file=place)
        try:
            verdict = grade(anatomy.find(name), file)
        except (anatomy.NotThere, Unusable) as error:
            verdict = 2, f"error: {error}"
        faulthandler.cancel_dump_traceback_later()
    half = pathlib.Path(result + ".half")
    half.write_text(json.dumps(verdict), encoding="utf-8")
    half.replace(result)


def grade(op, file, cases=None):
    """(exit code, text): whether the backward in this file is right in all cases (or in these), and if not, what it is. Runs the file."""
    definition = anatomy.definition_of(op.cls)
    cls, answers = load(op, file), definition.op
    cases = {name: definition.cases[name] for name in cases or definition.cases}
    wide, lines, wrong, suspects = max(map(len, cases)), [], 0, Suspects(definition.wrong)
    for name, (args, inputs) in cases.items():
        def fn(*tensors, args=args):
            return made(cls, answers, op, args)(*tensors)

        right = run(lambda args=args: answers(*args), inputs, None)
        got = run(lambda args=args: made(cls, answers, op, args), inputs, file, op, right[0])
        try:
            with watched(file, op):
                report = gradcheck(fn, inputs)
            lines.append(f"{name.ljust(wide)}  right  ({report.compared} comparisons)")
            continue
        except GradcheckError as error:
            wrong += 1
            worst = error.report.worst if error.report else None
            reason = str(error)
        bad = [i for i, (g, r) in enumerate(zip(got[1], right[1], strict=True)) if not alike(g, r)]
        suspects.see(args, inputs, got[1], right[1])
        indent, label = " " * (wide + 2), f"{name.ljust(wide)}  wrong  "
        if worst is None:
            lines.append(label + reason)
            continue
        _, number, where = worst.where.split(" ", 2)            # "input 1 at [0, 2]"
        which = int(number)
        lines.append(f"{label}{told(op, which, where, worst.numeric, worst.analytic)}")
        for i in bad:
            if i != which:
                lines.append(f"{indent}wrong  {told(op, i, *worst_entry(got[1][i], right[1][i]))}")
        fine = [f"dL/d{op.inputs[i]}" for i in range(len(inputs)) if i not in bad and i != which]
        if fine:
            lines.append(f"{indent}right  {', '.join(fine)}")
    for mistake, found in suspects.found().items():
        those = " and ".join(f"dL/d{op.inputs[i]}" for i in found)
        lines.append(f"hint: {those} {'is' if len(found) == 1 else 'are'} what one gets by {mistake.__name__}: {mistake.__doc__.strip()}")
    lines.append(f"wrong in {wrong} of {len(cases)} cases" if wrong else f"right in all {len(cases)} cases: this is the derivative")
    return int(wrong > 0), "\n".join(lines)


def told(op, i, where, expected, got):
    ratio = f"{got / expected:.4g}" if expected else "-"
    where = re.sub(r", output (\d+)", r" for a gy that is 1 at output \1 and else 0", where)
    return f"dL/d{op.inputs[i]} {where}: expected {expected:.6g}, got {got:.6g} (ratio {ratio})"


def worst_entry(got, right):
    error = np.abs(got - right)
    at = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), right.shape)
    return f"at [{', '.join(map(str, at))}]", float(right[at]), float(got[at])


def alike(a, b):
    return bool((np.abs(a - b) <= SAME * np.abs(b).max(initial=1e-300)).all())


class Suspects:
    """Which listed mistakes give the learner's numbers in every case where they make a difference, input by input."""

    def __init__(self, wrong):
        self.wrong, self.fits = wrong, {}

    def see(self, args, inputs, got, right):
        for k, mistake in enumerate(self.wrong):
            if anatomy.shows(mistake, args, inputs):
                gradients = run(lambda mistake=mistake: mistake(*args), inputs, None)[1]
                for i, (g, m, r) in enumerate(zip(got, gradients, right, strict=True)):
                    if not alike(m, r):
                        self.fits[i, k] = self.fits.get((i, k), True) and alike(g, m)

    def found(self):
        """{mistake: the inputs whose gradients it explains}."""
        fit = sorted(place for place, fits in self.fits.items() if fits)
        return {self.wrong[k]: [i for i, other in fit if other == k] for _, k in fit}


def load(op, file):
    """The class in the learner's file, which is run for it."""
    name = op.cls.__name__
    try:
        text = pathlib.Path(file).read_bytes()
        tree = ast.parse(text, str(file))
    except OSError as error:
        raise Unusable(f"{file}: cannot be read ({error.strerror})") from None
    except (SyntaxError, ValueError) as error:
        raise Unusable(f"{at(file, getattr(error, 'lineno', None))}: {type(error).__name__}: {getattr(error, 'msg', error)}") from None
    known: dict = {"__name__": "exercise", "__file__": str(file)}
    with watched(file):
        exec(compile(tree, str(file), "exec"), known)
    cls = known.get(name)
    if not isinstance(cls, type) or not issubclass(cls, anatomy.Function):
        raise Unusable(f"{file}: there is no class {name}(Function) in it; is it an exercise for another op?")
    if "backward" not in vars(cls):
        raise Unusable(f"{file}: its class {name} has no backward of its own")
    return cls


def made(cls, answers, op, args):
    """An instance of the learner's class. Where the test makes the op in a way of its own (one mask for dropout), it is set up so."""
    if answers is op.cls:
        return cls(*args)
    instance = cls.__new__(cls)
    instance.__dict__.update(answers(*args).__dict__)
    return instance


def run(make, inputs, file, op=None, expected=None):
    """(answer, gradients) for a fixed cotangent. Of the learner's file, what it returns is looked at closely."""
    tensors = [Tensor(np.array(a), requires_grad=True) for a in inputs]
    with watched(file):
        function = make()
        y = function(*tensors)
        if expected is not None and (y.shape != expected.shape or not alike(y.data, expected)):
            raise Unusable(f"{file}: forward no longer gives the answer of {op.name}; only backward is to be changed")
        rng = random.generator(random.CHECKS, 1, seed=0)
        gy = np.asarray(rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1.0, 1.0], y.shape))
        given = gy.copy(), [t.data.copy() for t in tensors], [np.array(s) for s in function.saved]
    with watched(file, op):
        gradients = function.backward(gy, *function.saved)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    if file is None:
        return y.data, [np.asarray(g) for g in gradients]
    names = op.inputs
    line = last_return(file, op)
    if len(gradients) != len(inputs):
        raise Unusable(f"{at(file, line)}: backward returned {many(len(gradients), 'gradient')} for {many(len(inputs), 'input')}, "
                       f"{', '.join(names[:len(inputs)])}; one is wanted for each, in this order, with commas between")
    for name, g, x in zip(names, gradients, inputs, strict=False):
        if not isinstance(g, (np.ndarray, np.generic)):
            raise Unusable(f"{at(file, line)}: dL/d{name} is {type(g).__name__}, where an array of shape {x.shape} is wanted")
        if g.shape != x.shape:
            raise Unusable(f"{at(file, line)}: dL/d{name} has shape {g.shape}, but {name} has shape {x.shape}; "
                           "a gradient is shaped like its input")
        if g.dtype != x.dtype:
            raise Unusable(f"{at(file, line)}: dL/d{name} is {g.dtype}, but {name} is {x.dtype}; a gradient has the dtype of its input")
    for what, now, before in [("gy", [gy], [given[0]]), ("an input", [t.data for t in tensors], given[1]),
                              ("what forward saved", function.saved, given[2])]:
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(now, before, strict=True)):
            raise Unusable(f"{at(file, line)}: backward changed {what}, which others read too; make a new array instead of writing into it")
    return y.data, [np.asarray(g) for g in gradients]


def many(n, thing):
    return f"{n} {thing}" + ("s" if n != 1 else "")


@contextlib.contextmanager
def watched(file, op=None):
    """An error inside becomes Unusable, with the line of the learner's file; without a file nothing is caught."""
    try:
        yield
    except (Unusable, GradcheckError):
        raise
    except BaseException as error:
        if file is None or isinstance(error, (KeyboardInterrupt, anatomy.NotThere)):
            raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = lines[-1] if lines else last_return(file, op) if op else None
        raise Unusable(f"{at(file, line)}: {type(error).__name__}: {' '.join(str(error).split())}") from error


def last_return(file, op):
    """The line of the last return of the learner's backward, or of its head."""
    tree = ast.parse(pathlib.Path(file).read_bytes())
    cls = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == op.cls.__name__), None)
    backward = anatomy.method_of(cls, "backward")
    return max((n.lineno for n in ast.walk(backward) if isinstance(n, ast.Return)), default=backward.lineno) if backward else None


def at(file, line):
    """The file, the line, and what it says."""
    if line is None:
        return str(file)
    lines = pathlib.Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    return f"{file}, line {line}" + (f", `{lines[line - 1].strip()}`" if 0 < line <= len(lines) else "")
