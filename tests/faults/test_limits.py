"""A long run needs no more memory than a short one, and its log and folder stay small."""

import gc
import json
import os
import sys
import tracemalloc

import numpy as np
import pytest

import minicnn as mc
from minicnn import gpu
from minicnn.keeper import Keeper
from minicnn.nn import Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, ReLU, Sequential
from minicnn.study.health import Health
from minicnn.study.log import Diverged, RunLog, lines_apart, read_log


class Bar:
    """What RunLog asks of a progress bar."""

    def set_postfix_str(self, words, refresh):
        pass

    def update(self, images):
        pass

    def write(self, words):
        pass


def resident():
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def a_run(folder, device, steps, look):
    """The loop of examples/train_alexnet.py with a very small network of all of AlexNet's layers; `look(step)` after each."""
    mc.seed(0)
    model = Sequential(conv1=Conv2d(1, 4, 3), relu1=ReLU(), norm1=LocalResponseNorm(3), pool1=MaxPool2d(3, 2), flatten=Flatten(),
                       dropout=Dropout(), fc2=Linear(16, 3)).to(device)
    mc.init.he(model)
    optimizer = mc.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    schedule, keeper = mc.optim.LinearDecay(optimizer, steps), Keeper(folder, every_steps=steps // 50)
    rng = np.random.default_rng(0)
    images, labels = mc.Tensor(rng.standard_normal((4, 1, 8, 8)).astype(np.float32), device=device), np.array([0, 1, 2, 0])
    with RunLog(folder / "log.jsonl", Bar(), device) as log, Health(model, optimizer, 3) as health:
        for step in range(1, steps + 1):
            loss = mc.ops.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            for finding in health.step(step, loss):
                log.finding(finding)
            optimizer.step()
            schedule.step()
            log.train(step, loss.data, loss.data, optimizer.groups[0]["lr"], 4)
            if keeper.due(step):
                keeper.save(step, None, model=model.state_dict(), optimizer=optimizer.state_dict())
            look(step)


def test_memory_is_flat_over_ten_thousand_steps(tmp_path):
    """All that the process holds (on Linux), and how many objects Python's collector knows of."""
    held, objects = {}, {}

    def look(step):
        if step % 1000 == 0:
            gc.collect()
            objects[step] = len(gc.get_objects())
            held[step] = resident() if sys.platform == "linux" else 0
    a_run(tmp_path, "cpu", 10_000, look)
    assert held[10_000] - held[1000] < 4_000_000, held
    assert abs(objects[10_000] - objects[1000]) < 500, objects
    assert len(list(tmp_path.iterdir())) == 4                           # three checkpoints and the log
    assert len(read_log(tmp_path / "log.jsonl")) >= 10_000


@pytest.mark.parametrize("leak", [False, True])
def test_memory_is_flat_to_the_byte(leak, tmp_path):
    """Of Python's objects and NumPy's arrays. The negative control, one number more in a list each step, would be seen."""
    traced, kept = {}, []

    def look(step):
        if leak:
            kept.append(float(step))
        if step % 500 == 0:
            traced[step] = tracemalloc.get_traced_memory()[0]
    tracemalloc.start(1)
    try:
        a_run(tmp_path, "cpu", 1500, look)
    finally:
        tracemalloc.stop()
    assert (traced[1500] - traced[500] < 10_000) != leak, traced


def test_gpu_memory_is_flat(cupy, tmp_path):
    used = {}

    def look(step):
        if step % 100 == 0:
            used[step] = gpu.memory()["used"]
    a_run(tmp_path, "gpu", 1000, look)
    assert len(set(list(used.values())[1:])) <= 2, used                 # the unread losses of up to 20 steps come and go


def test_the_log_of_a_long_run_stays_small(tmp_path):
    """A million steps, as ninety epochs of ImageNet are."""
    path = tmp_path / "log.jsonl"
    one = np.array(0.123456789, np.float32)
    with RunLog(path, Bar()) as log:
        for step in range(1, 1_000_001):
            if step % lines_apart(step) == 0 or step % 997 == 0:        # the others leave no line: see the last assertion
                log.train(step, one, one, 0.01, 128)
    assert path.stat().st_size < 5_000_000
    found = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert found[:10_000] == list(range(1, 10_001))
    assert found[10_000:10_003] == [10_010, 10_020, 10_030]
    assert found[-2:] == [999_900, 1_000_000]
    assert len(found) == 10_000 + 9_000 + 9_000


def test_a_loss_that_is_no_number_has_its_line_also_late(tmp_path):
    with pytest.raises(Diverged), RunLog(tmp_path / "log.jsonl", Bar()) as log:
        log.train(123_457, np.array(np.nan), np.array(0.0), 0.01, 128)
    assert read_log(tmp_path / "log.jsonl")[-1]["step"] == 123_457
