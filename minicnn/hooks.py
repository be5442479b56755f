"""Hooks: observers that are called before and after each layer and each op, forward and backward.

Trace, profile, summary, anomaly detection and the training monitor are all hooks. They read the arrays and must not change them.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

HookType = TypeVar("HookType", bound="Hook")


class Hook:
    """An observer of every layer and op: override the methods you need and use it as `with MyHook() as hook: ...`.

    Arrays are passed without a copy. In a network's forward pass each layer calls one or more ops, so the calls nest:
    before_module, before_forward, after_forward, ..., after_module.
    """

    def before_module(self, module: Any, inputs: tuple[Any, ...]) -> None:
        "A layer is about to run on these tensors."

    def after_module(self, module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        "A layer has computed the tensor `output`."

    def before_forward(self, function: Any, arrays: list[Any]) -> None:
        "An op is about to run on these arrays."

    def after_forward(self, function: Any, arrays: list[Any], y: Any, saved: tuple[Any, ...]) -> None:
        "An op has computed `y`, and `saved` is held for its backward."

    def before_backward(self, function: Any, gy: Any) -> None:
        "The gradient of an op's output is complete."

    def after_backward(self, function: Any, gy: Any, gxs: tuple[Any, ...]) -> None:
        "An op has computed the gradients of its inputs (None where an input needs none)."

    def __enter__(self: HookType) -> HookType:
        _hooks.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        _hooks.remove(self)


_hooks: list[Hook] = []


def active_hooks() -> list[Hook]:
    """The hooks that are installed, in the order in which they were entered."""
    return _hooks


@contextlib.contextmanager
def hooks_disabled() -> Iterator[None]:
    """Temporarily disable all hooks."""
    before = list(_hooks)
    _hooks.clear()
    try:
        yield
    finally:
        _hooks[:] = before
