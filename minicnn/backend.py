"""Where an array lives: NumPy on the CPU, CuPy on the GPU, and the few questions whose answer depends on it.

The mathematics of an op is written once, against `xp`, the module that owns the array. CuPy is imported
only when a GPU is asked for, so CPU users never pay for it and need not have it.
"""

import contextlib
import functools
import re
import sys

import numpy as np


def xp_of(array):
    """The module that owns `array`: numpy, or cupy for a CuPy array."""
    return np if isinstance(array, np.ndarray) else sys.modules["cupy"]


def is_array(value):
    """True for a NumPy or a CuPy array (without importing CuPy)."""
    return isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "cupy"


def device_of(array):
    """"cpu", "gpu" (the first one) or "gpu:1"."""
    if isinstance(array, np.ndarray):
        return "cpu"
    return "gpu" if array.device.id == 0 else f"gpu:{array.device.id}"


def to_device(array, device):
    """`array` on `device` ("cpu", "gpu", "gpu:1"); itself if it already lives there.

    Raises ValueError for another name, RuntimeError where there is no such GPU.
    """
    number = device_number(device)
    if device_of(array) == ("gpu" if number == 0 else device):
        return array
    order = memory_order(array)         # copied as it lies in memory: channels-last stays channels-last
    in_rows = array.transpose(order)
    host = in_rows if isinstance(array, np.ndarray) else in_rows.get()
    if number is None:
        return host.transpose(np.argsort(order))
    problem = gpu_problem()
    if problem:
        raise RuntimeError(problem)
    import cupy
    if number >= cupy.cuda.runtime.getDeviceCount():
        raise RuntimeError(f"device {device!r}: this machine has {cupy.cuda.runtime.getDeviceCount()} GPU(s), counted from 0")
    with cupy.cuda.Device(number):
        return cupy.asarray(host).transpose(np.argsort(order).tolist())


def memory_order(array):
    """The axes from the one with the largest steps in memory to the one with the smallest; transposed so, an array lies in rows."""
    return sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))


def device_scope(array):
    """For `with`: inside, kernels run on the GPU where `array` lives. On the CPU, nothing."""
    return contextlib.nullcontext() if isinstance(array, np.ndarray) else array.device


def device_number(device):
    """None for "cpu", 0 for "gpu", n for "gpu:n"; ValueError for anything else."""
    if device == "cpu":
        return None
    match = re.fullmatch(r"gpu(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        raise ValueError(f'device is "cpu", "gpu" or "gpu:1", not {device!r}')
    return int(match.group(1) or 0)


@functools.cache
def gpu_problem():
    """None if a GPU can be used, else why not and how to mend it: two sentences, the second is the cure.

    An `import cupy` that works proves nothing: without a driver it still works, and without cuBLAS a sum still works. So try.
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
        return f"no GPU: CuPy does not load ({error}). Run  python -m minicnn doctor  to see how to mend it, or use the CPU"
    except Exception as error:      # a wheel for another CUDA, a driver too old, a library that is missing: each fails in its own way
        words = " ".join(str(error.__cause__ or error).split())[:200]
        return f"no GPU: CuPy finds none that works ({words}). Run  python -m minicnn doctor  to see how to mend it, or use the CPU"
    return None


def has_gpu():
    """True if there is a GPU that CuPy can really compute on."""
    return gpu_problem() is None


def by_device(cpu_body, gpu_body):
    """One function from two bodies: the one that runs is chosen by where the first argument lives."""
    def body(array, *args, **kwargs):
        return (cpu_body if isinstance(array, np.ndarray) else gpu_body)(array, *args, **kwargs)
    return functools.update_wrapper(body, cpu_body)
