"""The same work on slices of the batch, one per core.

NumPy lets go of the interpreter inside its big operations, so plain Python threads use every core. Two things
make this faster than one big operation whose BLAS uses every core: the copies, sums and comparisons around the
matrix product run in parallel too; and a slice of a few images fits in the core's own cache, so what one line
of the body writes, the next line finds there. BLAS is held to one thread meanwhile.

The slices depend on shapes alone, never on the number of threads, and partial sums are added in a fixed
order: the results have the same bits on one core and on sixteen.
"""

import concurrent.futures
import contextlib
import ctypes
import functools
import os
import threading

import numpy as np
import threadpoolctl

from minicnn import gpu
from minicnn.backend import by_device, xp_of

BLOCK_BYTES = 1 << 20       # what one block should touch: about one core's second-level cache
PARTIAL_SUMS = 8            # a sum over the batch is cut into this many, whatever the number of threads

_inside = threading.local()
_one_at_a_time = threading.Lock()
_threads = None


def threads():
    """How many threads share the work: MINICNN_THREADS, or the number of cores this process may use."""
    global _threads
    if _threads is None:
        asked = os.environ.get("MINICNN_THREADS", str(cores()))
        if not asked.isdecimal() or int(asked) < 1:
            raise ValueError(f"MINICNN_THREADS is a whole number from 1 up, not {asked!r}")
        set_threads(int(asked))
    return _threads


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory():
    """Ask the C library to keep what is freed for the next step, instead of returning it to the system page by page.

    A training step allocates and frees the same gigabyte again and again; without this, about 8 % of it is page faults.
    It holds for the whole process. Only glibc (Linux) knows these settings; elsewhere nothing happens.
    """
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def set_threads(n):
    """Use `n` threads from now on (n >= 1). The results do not change by a bit, only the time they take."""
    global _threads
    if n < 1:
        raise ValueError(f"the number of threads is at least 1, not {n}")
    _threads = n
    _pool.cache_clear()
    keep_freed_memory()


@functools.cache
def _pool():
    return concurrent.futures.ThreadPoolExecutor(max(threads() - 1, 1), thread_name_prefix="minicnn")


@functools.cache
def _blas():
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def _after_fork():
    """A forked child has none of the parent's threads, and a lock that one of them held would never be opened."""
    global _one_at_a_time, _inside
    _one_at_a_time, _inside = threading.Lock(), threading.local()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run(tasks):
    """Call every task in the list, on all cores; return when the last is done. A task must not call `run`."""
    if getattr(_inside, "busy", False):
        raise RuntimeError("parallel.run inside parallel.run: the inner one has no threads left to use")
    if not tasks:
        return
    # One at a time: the number of BLAS threads belongs to the process, and two that set it would restore each other's.
    with _one_at_a_time, _blas().limit(limits=1):
        queue = iter(tasks)             # shared by the threads: each takes the next task when it is free
        on_error = np.geterr()          # the caller's np.errstate holds in every thread

        def work():
            _inside.busy = True
            try:
                with np.errstate(**on_error):
                    for task in queue:
                        task()
            finally:
                _inside.busy = False

        helpers = [_pool().submit(work) for _ in range(min(threads(), len(tasks)) - 1)]
        try:
            work()
        finally:
            concurrent.futures.wait(helpers)
        for helper in helpers:
            helper.result()             # raises here what was raised there


def block_size(bytes_each):
    """How many images of `bytes_each` make one block."""
    return max(1, BLOCK_BYTES // max(1, int(bytes_each)))


def over_batch(body, x, bytes_each):
    """Call `body(n)` for slices `n` that cover the first axis of `x`; `bytes_each` is what one image touches.

    On the GPU, whose kernels are parallel already, one slice after the other, as large as the workspace allows.
    """
    if not isinstance(x, np.ndarray):
        for n in portions(len(x), bytes_each):
            body(n)
        return
    step = block_size(bytes_each)
    run([functools.partial(body, slice(a, min(a + step, len(x)))) for a in range(0, len(x), step)])


def portions(N, bytes_each):
    """Slices of about the same length that cover N images, none touching more than a GPU's workspace (or one image)."""
    most = max(1, gpu.WORKSPACE_BYTES // max(1, int(bytes_each)))
    step = -(-N // -(-N // most))
    return [slice(a, min(a + step, N)) for a in range(0, N, step)]


def sum_over_batch(body, x, bytes_each, shape, dtype):
    """The sum over the batch of what `body(n)` returns, an array of `shape`, for each slice `n`.

    The batch is cut into at most PARTIAL_SUMS runs of slices; each run has a sum of its own, and these are added in
    order. So the order of additions never depends on the threads.
    """
    if not isinstance(x, np.ndarray):
        first, *others = portions(len(x), bytes_each)
        total = body(first)
        for n in others:
            total += body(n)
        return total
    step = block_size(bytes_each)
    blocks = -(-len(x) // step)
    run_length = -(-blocks // PARTIAL_SUMS) * step
    starts = range(0, len(x), run_length)
    partial: list = [None] * len(starts)

    def one_run(i):
        total = np.zeros(shape, dtype)
        for a in range(starts[i], min(starts[i] + run_length, len(x)), step):
            total += body(slice(a, min(a + step, starts[i] + run_length, len(x))))
        partial[i] = total

    run([functools.partial(one_run, i) for i in range(len(starts))])
    for other in partial[1:]:
        partial[0] += other
    return partial[0]


def matmul(a, b):
    """a @ b for 2-D arrays, cut into strips of the longer side of the result, one strip a task."""
    rows, columns = a.shape[0], b.shape[1]
    if not isinstance(a, np.ndarray):
        if a.dtype.kind != "f" or 0 in (*a.shape, *b.shape):            # nothing for cuBLAS
            return a @ b
        return gpu.product(a, b, xp_of(a).empty((rows, columns), a.dtype))
    y = np.empty((rows, columns), np.result_type(a, b))
    if a.shape[1] * rows * columns < 1 << 18:       # too little work to share
        run([lambda: np.matmul(a, b, out=y)])
    elif rows > columns:
        strip = max(64, -(-rows // 8))
        run([functools.partial(np.matmul, a[i:i + strip], b, out=y[i:i + strip]) for i in range(0, rows, strip)])
    else:
        strip = max(64, -(-columns // 8))
        run([functools.partial(np.matmul, a, b[:, j:j + strip], out=y[:, j:j + strip]) for j in range(0, columns, strip)])
    return y


# out = a @ b for 2-D arrays, by this core alone (inside a task), or by the whole GPU.
product = by_device(lambda a, b, out: np.matmul(a, b, out=out), gpu.product)
