"""Threads: the same bits for any number of them, every slice is processed once, and errors in tasks are raised."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import threadpoolctl
from check import assert_bitwise_equal, run, small_blocks, use_threads

from minicnn.backend import threads
from minicnn.ops.conv2d.op import Conv2d
from minicnn.ops.linear import Linear
from minicnn.ops.local_response_norm import LocalResponseNorm
from minicnn.ops.max_pool2d import MaxPool2d
from minicnn.ops.relu import ReLU

COUNTS = [2, 3, 5]


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


OPS = {         # odd batch sizes: the last block is smaller, and the last thread has less work
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
    with use_threads(1):
        single = run(op, args, inputs, g)
    with use_threads(1), small_blocks():
        single_small_blocks = run(op, args, inputs, g)
    for n in COUNTS:
        with use_threads(n):
            assert_bitwise_equal(f"on {n} threads", run(op, args, inputs, g), single)
            with small_blocks():
                assert_bitwise_equal(f"on {n} threads, in small blocks", run(op, args, inputs, g), single_small_blocks)


def test_these_cases_have_several_blocks():
    """A single block would run in one thread, and the test above would be vacuous."""
    tasks = []

    def count(task_list):
        tasks.append(len(task_list))
        original(task_list)

    original, threads.run_tasks = threads.run_tasks, count
    try:
        for case, (op, args, inputs) in OPS.items():
            tasks.clear()
            op(*args).forward(*inputs)
            assert max(tasks) > 1, case
    finally:
        threads.run_tasks = original


@pytest.mark.parametrize("n", [1, *COUNTS])
@pytest.mark.parametrize("num_tasks", [0, 1, 2, 7, 50])
def test_every_task_runs_once(n, num_tasks):
    done = [0] * num_tasks

    def task(i):
        done[i] += 1

    with use_threads(n):
        threads.run_tasks([lambda i=i: task(i) for i in range(num_tasks)])
    assert done == [1] * num_tasks


def test_tasks_run_concurrently():
    """Three tasks that wait for each other can only end if three threads run them."""
    barrier = threading.Barrier(3, timeout=20)
    with use_threads(3):
        threads.run_tasks([barrier.wait] * 3)


@pytest.mark.parametrize("n", [1, *COUNTS])
@pytest.mark.parametrize("size", [1, 7, 8, 29])
def test_slices_cover_the_batch_once(n, size):
    seen = np.zeros(size, int)

    def body(s):
        assert 0 <= s.start < s.stop <= size
        seen[s] += 1

    with use_threads(n):
        threads.over_batch(body, seen, bytes_per_image=threads.BLOCK_BYTES // 3)
    assert seen.tolist() == [1] * size


@pytest.mark.parametrize("size", [1, 7, 8, 29, 100])
def test_a_sum_over_the_batch_adds_each_image_once(size):
    """Integers, so that the sum is the same in any order."""
    x = np.random.default_rng(0).integers(-100, 100, (size, 3)).astype(float)
    w = np.zeros((1, 3))
    with small_blocks(), use_threads(2):
        _, (_, gw, gb) = run(Linear, (), [x, w, np.zeros(1)], np.ones((size, 1)))
        _, (_, gw4, gb4) = run(Conv2d, (), [x.reshape(size, 3, 1, 1), w.reshape(1, 3, 1, 1), np.zeros(1)], np.ones((size, 1, 1, 1)))
    assert gw.tolist() == gw4.reshape(1, 3).tolist() == [x.sum(axis=0).tolist()]
    assert gb.tolist() == gb4.tolist() == [size]


@pytest.mark.parametrize("n", [1, *COUNTS])
@pytest.mark.parametrize("bad", [0, 3, 19])
def test_an_error_in_a_task_is_raised(n, bad):
    def task(i):
        if i == bad:
            raise KeyError(f"task {i}")

    with use_threads(n):
        with pytest.raises(KeyError, match=f"task {bad}"):
            threads.run_tasks([lambda i=i: task(i) for i in range(20)])
        done = []
        threads.run_tasks([lambda: done.append(1)] * 4)          # and the next call works
    assert len(done) == 4


def test_an_error_in_a_body_is_raised():
    def body(s):
        raise ZeroDivisionError("in the body")

    with small_blocks(), use_threads(2), pytest.raises(ZeroDivisionError, match="in the body"):
        threads.over_batch(body, np.zeros(5), bytes_per_image=8)


@pytest.mark.parametrize("n", [1, 2])
def test_nested_run_tasks_is_refused(n):
    with use_threads(n):
        with pytest.raises(RuntimeError, match="run_tasks inside run_tasks: the outer call already uses every thread"):
            threads.run_tasks([lambda: threads.run_tasks([lambda: None])] * 2)
        done = []
        threads.run_tasks([lambda: done.append(1)] * 2)
    assert done == [1, 1]


def test_the_number_of_blas_threads_is_restored():
    def blas():
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    before, inside = blas(), []
    threads.run_tasks([lambda: inside.extend(blas())])
    assert before
    assert inside == [1] * len(before)
    assert blas() == before
    with pytest.raises(KeyError):
        threads.run_tasks([lambda: {}["missing"]])
    assert blas() == before


def test_the_number_of_threads(monkeypatch):
    before = threads.num_threads()
    assert before >= 1
    with use_threads(3):
        assert threads.num_threads() == 3
    assert threads.num_threads() == before
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"set_num_threads: n must be at least 1, got {n}"):
            threads.set_num_threads(n)
    assert threads.num_threads() == before
    monkeypatch.setattr(threads, "_num_threads", None)
    monkeypatch.setenv("MINICNN_THREADS", "7")
    assert threads.num_threads() == 7
    monkeypatch.setattr(threads, "_num_threads", None)
    monkeypatch.setenv("MINICNN_THREADS", "0")
    with pytest.raises(ValueError, match="MINICNN_THREADS must be an integer of at least 1, got '0'"):
        threads.num_threads()
    threads.set_num_threads(before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "inner", "columns"), [(3, 4, 5), (1, 7, 1), (500, 60, 40), (40, 60, 500), (130, 300, 131), (1, 900, 700),
                                                        (700, 900, 1)])
def test_matmul_equals_numpys(rows, inner, columns, dtype):
    """Small, tall, wide and nearly square; integers, so that every order of addition gives the same sum."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 10, (rows, inner)).astype(dtype), rng.integers(-9, 10, (inner, columns)).astype(dtype)
    wide = np.zeros((rows, 2 * inner), dtype)
    wide[:, ::2] = a
    for n in (1, 2, 3):
        with use_threads(n):
            for left, right in ((a, b), (np.asfortranarray(a), b), (a, np.asfortranarray(b)), (wide[:, ::2], b)):
                y = threads.matmul(left, right)
                assert y.dtype == dtype
                assert np.array_equal(y, a @ b)


def test_the_callers_errstate_applies_in_every_thread():
    """Overflow raises in every thread if the caller's errstate says so, and is ignored otherwise."""
    def overflow():
        np.multiply(np.float32(3e38) * np.ones(2000, np.float32), np.float32(10))

    with np.errstate(over="ignore"):
        threads.run_tasks([overflow] * 8)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        threads.run_tasks([overflow] * 8)


def test_concurrent_callers_restore_the_number_of_blas_threads():
    """It is a setting of the process: callers take turns, and each restores it."""
    def blas():
        return [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]

    before, a = blas(), np.ones((200, 200), np.float32)
    workers = [threading.Thread(target=lambda: [threads.matmul(a, a) for _ in range(200)]) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert blas() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes():
    """It has none of its parent's threads and starts its own."""
    code = ("import os, signal, numpy as np\nfrom minicnn.backend import threads\nthreads.set_num_threads(2)\n"
            "a = np.ones((300, 300), np.float32)\nthreads.matmul(a, a)\npid = os.fork()\n"
            "if pid == 0:\n    signal.alarm(20)\n    os._exit(0 if (threads.matmul(a, a) == 300).all() else 1)\n"
            "print(os.waitpid(pid, 0)[1])")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
