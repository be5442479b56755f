"""Types for argparse, for every command line: numbers in a range, and devices."""

import argparse
import math
from collections.abc import Callable

from minicnn.backend.arrays import device_number


def device_name(text: str) -> str:
    """The name of a device, "cpu", "gpu" or "gpu:1"."""
    try:
        device_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def device_or_auto(text: str) -> str:
    """The name of a device, or "auto"."""
    return text if text == "auto" else device_name(text)


def positive_int(text: str) -> int:
    return int(parsed(int, text, lambda n: n >= 1, "a positive integer"))


def positive_float(text: str) -> float:
    return parsed(float, text, lambda x: x > 0, "a positive number")


def non_negative_float(text: str) -> float:
    return parsed(float, text, lambda x: x >= 0, "a number of at least 0")


def parsed(kind: Callable[[str], float], text: str, valid: Callable[[float], bool], description: str) -> float:
    """The text as a finite number for which `valid` is true, or argparse's error that says what it must be."""
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and valid(value)):
        raise argparse.ArgumentTypeError(f"must be {description}, got {text}")
    return value
