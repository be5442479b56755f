"""Which checkpoints are due, kept and found."""

import numpy as np
import pytest

import minicnn as mc
from minicnn import keeper as module
from minicnn.keeper import Keeper, checkpoints, load_newest, only_run_in


def steps(folder):
    return [step for step, _ in checkpoints(folder)]


def test_due_by_steps_and_by_time(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    keeper = Keeper(tmp_path, every_steps=50, every_seconds=600)
    assert [step for step in range(1, 151) if keeper.due(step)] == [50, 100, 150]
    now[0] += 599
    assert not keeper.due(7)
    now[0] += 1
    assert keeper.due(7)
    keeper.save(7)
    assert not keeper.due(8)                            # the time counts from the last save
    assert keeper.due(50)
    assert not any(Keeper(tmp_path, every_steps=None, every_seconds=None).due(step) for step in range(1, 1000))


def test_the_last_few_and_the_best_stay(tmp_path):
    keeper = Keeper(tmp_path, keep=2)
    seen = []
    for step, score in [(1, 50.0), (2, None), (3, 70.0), (4, None), (5, 60.0), (6, 70.0), (7, None), (8, 71.5), (9, None), (10, None)]:
        keeper.save(step, score)
        seen.append(steps(tmp_path))
    assert seen == [[1], [1, 2], [2, 3], [3, 4], [3, 4, 5], [3, 5, 6], [3, 6, 7], [7, 8], [8, 9], [8, 9, 10]]
    assert keeper.best == {"step": 8, "score": 71.5}    # of two that are equally good the earlier: 3 stayed the best at 6
    assert load_newest(tmp_path)[1]["best"] == {"step": 8, "score": 71.5}


def test_a_folder_stays_bounded_however_many_saves(tmp_path):
    keeper = Keeper(tmp_path, keep=3)
    (tmp_path / "notes.txt").write_text("mine")
    most = 0
    for step in range(1, 201):
        (tmp_path / f"checkpoint-{step:09}.npz.77.tmp").write_bytes(b"of a save that was cut short")
        keeper.save(step, float(np.sin(step)), w=np.zeros(100))
        most = max(most, len(list(tmp_path.iterdir())))
    assert most == 5                                    # three, the best, and the notes
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_files_that_are_not_of_the_run_are_neither_found_nor_removed(tmp_path):
    others = ["checkpoint-1.npz", "checkpoint-000000005.npz.bak", "my-checkpoint-000000005.npz", "checkpoint-best.npz"]
    for name in others:
        (tmp_path / name).write_text("mine")
    keeper = Keeper(tmp_path, keep=1)
    for step in range(1, 4):
        keeper.save(step)
    assert steps(tmp_path) == [3]
    assert {path.name for path in tmp_path.iterdir()} == {*others, "checkpoint-000000003.npz"}


def test_the_newest_is_the_one_with_most_steps_also_beyond_nine_digits(tmp_path):
    keeper = Keeper(tmp_path, keep=9)
    for step in (999_999_999, 2_000_000_000, 5):
        keeper.save(step)
    assert steps(tmp_path) == [5, 999_999_999, 2_000_000_000]
    assert load_newest(tmp_path)[1]["step"] == 2_000_000_000


def test_damaged_ones_are_passed_over_and_named(tmp_path):
    keeper = Keeper(tmp_path)
    for step in (1, 2, 3):
        keeper.save(step)
    (tmp_path / "checkpoint-000000003.npz").write_bytes(b"")
    path, contents, damaged = load_newest(tmp_path)
    assert (path.name, contents["step"], len(damaged)) == ("checkpoint-000000002.npz", 2, 1)
    assert "checkpoint-000000003.npz" in damaged[0]
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step:09}.npz").write_bytes(b"PK")
    with pytest.raises(mc.CheckpointError, match="none of its 3 checkpoints is whole; the newest: .*003.npz"):
        load_newest(tmp_path)


def test_going_on_from_an_older_one_leaves_the_later_ones_behind(tmp_path):
    keeper = Keeper(tmp_path)
    for step in (5, 10, 11):
        keeper.save(step)
    again = Keeper(tmp_path)
    assert [p.name for p in again.begin(5)] == ["left-behind-checkpoint-000000010.npz", "left-behind-checkpoint-000000011.npz"]
    assert steps(tmp_path) == [5]
    again.save(6)
    assert load_newest(tmp_path)[1]["step"] == 6
    assert mc.load_checkpoint(tmp_path / "left-behind-checkpoint-000000011.npz")["step"] == 11
    assert again.begin(6) == []


def test_a_checkpoint_that_is_removed_while_it_is_looked_for(tmp_path, monkeypatch):
    keeper = Keeper(tmp_path)
    for step in (1, 2):
        keeper.save(step)
    monkeypatch.setattr(module, "checkpoints", lambda folder: [*checkpoints(folder), (3, tmp_path / "checkpoint-000000003.npz")])
    path, _, damaged = load_newest(tmp_path)
    assert path.name == "checkpoint-000000002.npz"
    assert "no checkpoint at" in damaged[0]


def test_an_empty_folder(tmp_path):
    with pytest.raises(mc.CheckpointError, match="no checkpoint of a run is here"):
        load_newest(tmp_path)


def test_keep_is_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="keep is at least 1, not 0"):
        Keeper(tmp_path, keep=0)


def test_one_run_at_a_time(tmp_path):
    with (only_run_in(tmp_path), pytest.raises(FileExistsError, match="another training is running in this folder"),
          only_run_in(tmp_path)):
        pass
    with only_run_in(tmp_path):
        pass
