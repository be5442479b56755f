"""Memory, log and folder of a long run stay bounded."""

import gc
import json
import os
import sys
import tracemalloc

import numpy as np
import pytest

import minicnn as mc
from minicnn.backend import cuda
from minicnn.nn import Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, ReLU, Sequential
from minicnn.train.checkpoint_manager import CheckpointManager
from minicnn.train.log import DivergenceError, TrainingLogger, log_interval, read_log
from minicnn.train.monitor import TrainingMonitor


class Bar:
    """The methods of a progress bar that TrainingLogger calls."""

    def set_postfix_str(self, text, refresh):
        pass

    def update(self, images):
        pass

    def write(self, line):
        pass


def resident():
    """Resident memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def train(folder, device, steps, callback):
    """The loop of examples/train_alexnet.py with a very small network of all of AlexNet's layers; `callback(step)` after each step."""
    mc.seed(0)
    model = Sequential(conv1=Conv2d(1, 4, 3), relu1=ReLU(), norm1=LocalResponseNorm(3), pool1=MaxPool2d(3, 2), flatten=Flatten(),
                       dropout=Dropout(), fc2=Linear(16, 3)).to(device)
    mc.nn.init.kaiming_(model)
    optimizer = mc.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    schedule, manager = mc.optim.LinearLR(optimizer, steps), CheckpointManager(folder, every_steps=steps // 50)
    rng = np.random.default_rng(0)
    images, labels = mc.Tensor(rng.standard_normal((4, 1, 8, 8)).astype(np.float32), device=device), np.array([0, 1, 2, 0])
    with TrainingLogger(folder / "log.jsonl", Bar(), device) as log, TrainingMonitor(model, optimizer, 3) as monitor:
        for step in range(1, steps + 1):
            loss = mc.ops.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            for finding in monitor.step(step, loss):
                log.finding(finding)
            optimizer.step()
            schedule.step()
            log.train(step, loss.data, loss.data, optimizer.param_groups[0]["lr"], 4)
            if manager.should_save(step):
                manager.save(step, None, model=model.state_dict(), optimizer=optimizer.state_dict())
            callback(step)


def test_memory_is_flat_over_ten_thousand_steps(tmp_path):
    """Resident memory (on Linux), and the number of objects that Python's garbage collector tracks."""
    memory, objects = {}, {}

    def measure(step):
        if step % 1000 == 0:
            gc.collect()
            objects[step] = len(gc.get_objects())
            memory[step] = resident() if sys.platform == "linux" else 0
    train(tmp_path, "cpu", 10_000, measure)
    assert memory[10_000] - memory[1000] < 4_000_000, memory
    assert abs(objects[10_000] - objects[1000]) < 500, objects
    assert len(list(tmp_path.iterdir())) == 4                           # three checkpoints and the log
    assert len(read_log(tmp_path / "log.jsonl")) >= 10_000


@pytest.mark.parametrize("leak", [False, True])
def test_memory_is_flat_to_the_byte(leak, tmp_path):
    """Memory of Python objects and NumPy arrays. Negative control: one more number in a list at each step is detected."""
    traced, leaked = {}, []

    def measure(step):
        if leak:
            leaked.append(float(step))
        if step % 500 == 0:
            traced[step] = tracemalloc.get_traced_memory()[0]
    tracemalloc.start(1)
    try:
        train(tmp_path, "cpu", 1500, measure)
    finally:
        tracemalloc.stop()
    assert (traced[1500] - traced[500] < 10_000) != leak, traced


def test_gpu_memory_is_flat(cupy, tmp_path):
    used = {}

    def measure(step):
        if step % 100 == 0:
            used[step] = cuda.memory_stats()["used"]
    train(tmp_path, "gpu", 1000, measure)
    assert len(set(list(used.values())[1:])) <= 2, used                 # up to 20 losses wait to be read


def test_the_log_of_a_long_run_stays_small(tmp_path):
    """A million steps, as in ninety epochs of ImageNet."""
    path = tmp_path / "log.jsonl"
    one = np.array(0.123456789, np.float32)
    with TrainingLogger(path, Bar()) as log:
        for step in range(1, 1_000_001):
            if step % log_interval(step) == 0 or step % 997 == 0:        # steps in between have no record: see the last assertion
                log.train(step, one, one, 0.01, 128)
    assert path.stat().st_size < 5_000_000
    found = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert found[:10_000] == list(range(1, 10_001))
    assert found[10_000:10_003] == [10_010, 10_020, 10_030]
    assert found[-2:] == [999_900, 1_000_000]
    assert len(found) == 10_000 + 9_000 + 9_000


def test_a_non_finite_loss_is_always_logged(tmp_path):
    with pytest.raises(DivergenceError), TrainingLogger(tmp_path / "log.jsonl", Bar()) as log:
        log.train(123_457, np.array(np.nan), np.array(0.0), 0.01, 128)
    assert read_log(tmp_path / "log.jsonl")[-1]["step"] == 123_457
