"""Ctrl-C and SIGTERM end a run between two steps: saved, with exit code 3, and nothing of it is lost."""

import signal

import pytest
from bits import differences
from program import HERE, SHORT, STEPS, Blow
from test_killed import check_log

from minicnn.keeper import checkpoints, load_newest
from minicnn.study.log import read_log

MOMENTS = {
    "in the middle of a step": ("step", 3, 3),
    "in the first step": ("step", 1, 1),
    "in the middle of validation": ("batch", 4, 9),         # after which comes a step, which is finished
    "before a save": ("save", 1, 2),
    "in the middle of a save": ("write", 10, 2),
    "before the rename": ("rename", 1, 2),
    "in the save after validation": ("save", 5, 9),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_asked_to_stop_saves_and_goes_on_bit_for_bit(moment, number, program, straight, tmp_path):
    phase, nth, step = MOMENTS[moment]
    result = program(*SHORT, "--steps", STEPS, "--out", "run", cwd=tmp_path, blows=[Blow(phase, nth, signal=number)])
    assert result.code == 3, result.err
    assert result.err.splitlines()[-1] == f"stopped by {number.name} after step {step}; go on with --resume run"
    assert "Traceback" not in result.err
    run = tmp_path / "run"
    assert load_newest(run)[1]["step"] == step
    assert not list(run.glob("*.tmp"))
    result = program("--resume", "run", *HERE, "--steps", STEPS, cwd=tmp_path)
    assert result.code == 0, result.err
    assert differences(load_newest(run)[1], straight[0]) == []
    check_log(read_log(run / "log.jsonl"), straight[1])


def test_a_run_that_is_asked_in_its_last_validation_just_ends(program, straight, tmp_path):
    result = program(*SHORT, "--steps", STEPS, "--out", "run", cwd=tmp_path, blows=[Blow("batch", 12, signal=signal.SIGTERM)])
    assert result.code == 0, result.err
    assert differences(load_newest(tmp_path / "run")[1], straight[0]) == []


@pytest.mark.parametrize("phase, nth", [("step", 1), ("write", 3), ("rename", 1)])
def test_a_second_ctrl_c_ends_it_at_once_and_the_older_checkpoint_stays(phase, nth, program, straight, tmp_path):
    """The first comes in step 3, and the second right after it, or while the checkpoint is written that the first asked for."""
    begun = program(*SHORT, "--steps", 2, "--out", "run", cwd=tmp_path)
    assert begun.code == 0, begun.err
    blows = [Blow("step", 1, signal=signal.SIGINT), Blow(phase, nth, signal=signal.SIGINT)]
    result = program("--resume", "run", *HERE, "--steps", STEPS, cwd=tmp_path, blows=blows)
    assert result.code == 130
    assert "KeyboardInterrupt" in result.err
    run = tmp_path / "run"
    assert [step for step, _ in checkpoints(run)] == [2]
    assert not list(run.glob("*.tmp"))
    result = program("--resume", "run", *HERE, "--steps", STEPS, cwd=tmp_path)
    assert result.code == 0, result.err
    for part in ("model", "optimizer", "random", "schedule", "step"):
        assert differences(load_newest(run)[1][part], straight[0][part]) == []
    check_log([r for r in read_log(run / "log.jsonl") if (r["kind"], r["step"]) != ("val", 2)], straight[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_before_it_began_leaves_nothing(number, program, tmp_path):
    result = program(*SHORT, "--steps", STEPS, "--out", "run", cwd=tmp_path, blows=[Blow("data", signal=number)])
    assert result.code in (-signal.SIGTERM, 130)
    assert list(tmp_path.iterdir()) == []
