"""Threads: the same bits for any number of them, every slice done once, and errors that come out."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import threadpoolctl
from check import run, same_bits, small_blocks, threads

from minicnn import parallel
from minicnn.ops.conv2d import Conv2d
from minicnn.ops.linear import Linear
from minicnn.ops.local_response_norm import LocalResponseNorm
from minicnn.ops.max_pool2d import MaxPool2d
from minicnn.ops.relu import ReLU

COUNTS = [2, 3, 5]


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


OPS = {         # the batches are odd: a last block is smaller, a last thread has less to do
    "conv2d":               (Conv2d, ((1, 1), (1, 1), 2), arrays((13, 16, 24, 24), (24, 8, 3, 3), (24,))),
    "conv2d with stride":   (Conv2d, ((2, 2), (0, 0), 1), arrays((11, 3, 47, 47), (24, 3, 7, 7), (24,))),
    "linear":               (Linear, (), arrays((37, 300), (211, 300), (211,))),
    "linear, a long batch": (Linear, (), arrays((401, 120), (67, 120), (67,))),
    "max_pool2d":           (MaxPool2d, ((3, 3), (2, 2), (0, 0), False), arrays((13, 48, 31, 31))),
    "local_response_norm":  (LocalResponseNorm, (5, 0.5, 0.75, 2.0), arrays((7, 48, 31, 31))),
    "relu":                 (ReLU, (), arrays((13, 48, 31, 31))),
}


@pytest.mark.parametrize("case", OPS)
def test_same_bits_for_any_number_of_threads(case):
    op, args, inputs = OPS[case]
    g = np.random.default_rng(1).standard_normal(op(*args).forward(*inputs)[0].shape, np.float32)
    with threads(1):
        alone = run(op, args, inputs, g)
    with threads(1), small_blocks():
        alone_in_small_blocks = run(op, args, inputs, g)
    for n in COUNTS:
        with threads(n):
            same_bits(f"on {n} threads", run(op, args, inputs, g), alone)
            with small_blocks():
                same_bits(f"on {n} threads, in small blocks", run(op, args, inputs, g), alone_in_small_blocks)


def test_these_cases_have_several_blocks():
    """What would be one block is done by one thread, and the test above would see nothing."""
    tasks = []

    def count(work):
        tasks.append(len(work))
        original(work)

    original, parallel.run = parallel.run, count
    try:
        for case, (op, args, inputs) in OPS.items():
            tasks.clear()
            op(*args).forward(*inputs)
            assert max(tasks) > 1, case
    finally:
        parallel.run = original


@pytest.mark.parametrize("n", [1, *COUNTS])
@pytest.mark.parametrize("many", [0, 1, 2, 7, 50])
def test_every_task_is_done_once(n, many):
    done = [0] * many

    def task(i):
        done[i] += 1

    with threads(n):
        parallel.run([lambda i=i: task(i) for i in range(many)])
    assert done == [1] * many


def test_several_threads_really_work():
    """Three tasks that wait for each other can only end if three threads have them."""
    together = threading.Barrier(3, timeout=20)
    with threads(3):
        parallel.run([together.wait] * 3)


@pytest.mark.parametrize("n", [1, *COUNTS])
@pytest.mark.parametrize("size", [1, 7, 8, 29])
def test_slices_cover_the_batch_once(n, size):
    seen = np.zeros(size, int)

    def body(s):
        assert 0 <= s.start < s.stop <= size
        seen[s] += 1

    with threads(n):
        parallel.over_batch(body, seen, bytes_each=parallel.BLOCK_BYTES // 3)
    assert seen.tolist() == [1] * size


@pytest.mark.parametrize("size", [1, 7, 8, 29, 100])
def test_a_sum_over_the_batch_adds_each_image_once(size):
    """Whole numbers, so that the sum is the same in any order."""
    x = np.random.default_rng(0).integers(-100, 100, (size, 3)).astype(float)
    w = np.zeros((1, 3))
    with small_blocks(), threads(2):
        _, (_, gw, gb) = run(Linear, (), [x, w, np.zeros(1)], np.ones((size, 1)))
        _, (_, gw4, gb4) = run(Conv2d, (), [x.reshape(size, 3, 1, 1), w.reshape(1, 3, 1, 1), np.zeros(1)], np.ones((size, 1, 1, 1)))
    assert gw.tolist() == gw4.reshape(1, 3).tolist() == [x.sum(axis=0).tolist()]
    assert gb.tolist() == gb4.tolist() == [size]


@pytest.mark.parametrize("n", [1, *COUNTS])
@pytest.mark.parametrize("bad", [0, 3, 19])
def test_an_error_in_a_task_comes_out(n, bad):
    def task(i):
        if i == bad:
            raise KeyError(f"task {i}")

    with threads(n):
        with pytest.raises(KeyError, match=f"task {bad}"):
            parallel.run([lambda i=i: task(i) for i in range(20)])
        done = []
        parallel.run([lambda: done.append(1)] * 4)          # and the next run is as if nothing had happened
    assert len(done) == 4


def test_an_error_in_a_body_comes_out():
    def body(s):
        raise ZeroDivisionError("in the body")

    with small_blocks(), threads(2), pytest.raises(ZeroDivisionError, match="in the body"):
        parallel.over_batch(body, np.zeros(5), bytes_each=8)


@pytest.mark.parametrize("n", [1, 2])
def test_a_run_inside_a_run_is_refused(n):
    with threads(n):
        with pytest.raises(RuntimeError, match=r"parallel.run inside parallel.run: the inner one has no threads left to use"):
            parallel.run([lambda: parallel.run([lambda: None])] * 2)
        done = []
        parallel.run([lambda: done.append(1)] * 2)
    assert done == [1, 1]


def test_blas_gets_its_threads_back():
    def blas():
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    before, inside = blas(), []
    parallel.run([lambda: inside.extend(blas())])
    assert before
    assert inside == [1] * len(before)
    assert blas() == before
    with pytest.raises(KeyError):
        parallel.run([lambda: {}["missing"]])
    assert blas() == before


def test_the_number_of_threads(monkeypatch):
    before = parallel.threads()
    assert before >= 1
    with threads(3):
        assert parallel.threads() == 3
    assert parallel.threads() == before
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"the number of threads is at least 1, not {n}"):
            parallel.set_threads(n)
    assert parallel.threads() == before
    monkeypatch.setattr(parallel, "_threads", None)
    monkeypatch.setenv("MINICNN_THREADS", "7")
    assert parallel.threads() == 7
    parallel.set_threads(before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "inner", "columns"), [(3, 4, 5), (1, 7, 1), (500, 60, 40), (40, 60, 500), (130, 300, 131), (1, 900, 700),
                                                        (700, 900, 1)])
def test_matmul_is_matmul(rows, inner, columns, dtype):
    """Small, tall, wide and nearly square; whole numbers, so that every order of addition gives the same sum."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 10, (rows, inner)).astype(dtype), rng.integers(-9, 10, (inner, columns)).astype(dtype)
    wide = np.zeros((rows, 2 * inner), dtype)
    wide[:, ::2] = a
    for n in (1, 2, 3):
        with threads(n):
            for left, right in ((a, b), (np.asfortranarray(a), b), (a, np.asfortranarray(b)), (wide[:, ::2], b)):
                y = parallel.matmul(left, right)
                assert y.dtype == dtype
                assert np.array_equal(y, a @ b)


def test_the_callers_errstate_holds_in_every_thread():
    """Overflow is an error where the caller says so, in whichever thread it happens; and is let pass where not."""
    def overflow():
        np.multiply(np.float32(3e38) * np.ones(2000, np.float32), np.float32(10))

    with np.errstate(over="ignore"):
        parallel.run([overflow] * 8)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        parallel.run([overflow] * 8)


def test_two_threads_that_compute_leave_blas_as_it_was():
    """The number of BLAS threads belongs to the process: callers take turns, and the last one restores it."""
    def blas():
        return [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]

    before, a = blas(), np.ones((200, 200), np.float32)
    workers = [threading.Thread(target=lambda: [parallel.matmul(a, a) for _ in range(200)]) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert blas() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes():
    """It has none of its parent's threads and makes its own."""
    code = ("import os, signal, numpy as np\nfrom minicnn import parallel\nparallel.set_threads(2)\n"
            "a = np.ones((300, 300), np.float32)\nparallel.matmul(a, a)\npid = os.fork()\n"
            "if pid == 0:\n    signal.alarm(20)\n    os._exit(0 if (parallel.matmul(a, a) == 300).all() else 1)\n"
            "print(os.waitpid(pid, 0)[1])")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
