"""Grading: is the backward in a learner's file the derivative of the op's forward?

The op's test cases are gradient-checked with the learner's class. Wrong gradients are compared with those of the op's known
mistakes, and a mistake that explains them is named as a hint. The file is executed, by the command in a process of its own.
"""

import ast
import contextlib
import faulthandler
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from minicnn.autograd import Function
from minicnn.checkpoint import atomic_write
from minicnn.gradcheck import GradcheckError, gradcheck
from minicnn.learn import op_source
from minicnn.learn.cases import affects, cotangent
from minicnn.tensor import Tensor
from minicnn.text import pluralize

TIMEOUT = 60            # seconds that grading may take
TOLERANCE = 1e-9        # between two gradients, as a fraction of the largest entry

StrPath = str | os.PathLike[str]


class SubmissionError(Exception):
    """The learner's file cannot be graded; the message says why, and in which line."""


# In a process of its own

def grade_in_subprocess(op: op_source.Op, file: StrPath, timeout: float = TIMEOUT) -> tuple[int, str]:
    """Run `grade` in another process, which is killed after `timeout` seconds. Returns (exit code, text)."""
    path = pathlib.Path(file).resolve()
    if not path.is_file():
        raise SubmissionError(f"there is no file {file}")
    # The child imports from where this process does. With -m, it would also import from the current folder, where a learner's
    # random.py would hide Python's.
    program = f"import sys; sys.path[:] = {sys.path!r}; from minicnn.learn import grading; grading.grade_to_file(*sys.argv[1:])"
    with tempfile.TemporaryDirectory() as folder:
        result, stack = pathlib.Path(folder, "result"), pathlib.Path(folder, "stack")
        stack.touch()
        try:
            done = subprocess.run([sys.executable, "-c", program, op.name, str(path), str(timeout), str(result), str(stack)],
                                  stdin=subprocess.DEVNULL, timeout=timeout + 30)
            reason = f"its process ended before it was graded (exit code {done.returncode}); does it call os._exit?"
        except subprocess.TimeoutExpired:
            reason = f"not graded within {timeout:g} seconds"
        if result.exists():
            code, text = json.loads(result.read_text(encoding="utf-8"))
            return code, text
        interrupted = stack.read_text(encoding="utf-8")         # the stack at the timeout, if it was reached
    line = re.search(rf'File "{re.escape(str(path))}", line (\d+)', interrupted)
    if line:
        raise SubmissionError(f"{format_location(path, int(line[1]))}: still running after {timeout:g} seconds; an endless loop?")
    if interrupted:
        reason = f"not graded within {timeout:g} seconds; if it is only slow, allow more with --timeout"
    raise SubmissionError(f"{file}: {reason}")


def grade_to_file(name: str, file: str, timeout: str, result: str, stack: str) -> None:
    """The child process: writes (exit code, text) to `result` as JSON; after the timeout, its stack to `stack`, and exits."""
    sys.dont_write_bytecode = True
    with open(stack, "w", encoding="utf-8") as stack_file:
        faulthandler.dump_traceback_later(float(timeout), exit=True, file=stack_file)
        try:
            verdict = grade(op_source.find(name), file)
        except (op_source.NotFoundError, SubmissionError) as error:
            verdict = 2, f"error: {error}"
        faulthandler.cancel_dump_traceback_later()
    with atomic_write(result) as result_file:
        result_file.write(json.dumps(verdict).encode())


# The verdict

def grade(op: op_source.Op, file: StrPath, cases: Iterable[str] | None = None) -> tuple[int, str]:
    """Gradient-check the learner's backward. Executes the file in this process.

    Args:
        op: the op that the exercise is about.
        file: the learner's file.
        cases: names of test cases; None: all of the op's.

    Returns (0, text) if backward is correct in all cases, (1, text) if not: where it is wrong, by which factor, and which known
    mistakes explain it. Raises SubmissionError if the file cannot be graded.
    """
    test, cls = op_source.op_test(op.cls), load(op, file)
    names = list(test.cases if cases is None else cases)
    width = max(map(len, names))
    matcher, lines, num_wrong = MistakeMatcher(test.wrong), [], 0
    for name in names:
        args, inputs = test.cases[name]
        reference = run(functools.partial(test.op, *args), inputs)
        make = functools.partial(instantiate, cls, test.op, op, args)
        submitted = run_submission(make, inputs, file, op, reference[0])
        try:
            with report_errors(file, op):
                report = gradcheck(lambda *tensors, make=make: make()(*tensors), inputs)
            lines.append(f"{name.ljust(width)}  correct  ({report.compared} comparisons)")
            continue
        except GradcheckError as failure:
            error = failure
        num_wrong += 1
        matcher.add(args, inputs, submitted[1], reference[1])
        first, *others = describe_failure(op, error, submitted[1], reference[1])
        lines += [f"{name.ljust(width)}  {first}", *(" " * (width + 2) + line for line in others)]
    for mistake, found in matcher.matches().items():
        gradients = " and ".join(f"dL/d{op.inputs[i]}" for i in found)
        lines.append(f"hint: {gradients} {'matches' if len(found) == 1 else 'match'} the mistake {mistake.__name__}: "
                     f"{(mistake.__doc__ or '').strip()}")
    if num_wrong:
        lines.append(f"wrong in {num_wrong} of {len(names)} cases")
    else:
        lines.append(f"correct in all {len(names)} cases: this is the derivative")
    return int(num_wrong > 0), "\n".join(lines)


def describe_failure(op: op_source.Op, error: GradcheckError, submitted: list[Any], reference: list[Any]) -> list[str]:
    """One line for each wrong gradient, that of gradcheck's worst entry first, and one for all correct ones."""
    if error.report is None:
        return [f"wrong    {error}"]
    worst = error.report.worst
    _, number, where = worst.where.split(" ", 2)            # "input 1 at [0, 2], output 3"
    first = int(number)
    wrong = [i for i, (g, r) in enumerate(zip(submitted, reference, strict=True)) if i != first and not allclose(g, r)]
    correct = [f"dL/d{op.inputs[i]}" for i in range(len(reference)) if i != first and i not in wrong]
    return [f"wrong    {format_mismatch(op, first, where, worst.numeric, worst.analytic)}",
            *(f"wrong    {format_mismatch(op, i, *worst_entry(submitted[i], reference[i]))}" for i in wrong),
            *([f"correct  {', '.join(correct)}"] if correct else [])]


def format_mismatch(op: op_source.Op, i: int, where: str, expected: float, got: float) -> str:
    ratio = f"{got / expected:.4g}" if expected else "-"
    where = re.sub(r", output (\d+)", r" where gy is 1 at output \1 and 0 elsewhere", where)
    return f"dL/d{op.inputs[i]} {where}: expected {expected:.6g}, got {got:.6g} (ratio {ratio})"


def worst_entry(got: Any, expected: Any) -> tuple[str, float, float]:
    """(index as text, expected, got) of the entry with the largest error; NaN is larger than all."""
    error = np.abs(got - expected)
    at = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), expected.shape)
    return f"at [{', '.join(map(str, at))}]", float(expected[at]), float(got[at])


def allclose(a: Any, b: Any) -> bool:
    """Whether all entries differ by at most TOLERANCE of the largest entry of b; False for NaN."""
    return bool((np.abs(a - b) <= TOLERANCE * np.abs(b).max(initial=1e-300)).all())


class MistakeMatcher:
    """Finds the known mistakes whose gradients equal the learner's in all cases that the mistake affects, input by input.

    Args:
        wrong: the wrong backwards of the op.
    """

    def __init__(self, wrong: list[type[Function]]) -> None:
        self.wrong = wrong
        self.fits: dict[tuple[int, int], bool] = {}         # (input, mistake): whether all cases so far match

    def add(self, args: tuple[Any, ...], inputs: list[Any], submitted: list[Any], reference: list[Any]) -> None:
        """Compare the learner's gradients for one case, given the correct ones."""
        for k, mistake in enumerate(self.wrong):
            if affects(mistake, args, inputs):
                gradients = run(functools.partial(mistake, *args), inputs)[1]
                for i, (got, mistaken, correct) in enumerate(zip(submitted, gradients, reference, strict=True)):
                    if not allclose(mistaken, correct):
                        self.fits[i, k] = self.fits.get((i, k), True) and allclose(got, mistaken)

    def matches(self) -> dict[type[Function], list[int]]:
        """{mistake: the inputs whose gradients it explains}."""
        found: dict[type[Function], list[int]] = {}
        for i, k in sorted(pair for pair, fits in self.fits.items() if fits):
            found.setdefault(self.wrong[k], []).append(i)
        return found


# The learner's class

def load(op: op_source.Op, file: StrPath) -> type[Function]:
    """The class for this op in the learner's file, which is executed."""
    name = op.cls.__name__
    try:
        tree = ast.parse(pathlib.Path(file).read_bytes(), str(file))
    except OSError as error:
        raise SubmissionError(f"{file}: cannot be read ({error.strerror})") from None
    except (SyntaxError, ValueError) as error:
        where = format_location(file, getattr(error, "lineno", None))
        raise SubmissionError(f"{where}: {type(error).__name__}: {getattr(error, 'msg', error)}") from None
    namespace: dict[str, Any] = {"__name__": "exercise", "__file__": str(file)}
    with report_errors(file):
        exec(compile(tree, str(file), "exec"), namespace)
    cls = namespace.get(name)
    if not isinstance(cls, type) or not issubclass(cls, Function):
        raise SubmissionError(f"{file}: it has no class {name}(Function); is it an exercise for another op?")
    if "backward" not in vars(cls):
        raise SubmissionError(f"{file}: its class {name} does not define backward")
    return cls


def instantiate(cls: type[Function], as_run: type[Function], op: op_source.Op, args: tuple[Any, ...]) -> Function:
    """An instance of the learner's class, with the attributes that the cases give theirs (dropout: the same mask each time)."""
    if as_run is op.cls:
        return cls(*args)
    instance = cls.__new__(cls)
    instance.__dict__.update(as_run(*args).__dict__)
    return instance


def run(make: Callable[[], Function], inputs: list[Any]) -> tuple[Any, list[Any]]:
    """(output, gradients) of the Function that `make` returns, for a fixed cotangent."""
    function = make()
    y = function(*(Tensor(np.array(a), requires_grad=True) for a in inputs))
    gradients = function.backward(cotangent(y.shape), *(function.saved or ()))
    return y.data, [np.asarray(g) for g in (gradients if isinstance(gradients, tuple) else (gradients,))]


def run_submission(make: Callable[[], Function], inputs: list[Any], file: StrPath, op: op_source.Op,
                   expected: Any) -> tuple[Any, list[Any]]:
    """`run` for the learner's class: SubmissionError if forward's output is not the expected one, if backward returns anything but one
    gradient with the shape and dtype of each input, or if it modifies its arguments in place."""
    tensors = [Tensor(np.array(a), requires_grad=True) for a in inputs]
    with report_errors(file):
        function = make()
        y = function(*tensors)
    if y.shape != expected.shape or not allclose(y.data, expected):
        raise SubmissionError(f"{file}: forward no longer computes {op.name}; change only backward")
    gy, saved = cotangent(y.shape), function.saved or ()
    borrowed = [("gy", [gy]), ("an input", [t.data for t in tensors]), ("an array that forward saved", list(saved))]
    copies = [[np.array(a) for a in arrays] for _, arrays in borrowed]
    with report_errors(file, op):
        gradients = function.backward(gy, *saved)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    where = format_location(file, last_return(file, op))
    if len(gradients) != len(inputs):
        raise SubmissionError(f"{where}: backward returned {pluralize(len(gradients), 'gradient')} for {pluralize(len(inputs), 'input')}; "
                              f"return one for each of {', '.join(op.inputs[:len(inputs)])}, in this order, separated by commas")
    for name, g, x in zip(op.inputs, gradients, inputs, strict=False):          # (an optional last input may be absent)
        if not isinstance(g, (np.ndarray, np.generic)):
            raise SubmissionError(f"{where}: dL/d{name} must be an array of shape {x.shape}, got {type(g).__name__}")
        if g.shape != x.shape:
            raise SubmissionError(f"{where}: dL/d{name} must have the shape of {name}, {x.shape}, got {g.shape}")
        if g.dtype != x.dtype:
            raise SubmissionError(f"{where}: dL/d{name} must have the dtype of {name}, {x.dtype}, got {g.dtype}")
    for (description, arrays), before in zip(borrowed, copies, strict=True):
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(arrays, before, strict=True)):
            raise SubmissionError(f"{where}: backward changed {description} in place, which other code still reads; make a new array")
    return y.data, [np.asarray(g) for g in gradients]


# Locations in the learner's file

@contextlib.contextmanager
def report_errors(file: StrPath, op: op_source.Op | None = None) -> Iterator[None]:
    """Turn an error inside into a SubmissionError that names the line of the learner's file; with `op`, by default its last return."""
    try:
        yield
    except (SubmissionError, GradcheckError, op_source.NotFoundError, KeyboardInterrupt):
        raise
    except BaseException as error:              # SystemExit too
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = lines[-1] if lines else last_return(file, op) if op else None
        raise SubmissionError(f"{format_location(file, line)}: {type(error).__name__}: {' '.join(str(error).split())}") from error


def last_return(file: StrPath, op: op_source.Op) -> int | None:
    """The line of the last return of the learner's backward, or of its `def` if it has none."""
    tree = ast.parse(pathlib.Path(file).read_bytes())
    cls = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == op.cls.__name__), None)
    backward = op_source.method_of(cls, "backward")
    return max((n.lineno for n in ast.walk(backward) if isinstance(n, ast.Return)), default=backward.lineno) if backward else None


def format_location(file: StrPath, line: int | None) -> str:
    """FILE, line N, `the line`."""
    if line is None:
        return str(file)
    lines = pathlib.Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    return f"{file}, line {line}" + (f", `{lines[line - 1].strip()}`" if 0 < line <= len(lines) else "")
