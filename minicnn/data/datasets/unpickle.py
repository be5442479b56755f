"""A safe unpickler: it builds dicts, lists, tuples, text, numbers and uint8 arrays, and refuses everything else.

A pickle is a program for a small stack machine, and one of its instructions calls an arbitrary function: loading an untrusted pickle
runs an untrusted program. This machine implements the instructions that build values; where the program calls a function, it accepts only
the names with which NumPy pickles an array, and builds the array itself. Anything else is an error.

It reads protocols 1 to 4; CIFAR's "python version" is of protocol 2, written by Python 2.
"""

import math
import pickletools
from typing import Any

import numpy as np

ALLOWED_GLOBALS = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct", "numpy ndarray", "numpy dtype",
                   "_codecs encode"}        # the last is how Python 3 writes bytes for Python 2
VALUES = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING",
          "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class UnpicklingError(ValueError):
    """The pickle asks for something that is not allowed, or is damaged."""


class GlobalRef(str):
    """The name of a global that the pickle refers to; it is never imported or called."""


class NumpyObject:
    """A stand-in for an array or dtype that is being unpickled: its constructor's name and arguments, and the state set by BUILD."""

    def __init__(self, constructor: str, arguments: tuple) -> None:
        self.constructor, self.arguments = constructor, arguments
        self.state: tuple = ()

    def array(self) -> np.ndarray:
        """The uint8 array. Its state is (version, shape, dtype, whether the order is Fortran's, the bytes)."""
        _, shape, dtype, fortran, raw = self.state
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw        # Python 2 had no bytes
        if not (isinstance(dtype, NumpyObject) and dtype.constructor == "numpy dtype" and dtype.arguments[0] in ("u1", b"u1")):
            raise UnpicklingError("arrays must be uint8")
        if not (all(type(side) is int and side >= 0 for side in shape) and math.prod(shape) == len(raw)):
            raise UnpicklingError("an array's shape does not match its size")
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def loads(data: bytes) -> dict:
    """The dict in a pickle, its arrays as NumPy arrays. Raises UnpicklingError."""
    try:
        values = execute(data)
        if not isinstance(values, dict):
            raise UnpicklingError(f"it must hold a dict, got a {type(values).__name__}")
        return {key: value.array() if isinstance(value, NumpyObject) else value for key, value in values.items()}
    except UnpicklingError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError, Warning) as error:
        raise UnpicklingError(f"damaged: {error}") from error


def execute(data: bytes) -> Any:
    """Run the pickle's program; the value on the stack at STOP is the result."""
    stack: list = []
    memo: dict = {}
    marks: list = []                # the height of the stack at each MARK

    def pop_to_mark():
        top = marks.pop()
        values = stack[top:]
        del stack[top:]
        return values

    for opcode, argument, _ in pickletools.genops(data):            # ValueError if the data end before STOP
        match opcode.name:
            case "PROTO" | "FRAME": pass
            case "MARK": marks.append(len(stack))
            case name if name in VALUES: stack.append(argument)
            case name if name in CONSTANTS: stack.append(CONSTANTS[name])
            case "EMPTY_DICT": stack.append({})
            case "EMPTY_LIST": stack.append([])
            case "EMPTY_TUPLE": stack.append(())
            case "DICT": stack.append(set_items({}, pop_to_mark()))
            case "LIST": stack.append(pop_to_mark())
            case "TUPLE": stack.append(tuple(pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                value = stack.pop()
                append_items(stack[-1], [value])
            case "APPENDS":
                values = pop_to_mark()
                append_items(stack[-1], values)
            case "SETITEM":
                *_, key, value = stack
                del stack[-2:]
                set_items(stack[-1], [key, value])
            case "SETITEMS":
                values = pop_to_mark()
                set_items(stack[-1], values)
            case "PUT" | "BINPUT" | "LONG_BINPUT": memo[argument] = stack[-1]
            case "MEMOIZE": memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET": stack.append(memo[argument])
            case "GLOBAL": stack.append(global_ref(str(argument)))
            case "STACK_GLOBAL":
                module, name = stack[-2:]
                stack[-2:] = [global_ref(f"{module} {name}")]
            case "REDUCE":
                function, arguments = stack[-2:]
                stack[-2:] = [reduce(function, arguments)]
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], NumpyObject):
                    raise UnpicklingError("it sets the state of something that is not an array")
                stack[-1].state = state
            case "STOP":
                value, = stack
                return value
            case name:
                raise UnpicklingError(f"it has the instruction {name}")


def global_ref(name: str) -> GlobalRef:
    """The reference for a global that the pickle names, "module name"; only those that NumPy's arrays need are allowed."""
    if name not in ALLOWED_GLOBALS:
        raise UnpicklingError(f"it asks for {name.replace(' ', '.')[:100]}, which a file of arrays does not need; it may be malicious")
    return GlobalRef(name)


def reduce(function: Any, arguments: Any) -> Any:
    """The result of a call in the pickle: a stand-in for an array or a dtype, or the bytes that Python 3 wrote as text."""
    if not (isinstance(function, GlobalRef) and isinstance(arguments, tuple)):
        raise UnpicklingError("it calls something that is not a global")
    if function == "_codecs encode":
        text, encoding = arguments
        if encoding != "latin1":
            raise UnpicklingError(f"bytes must be encoded as latin1, got {encoding!r}")
        return text.encode("latin-1")
    return NumpyObject(str(function), arguments)


def append_items(values: Any, items: list) -> None:
    if not isinstance(values, list):
        raise UnpicklingError("it appends to something that is not a list")
    values += items


def set_items(values: Any, items: list) -> dict:
    """Set values[key] for the items [key, value, key, value, ...]."""
    if not isinstance(values, dict) or len(items) % 2 or not all(isinstance(key, (str, bytes)) for key in items[::2]):
        raise UnpicklingError("a dict's keys must all be text")
    values.update(zip(items[::2], items[1::2], strict=True))
    return values
