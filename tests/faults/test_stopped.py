"""Ctrl-C and SIGTERM stop a run after a whole step, save it, and exit with code 3; nothing is lost."""

import signal

import pytest
from bits import differences
from program import HERE, SHORT, STEPS, Blow
from test_killed import check_log

from minicnn.train.checkpoint_manager import list_checkpoints, load_latest
from minicnn.train.log import read_log

MOMENTS = {
    "in the middle of a step": ("step", 3, 3),
    "in the first step": ("step", 1, 1),
    "in the middle of validation": ("batch", 4, 9),         # the step after it is completed
    "before a save": ("save", 1, 2),
    "in the middle of a save": ("write", 10, 2),
    "before the rename": ("rename", 1, 2),
    "in the save after validation": ("save", 5, 9),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stopped_run_is_saved_and_resumes_bit_for_bit(moment, number, program, straight, tmp_path):
    phase, nth, step = MOMENTS[moment]
    result = program(*SHORT, "--max-steps", STEPS, "--out", "run", cwd=tmp_path, blows=[Blow(phase, nth, signal=number)])
    assert result.code == 3, result.err
    assert result.err.splitlines()[-1] == f"stopped by {number.name} after step {step}; continue with --resume run"
    assert "Traceback" not in result.err
    run = tmp_path / "run"
    assert load_latest(run)[1]["step"] == step
    assert not list(run.glob("*.tmp"))
    result = program("--resume", "run", *HERE, "--max-steps", STEPS, cwd=tmp_path)
    assert result.code == 0, result.err
    assert differences(load_latest(run)[1], straight[0]) == []
    check_log(read_log(run / "log.jsonl"), straight[1])


def test_a_signal_in_the_last_validation_is_too_late(program, straight, tmp_path):
    result = program(*SHORT, "--max-steps", STEPS, "--out", "run", cwd=tmp_path, blows=[Blow("batch", 12, signal=signal.SIGTERM)])
    assert result.code == 0, result.err
    assert differences(load_latest(tmp_path / "run")[1], straight[0]) == []


@pytest.mark.parametrize("phase, nth", [("step", 1), ("write", 3), ("rename", 1)])
def test_a_second_ctrl_c_stops_at_once_and_the_older_checkpoint_stays(phase, nth, program, straight, tmp_path):
    """The first comes in step 3, and the second right after it, or while the checkpoint that follows the first is written."""
    begun = program(*SHORT, "--max-steps", 2, "--out", "run", cwd=tmp_path)
    assert begun.code == 0, begun.err
    blows = [Blow("step", 1, signal=signal.SIGINT), Blow(phase, nth, signal=signal.SIGINT)]
    result = program("--resume", "run", *HERE, "--max-steps", STEPS, cwd=tmp_path, blows=blows)
    assert result.code == 130
    assert "KeyboardInterrupt" in result.err
    run = tmp_path / "run"
    assert [step for step, _ in list_checkpoints(run)] == [2]
    assert not list(run.glob("*.tmp"))
    result = program("--resume", "run", *HERE, "--max-steps", STEPS, cwd=tmp_path)
    assert result.code == 0, result.err
    for part in ("model", "optimizer", "random", "schedule", "step"):
        assert differences(load_latest(run)[1][part], straight[0][part]) == []
    check_log([r for r in read_log(run / "log.jsonl") if (r["kind"], r["step"]) != ("val", 2)], straight[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_while_it_starts_writes_nothing(number, program, tmp_path):
    result = program(*SHORT, "--max-steps", STEPS, "--out", "run", cwd=tmp_path, blows=[Blow("data", signal=number)])
    assert result.code in (-signal.SIGTERM, 130)
    assert list(tmp_path.iterdir()) == []
