"""Arrays on either device: NumPy on the CPU, CuPy on the GPU, and the functions that depend on which one it is.

The mathematics of an op is written once, against `xp`, the module that owns the array. CuPy is imported
only when a GPU is requested, so CPU users need not install it.
"""

import contextlib
import functools
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def xp_of(array: Any) -> Any:
    """The module that owns `array`: numpy, or cupy for a CuPy array."""
    return np if isinstance(array, np.ndarray) else sys.modules["cupy"]


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up, for integers: how many blocks of size b cover a."""
    return -(-a // b)


def is_array(value: Any) -> bool:
    """True for a NumPy or a CuPy array (without importing CuPy)."""
    return isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "cupy"


def device_of(array: Any) -> str:
    """"cpu", "gpu" (the first GPU) or "gpu:1"."""
    if isinstance(array, np.ndarray):
        return "cpu"
    return "gpu" if array.device.id == 0 else f"gpu:{array.device.id}"


def to_device(array: Any, device: str) -> Any:
    """`array` on `device` ("cpu", "gpu", "gpu:1"), with the same memory order; `array` itself if it is already there.

    Raises ValueError for another device name, RuntimeError if there is no such GPU.
    """
    number = device_number(device)
    if device_of(array) == ("gpu" if number == 0 else device):
        return array
    order = axes_by_stride(array)
    contiguous = array.transpose(order)     # copied in memory order: channels-last stays channels-last
    host = contiguous if isinstance(array, np.ndarray) else contiguous.get()
    if number is None:
        return host.transpose(np.argsort(order))
    reason = gpu_unavailable_reason()
    if reason:
        raise RuntimeError(reason)
    import cupy
    if number >= cupy.cuda.runtime.getDeviceCount():
        raise RuntimeError(f"device {device!r}: this machine has {cupy.cuda.runtime.getDeviceCount()} GPU(s), counted from 0")
    with cupy.cuda.Device(number):
        return cupy.asarray(host).transpose(np.argsort(order).tolist())


def axes_by_stride(array: Any) -> list[int]:
    """The axes from the largest stride to the smallest: an array without gaps, transposed to this order, is C-contiguous."""
    return sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))


def device_scope(array: Any) -> Any:
    """A context manager in which the current GPU is that of `array`; for an array on the CPU it does nothing."""
    return contextlib.nullcontext() if isinstance(array, np.ndarray) else array.device


def device_number(device: str) -> int | None:
    """None for "cpu", 0 for "gpu", n for "gpu:n"; ValueError for anything else."""
    if device == "cpu":
        return None
    match = re.fullmatch(r"gpu(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        hint = f'; write "gpu{device[4:]}"' if isinstance(device, str) and device.startswith("cuda") else ""
        raise ValueError(f'device must be "cpu", "gpu" or "gpu:1", got {device!r}{hint}')
    return int(match.group(1) or 0)


@functools.cache
def gpu_unavailable_reason() -> str | None:
    """None if a GPU can be used, else two sentences: the reason why not, and how to fix it.

    A successful `import cupy` proves nothing: it needs no driver, and a sum needs no cuBLAS. So a matrix product is computed.
    """
    try:
        import cupy
        cupy.cuda.runtime.getDeviceCount()
        ones = cupy.ones((2, 2), np.float32)
        float((ones @ ones).sum())
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            return ('no GPU: CuPy is not installed. Run  python -m pip install "cupy-cuda12x[ctk]"  '
                    "(python -m minicnn doctor  tells whether that is the right one for your driver), or use the CPU")
        return f"no GPU: CuPy does not load ({error}). Run  python -m minicnn doctor  to see how to fix it, or use the CPU"
    except Exception as error:      # a wheel for another CUDA, a driver too old, a missing library: each raises another type of error
        message = " ".join(str(error.__cause__ or error).split())[:200]
        return f"no GPU: CuPy finds none that works ({message}). Run  python -m minicnn doctor  to see how to fix it, or use the CPU"
    return None


def has_gpu() -> bool:
    """True if there is a GPU and CuPy can compute on it."""
    return gpu_unavailable_reason() is None


def by_device(cpu_body: Callable[..., Any], gpu_body: Callable[..., Any]) -> Callable[..., Any]:
    """One function from two bodies: it calls the one for the device of its first argument."""
    def body(array: Any, *args: Any, **kwargs: Any) -> Any:
        return (cpu_body if isinstance(array, np.ndarray) else gpu_body)(array, *args, **kwargs)
    return functools.update_wrapper(body, cpu_body)


def dot(a: Any, b: Any) -> Any:
    """The sum of a * b as an array of shape (), on the device of `a`. It reads both in memory order, so it copies nothing."""
    order = axes_by_stride(a)
    a, b = (array.transpose(order).reshape(-1) for array in (a, b))
    with device_scope(a):
        return xp_of(a).vdot(a, b)
