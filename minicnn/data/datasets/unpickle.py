"""The harmless part of pickle: a file that can hold dicts, lists, text, numbers and arrays of bytes, and can do nothing.

A pickle is a program for a small machine with a stack, and one of its instructions calls any function there is: to load somebody's
pickle is to run somebody's program. This machine has the instructions that build values, and where the program asks to call something, it
accepts the words with which NumPy says "an array", and builds that itself. Anything else is an error.

It reads protocols 1 to 4; CIFAR's "python version" is of protocol 2, written by Python 2.
"""

import math
import pickletools

import numpy as np

WORDS = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct", "numpy ndarray", "numpy dtype",
         "_codecs encode"}                  # the last is how Python 3 writes bytes for Python 2
VALUES = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING",
          "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class Refused(ValueError):
    """The pickle asks for something that is not allowed, or is damaged."""


class Word(str):
    """The name of a thing to call, never called."""


class Made:
    """What NumPy would have made: an array or a dtype, with the arguments and the state that the pickle gives for it."""

    def __init__(self, what, arguments):
        self.what, self.arguments = what, arguments
        self.state: tuple = ()

    def array(self):
        """As an array of uint8. Its state is (version, shape, dtype, in Fortran's order, the bytes)."""
        _, shape, dtype, fortran, raw = self.state
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw        # Python 2 had no bytes
        if not (isinstance(dtype, Made) and dtype.what == "numpy dtype" and dtype.arguments[0] in ("u1", b"u1")):
            raise Refused("an array that is not of bytes (uint8)")
        if not (all(type(side) is int and side >= 0 for side in shape) and math.prod(shape) == len(raw)):
            raise Refused("an array whose shape does not go with its size")
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def loads(data):
    """The dict that a pickle holds, with the arrays in it as NumPy's. Raises Refused."""
    try:
        values = run(data)
        if not isinstance(values, dict):
            raise Refused(f"it holds a {type(values).__name__}, not a dict")
        return {key: value.array() if isinstance(value, Made) else value for key, value in values.items()}
    except Refused:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError, Warning) as error:
        raise Refused(f"damaged: {error}") from error


def run(data):
    """Work through the program; what is left at its end is its value."""
    stack: list = []
    memo: dict = {}
    marks: list = []                # how high the stack was at each MARK

    def since_mark():
        top = marks.pop()
        values = stack[top:]
        del stack[top:]
        return values

    for opcode, argument, _ in pickletools.genops(data):            # ValueError if the data end before a STOP
        match opcode.name:
            case "PROTO" | "FRAME": pass
            case "MARK": marks.append(len(stack))
            case name if name in VALUES: stack.append(argument)
            case name if name in CONSTANTS: stack.append(CONSTANTS[name])
            case "EMPTY_DICT": stack.append({})
            case "EMPTY_LIST": stack.append([])
            case "EMPTY_TUPLE": stack.append(())
            case "DICT": stack.append(put({}, since_mark()))
            case "LIST": stack.append(since_mark())
            case "TUPLE": stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                value = stack.pop()
                extend(stack[-1], [value])
            case "APPENDS":
                values = since_mark()
                extend(stack[-1], values)
            case "SETITEM":
                *_, key, value = stack
                del stack[-2:]
                put(stack[-1], [key, value])
            case "SETITEMS":
                values = since_mark()
                put(stack[-1], values)
            case "PUT" | "BINPUT" | "LONG_BINPUT": memo[argument] = stack[-1]
            case "MEMOIZE": memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET": stack.append(memo[argument])
            case "GLOBAL": stack.append(word(argument))
            case "STACK_GLOBAL":
                module, name = stack[-2:]
                stack[-2:] = [word(f"{module} {name}")]
            case "REDUCE":
                what, arguments = stack[-2:]
                stack[-2:] = [call(what, arguments)]
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], Made):
                    raise Refused("it sets the state of something that is no array")
                stack[-1].state = state
            case "STOP":
                value, = stack
                return value
            case name:
                raise Refused(f"it has the instruction {name}")


def word(name):
    """Something that the pickle names, to call it: only NumPy's words for arrays."""
    if name not in WORDS:
        raise Refused(f"it asks for {name.replace(' ', '.')[:100]}, which a file of arrays does not need; it may be meant to do harm")
    return Word(name)


def call(what, arguments):
    """What the call would make: an array, a dtype, or the bytes that a text stands for."""
    if not (isinstance(what, Word) and isinstance(arguments, tuple)):
        raise Refused("it calls something that has no name")
    if what == "_codecs encode":
        text, encoding = arguments
        if encoding != "latin1":
            raise Refused(f"bytes written as {encoding!r}")
        return text.encode("latin-1")
    return Made(str(what), arguments)


def extend(values, more):
    if not isinstance(values, list):
        raise Refused("it appends to something that is no list")
    values += more


def put(values, pairs):
    if not isinstance(values, dict) or len(pairs) % 2 or not all(isinstance(key, (str, bytes)) for key in pairs[::2]):
        raise Refused("a dict whose keys are not all text")
    values.update(zip(pairs[::2], pairs[1::2], strict=True))
    return values
