"""Live memory: how many bytes of a set of arrays are allocated, followed by weak references, so that counting keeps nothing alive."""

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from minicnn.backend.arrays import is_array


class LiveBytes:
    """Counts the bytes of the added arrays that are still allocated, without holding a reference to any of them.

    An array and its views are one block of memory and counted once.

    Args:
        ignored: arrays that are never counted, for instance weights.   on_free: called with the size of each block that is freed.

    Attributes: bytes, allocated now; peak, the most so far.
    """

    def __init__(self, ignored: Iterable[Any] = (), on_free: Callable[[int], None] = lambda size: None) -> None:
        self.on_free = on_free
        self.ignored: list[Any] = []
        self.blocks: dict[int, weakref.ref | None] = {}         # id of the array that owns the memory: a weak reference to it
        self.bytes = self.peak = 0
        for array in ignored:
            self.ignore(array)

    def ignore(self, array: Any) -> None:
        """Never count this array. (It is held, so that no other array gets its id.)"""
        self.ignored.append(base_array(array))
        self.blocks[id(base_array(array))] = None

    def add(self, array: Any) -> int:
        """Count this array; returns the bytes that it adds, 0 if its memory is counted already."""
        array = base_array(array)
        if id(array) in self.blocks:
            return 0
        self.blocks[id(array)] = weakref.ref(array, functools.partial(self._freed, id(array), array.nbytes))
        self.bytes += array.nbytes
        self.peak = max(self.peak, self.bytes)
        return array.nbytes

    def _freed(self, key: int, size: int, reference: weakref.ref) -> None:
        del self.blocks[key]
        self.bytes -= size
        self.on_free(size)

    def stop(self) -> None:
        """Stop counting: what is freed from now on changes nothing."""
        self.blocks.clear()
        self.ignored.clear()


def base_array(array: Any) -> Any:
    """The array that owns the memory of which `array` is a view, on either device."""
    while is_array(array.base):
        array = array.base
    return array
