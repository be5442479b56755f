"""Which checkpoints are written, kept and found."""

import numpy as np
import pytest

import minicnn as mc
from minicnn.train import checkpoint_manager as module
from minicnn.train.checkpoint_manager import CheckpointManager, list_checkpoints, load_latest, run_lock


def steps(folder):
    return [step for step, _ in list_checkpoints(folder)]


def test_should_save_by_steps_and_by_time(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    manager = CheckpointManager(tmp_path, every_steps=50, every_seconds=600)
    assert [step for step in range(1, 151) if manager.should_save(step)] == [50, 100, 150]
    now[0] += 599
    assert not manager.should_save(7)
    now[0] += 1
    assert manager.should_save(7)
    manager.save(7)
    assert not manager.should_save(8)                            # the time is counted from the last save
    assert manager.should_save(50)
    assert not any(CheckpointManager(tmp_path, every_steps=None, every_seconds=None).should_save(step) for step in range(1, 1000))


def test_the_last_few_and_the_best_are_kept(tmp_path):
    manager = CheckpointManager(tmp_path, keep_last=2)
    seen = []
    for step, score in [(1, 50.0), (2, None), (3, 70.0), (4, None), (5, 60.0), (6, 70.0), (7, None), (8, 71.5), (9, None), (10, None)]:
        manager.save(step, score)
        seen.append(steps(tmp_path))
    assert seen == [[1], [1, 2], [2, 3], [3, 4], [3, 4, 5], [3, 5, 6], [3, 6, 7], [7, 8], [8, 9], [8, 9, 10]]
    assert manager.best == {"step": 8, "score": 71.5}    # of two equal scores the earlier: 3 is still the best after 6
    assert load_latest(tmp_path)[1]["best"] == {"step": 8, "score": 71.5}


def test_the_size_of_a_folder_is_bounded(tmp_path):
    manager = CheckpointManager(tmp_path, keep_last=3)
    (tmp_path / "notes.txt").write_text("mine")
    most = 0
    for step in range(1, 201):
        (tmp_path / f"checkpoint-{step:09}.npz.77.tmp").write_bytes(b"of an interrupted save")
        manager.save(step, float(np.sin(step)), w=np.zeros(100))
        most = max(most, len(list(tmp_path.iterdir())))
    assert most == 5                                    # three, the best, and the notes
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_other_files_are_neither_found_nor_removed(tmp_path):
    others = ["checkpoint-1.npz", "checkpoint-000000005.npz.bak", "my-checkpoint-000000005.npz", "checkpoint-best.npz"]
    for name in others:
        (tmp_path / name).write_text("mine")
    manager = CheckpointManager(tmp_path, keep_last=1)
    for step in range(1, 4):
        manager.save(step)
    assert steps(tmp_path) == [3]
    assert {path.name for path in tmp_path.iterdir()} == {*others, "checkpoint-000000003.npz"}


def test_the_newest_is_the_one_with_most_steps_also_beyond_nine_digits(tmp_path):
    manager = CheckpointManager(tmp_path, keep_last=9)
    for step in (999_999_999, 2_000_000_000, 5):
        manager.save(step)
    assert steps(tmp_path) == [5, 999_999_999, 2_000_000_000]
    assert load_latest(tmp_path)[1]["step"] == 2_000_000_000


def test_damaged_checkpoints_are_skipped_and_named(tmp_path):
    manager = CheckpointManager(tmp_path)
    for step in (1, 2, 3):
        manager.save(step)
    (tmp_path / "checkpoint-000000003.npz").write_bytes(b"")
    path, contents, damaged = load_latest(tmp_path)
    assert (path.name, contents["step"], len(damaged)) == ("checkpoint-000000002.npz", 2, 1)
    assert "checkpoint-000000003.npz" in damaged[0]
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step:09}.npz").write_bytes(b"PK")
    with pytest.raises(mc.CheckpointError, match="all 3 checkpoints are damaged; the newest: .*003.npz"):
        load_latest(tmp_path)


def test_resuming_from_an_older_checkpoint_sets_the_newer_ones_aside(tmp_path):
    manager = CheckpointManager(tmp_path)
    for step in (5, 10, 11):
        manager.save(step)
    again = CheckpointManager(tmp_path)
    assert [p.name for p in again.set_aside_newer(5)] == ["set-aside-checkpoint-000000010.npz", "set-aside-checkpoint-000000011.npz"]
    assert steps(tmp_path) == [5]
    again.save(6)
    assert load_latest(tmp_path)[1]["step"] == 6
    assert mc.load_checkpoint(tmp_path / "set-aside-checkpoint-000000011.npz")["step"] == 11
    assert again.set_aside_newer(6) == []


def test_a_checkpoint_that_is_removed_while_the_newest_is_searched(tmp_path, monkeypatch):
    manager = CheckpointManager(tmp_path)
    for step in (1, 2):
        manager.save(step)
    monkeypatch.setattr(module, "list_checkpoints", lambda folder: [*list_checkpoints(folder), (3, tmp_path / "checkpoint-000000003.npz")])
    path, _, damaged = load_latest(tmp_path)
    assert path.name == "checkpoint-000000002.npz"
    assert "no checkpoint at" in damaged[0]


def test_an_empty_folder(tmp_path):
    with pytest.raises(mc.CheckpointError, match="no checkpoint of a run is here"):
        load_latest(tmp_path)


def test_keep_last_must_be_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="CheckpointManager: keep_last must be at least 1, got 0"):
        CheckpointManager(tmp_path, keep_last=0)


def test_one_run_at_a_time(tmp_path):
    with (run_lock(tmp_path), pytest.raises(FileExistsError, match="another training is running in this folder"),
          run_lock(tmp_path)):
        pass
    with run_lock(tmp_path):
        pass
