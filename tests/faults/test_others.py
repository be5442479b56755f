"""Other faults: a second run in the same folder, wrong clocks, and a part of the state that is not restored."""

import os
import signal
import subprocess
import sys
import time

import pytest
from bits import differences
from program import HERE, ROOT, SHORT, STEPS, Blow
from test_killed import check_log

from minicnn.train.checkpoint_manager import list_checkpoints, load_latest
from minicnn.train.log import read_log


def test_two_runs_in_one_folder(program, straight, tmp_path):
    """The second is refused while the first is running, and does not change the first."""
    run = tmp_path / "run"
    assert program(*SHORT, "--max-steps", STEPS, "--out", "run", cwd=tmp_path, blows=[Blow("step", 3)]).code == -9
    first = subprocess.Popen([sys.executable, ROOT / "examples" / "train_alexnet.py", "--resume", run, *HERE, "--max-steps", str(STEPS)],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 100
        while [step for step, _ in list_checkpoints(run)] == [2] and time.monotonic() < end:        # until it trains
            time.sleep(0.001)
        os.kill(first.pid, signal.SIGSTOP)                                                      # paused in the middle of it
        for arguments in (["--resume", "run", *HERE], [*SHORT, "--out", "run"]):
            before = {path.name: path.read_bytes() for path in run.iterdir()}
            second = program(*arguments, "--max-steps", STEPS, cwd=tmp_path)
            assert second.code == 2, second.err
            assert second.err.startswith("error: run")
            assert ("another training is running in this folder" in second.err) == ("--resume" in arguments)
            assert {path.name: path.read_bytes() for path in run.iterdir()} == before
        os.kill(first.pid, signal.SIGCONT)
        assert first.wait(100) == 0
    finally:
        if first.poll() is None:
            first.kill()
            first.wait()
    assert differences(load_latest(run)[1], straight[0]) == []
    check_log(read_log(run / "log.jsonl"), straight[1])


def test_a_killed_run_releases_its_lock(program, tmp_path):
    assert program(*SHORT, "--max-steps", STEPS, "--out", "run", cwd=tmp_path, blows=[Blow("step", 5)]).code == -9
    assert program("--resume", "run", *HERE, "--max-steps", STEPS, cwd=tmp_path).code == 0


@pytest.mark.parametrize("now, tick", [
    pytest.param(-1e9, 0.01, id="before 1970"),
    pytest.param(4e9, -0.5, id="running backwards"),
    pytest.param(1e9, 0.0, id="standing still"),
    pytest.param(0.0, 1e6, id="racing"),
])
def test_a_resumed_run_does_not_depend_on_the_clock(now, tick, program, straight, tmp_path):
    """The first half with a correct clock, the second with a wrong one and files dated in the future."""
    run = tmp_path / "run"
    assert program(*SHORT, "--max-steps", STEPS, "--out", "run", cwd=tmp_path, blows=[Blow("step", 7)]).code == -9
    for age, (_, path) in enumerate(reversed(list_checkpoints(run))):
        os.utime(path, (2e9 + 1e6 * age,) * 2)                                  # the oldest has the newest date
    result = program("--resume", "run", *HERE, "--max-steps", STEPS, cwd=tmp_path, faults={"clock": [now, tick]})
    assert result.code == 0, result.err
    assert [step for step, _ in list_checkpoints(run)] == ([10, 11, 12] if tick > 60 else [8, 10, 12])       # ten minutes pass in each step
    assert differences(load_latest(run)[1], straight[0]) == []
    check_log(read_log(run / "log.jsonl"), straight[1])


@pytest.mark.parametrize("function, differs", [
    pytest.param("minicnn.random.set_state", "/model/conv1.weight", id="seed and counters"),
    pytest.param("minicnn.optim.SGD.load_state_dict", "/optimizer/velocities/0", id="velocities"),
    pytest.param("minicnn.optim.LinearLR.load_state_dict", "/schedule/epoch", id="schedule"),
    pytest.param("minicnn.nn.Module.load_state_dict", "/model/conv1.weight", id="weights"),
])
def test_a_part_of_the_state_that_is_not_restored_is_detected(function, differs, program, straight, tmp_path):
    """Negative controls: what the other tests compare differs if one part is not restored."""
    assert program(*SHORT, "--max-steps", STEPS, "--out", "run", cwd=tmp_path, blows=[Blow("step", 7)]).code == -9
    result = program("--resume", "run", *HERE, "--max-steps", STEPS, cwd=tmp_path, faults={"forgetting": [function]})
    assert result.code == 0, result.err
    found = differences(load_latest(tmp_path / "run")[1], straight[0])
    assert any(name.startswith(differs.rpartition("/")[0]) for name in found), found
    with pytest.raises(AssertionError):
        check_log(read_log(tmp_path / "run" / "log.jsonl"), straight[1])
