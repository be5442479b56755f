"""Data parallelism on the CPU: a thread pool that runs an op on slices of the batch, one slice per core at a time.

NumPy releases the interpreter lock inside its big operations, so plain Python threads use every core. Two things
make this faster than one big operation whose BLAS uses every core: the copies, sums and comparisons around the
matrix product run in parallel too; and a slice of a few images fits in the core's own cache, so what one line
of the body writes, the next line reads from there. BLAS is limited to one thread meanwhile.

The slices depend on shapes alone, never on the number of threads, and partial sums are added in a fixed
order: the results have the same bits on one core and on sixteen.
"""

import concurrent.futures
import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import threadpoolctl

from minicnn.backend import cuda
from minicnn.backend.arrays import by_device, ceil_div, xp_of

BLOCK_BYTES = 1 << 20       # memory that one block should touch: about one core's second-level cache
PARTIAL_SUMS = 8            # a sum over the batch is split into this many, whatever the number of threads
SMALL_PRODUCT = 1 << 18     # multiply-adds: a smaller matrix product is not worth splitting

_running = threading.local()        # .tasks is True in a thread that is running tasks
_run_lock = threading.Lock()
_num_threads: int | None = None


def num_threads() -> int:
    """The number of threads: the environment variable MINICNN_THREADS, or the number of cores this process may use."""
    global _num_threads
    if _num_threads is None:
        setting = os.environ.get("MINICNN_THREADS", str(available_cores()))
        if not setting.isdecimal() or int(setting) < 1:
            raise ValueError(f"MINICNN_THREADS must be an integer of at least 1, got {setting!r}")
        _num_threads = int(setting)
        set_num_threads(_num_threads)
    return _num_threads


def available_cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def disable_malloc_trim() -> None:
    """Tell the C library to reuse freed memory for the next step instead of returning it to the system page by page.

    A training step allocates and frees the same gigabyte again and again; otherwise about 8 % of its time is page faults.
    The setting affects the whole process. Only glibc (Linux) has it; elsewhere nothing happens.
    """
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def set_num_threads(n: int) -> None:
    """Use `n` threads from now on (n >= 1, else ValueError). It affects speed only: the results stay the same to the bit."""
    global _num_threads
    if n < 1:
        raise ValueError(f"set_num_threads: n must be at least 1, got {n}")
    _num_threads = n
    _pool.cache_clear()
    disable_malloc_trim()


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(max(num_threads() - 1, 1), thread_name_prefix="minicnn")


@functools.cache
def _blas() -> Any:
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def _after_fork() -> None:
    """Reset the state in a forked child: it has none of the parent's threads, and a lock that one of them held would stay locked."""
    global _run_lock, _running
    _run_lock, _running = threading.Lock(), threading.local()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run_tasks(tasks: Sequence[Callable[[], Any]]) -> None:
    """Call every task in the list, on all cores; return when the last is done.

    An exception in a task is raised here. A task must not call `run_tasks` itself: RuntimeError.
    """
    if getattr(_running, "tasks", False):
        raise RuntimeError("run_tasks inside run_tasks: the outer call already uses every thread")
    if not tasks:
        return
    # One caller at a time: the number of BLAS threads is a setting of the process, and two callers would restore each other's.
    with _run_lock, _blas().limit(limits=1):
        queue = iter(tasks)             # shared by the threads: each takes the next task when it is free
        on_error = np.geterr()          # the caller's np.errstate applies in every thread

        def work() -> None:
            _running.tasks = True
            try:
                with np.errstate(**on_error):
                    for task in queue:
                        task()
            finally:
                _running.tasks = False

        helpers = [_pool().submit(work) for _ in range(min(num_threads(), len(tasks)) - 1)]
        try:
            work()
        finally:
            concurrent.futures.wait(helpers)
        for helper in helpers:
            helper.result()             # re-raises an exception of its tasks


def block_size(bytes_per_image: float) -> int:
    """The number of images in one block, if the body touches `bytes_per_image` for each."""
    return max(1, BLOCK_BYTES // max(1, int(bytes_per_image)))


def over_batch(body: Callable[[slice], Any], x: Any, bytes_per_image: float) -> None:
    """Call `body(n)` for slices `n` that cover the first axis of `x`; it touches `bytes_per_image` of memory for each image.

    On the GPU, whose kernels are parallel already, the slices run one after the other, each as large as the workspace allows.
    """
    if not isinstance(x, np.ndarray):
        for n in chunks(len(x), bytes_per_image):
            body(n)
        return
    step = block_size(bytes_per_image)
    run_tasks([functools.partial(body, slice(a, min(a + step, len(x)))) for a in range(0, len(x), step)])


def chunks(N: int, bytes_per_image: float) -> list[slice]:
    """Slices of about equal length that cover N images, each within the GPU workspace (but at least one image)."""
    largest = max(1, cuda.WORKSPACE_BYTES // max(1, int(bytes_per_image)))
    step = ceil_div(N, ceil_div(N, largest))
    return [slice(a, min(a + step, N)) for a in range(0, N, step)]


def sum_over_batch(body: Callable[[slice], Any], x: Any, bytes_per_image: float, shape: tuple[int, ...], dtype: Any) -> Any:
    """The sum over the batch of the arrays that `body(n)` returns, of `shape` and `dtype`, for each slice `n`.

    The batch is split into at most PARTIAL_SUMS runs of consecutive slices; each run has a partial sum, and these are added in
    order. So the order of additions never depends on the threads.
    """
    if not isinstance(x, np.ndarray):
        first, *others = chunks(len(x), bytes_per_image)
        total = body(first)
        for n in others:
            total += body(n)
        return total
    step = block_size(bytes_per_image)
    blocks = ceil_div(len(x), step)
    run_length = ceil_div(blocks, PARTIAL_SUMS) * step
    starts = range(0, len(x), run_length)
    partial: list[Any] = [None] * len(starts)

    def sum_run(i: int) -> None:
        total = np.zeros(shape, dtype)
        for a in range(starts[i], min(starts[i] + run_length, len(x)), step):
            total += body(slice(a, min(a + step, starts[i] + run_length, len(x))))
        partial[i] = total

    run_tasks([functools.partial(sum_run, i) for i in range(len(starts))])
    for other in partial[1:]:
        partial[0] += other
    return partial[0]


def matmul(a: Any, b: Any) -> Any:
    """The matrix product a @ b of 2-D arrays, split into strips along the longer side of the result, one strip per task."""
    rows, columns = a.shape[0], b.shape[1]
    if not isinstance(a, np.ndarray):
        if a.dtype.kind != "f" or 0 in (*a.shape, *b.shape):            # cuBLAS has no integers, and refuses empty matrices
            return a @ b
        return cuda.gemm(a, b, xp_of(a).empty((rows, columns), a.dtype))
    y = np.empty((rows, columns), np.result_type(a, b))
    if a.shape[1] * rows * columns < SMALL_PRODUCT:
        run_tasks([lambda: np.matmul(a, b, out=y)])
    elif rows > columns:
        strip = max(64, ceil_div(rows, 8))
        run_tasks([functools.partial(np.matmul, a[i:i + strip], b, out=y[i:i + strip]) for i in range(0, rows, strip)])
    else:
        strip = max(64, ceil_div(columns, 8))
        run_tasks([functools.partial(np.matmul, a, b[:, j:j + strip], out=y[:, j:j + strip]) for j in range(0, columns, strip)])
    return y


# out = a @ b for 2-D arrays: on one core (for use inside a task), or on the whole GPU.
gemm = by_device(lambda a, b, out: np.matmul(a, b, out=out), cuda.gemm)
