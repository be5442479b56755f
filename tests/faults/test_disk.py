"""A disk that is full, read-only or broken costs the newest checkpoint at most: the older ones stay intact, and one line says why.

Each system call of a save fails in turn: simulated, and on a real small disk where one can be mounted.
"""

import contextlib
import errno
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from bits import differences, same_bits
from program import ERRNOS, HERE, SHORT, STEPS
from test_killed import check_log

import minicnn as mc
from minicnn import checkpoint as module
from minicnn.train.checkpoint_manager import CheckpointManager, list_checkpoints, load_latest
from minicnn.train.log import read_log


def contents(step):
    rng = np.random.default_rng(step)
    return {"model": {f"w{i}": rng.standard_normal((8, 9)).astype(np.float32) for i in range(6)}, "step": step}


class Disk:
    """Records the system calls of a save, and makes number `fails` and, if `lasting`, all following ones fail.

    half: a write that fails first writes half of its bytes, as when a disk becomes full.
    """

    def __init__(self, monkeypatch, fails=None, number=errno.ENOSPC, lasting=True, half=False):
        self.calls, self.fails, self.number, self.lasting, self.half = [], fails, number, lasting, half
        disk = self

        class File(io.FileIO):
            def write(self, data):
                if disk.half and disk.is_failing(len(disk.calls) + 1):
                    super().write(bytes(data)[:len(data) // 2])
                disk.call("write")
                return super().write(data)

        def opened(path, mode="r", *args, **kwargs):
            if "w" not in mode:
                return open(path, mode, *args, **kwargs)
            self.call("open")
            return io.BufferedWriter(File(path, "w"), 256)

        monkeypatch.setattr(module, "open", opened, raising=False)
        for name in ("fsync", "replace", "unlink"):
            monkeypatch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name, function):
        def call(*args, **kwargs):
            self.call(name)
            return function(*args, **kwargs)
        return call

    def is_failing(self, count):
        return self.fails is not None and (count >= self.fails if self.lasting else count == self.fails)

    def call(self, name):
        self.calls.append(name)
        if self.is_failing(len(self.calls)):
            raise OSError(self.number, os.strerror(self.number))


def calls_of_a_save(tmp_path):
    """The system calls of a save when nothing fails."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = Disk(monkeypatch)
        mc.save_checkpoint(tmp_path / "calls.npz", **contents(2))
    os.unlink(tmp_path / "calls.npz")
    return disk.calls


@pytest.mark.parametrize("number", ERRNOS, ids=[errno.errorcode[n] for n in ERRNOS])
@pytest.mark.parametrize("lasting", [True, False], ids=["from then on", "once"])
@pytest.mark.parametrize("half", [False, True], ids=["nothing written", "half written"])
def test_if_any_call_of_a_save_fails_the_old_file_or_the_new_one_is_intact(number, lasting, half, tmp_path):
    """After the rename the new file may stay; before, nothing of it stays, unless the disk also refuses to remove it."""
    expected = calls_of_a_save(tmp_path)
    assert expected[0] == "open"
    assert expected.count("write") > 10
    assert expected[-3:] == ["fsync", "replace", "fsync"]
    path = tmp_path / "a.npz"
    for fails in range(1, len(expected) + 1):
        mc.save_checkpoint(path, **contents(1))
        with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(OSError, match=os.strerror(number)) as caught:
            disk = Disk(monkeypatch, fails, number, lasting, half)
            mc.save_checkpoint(path, **contents(2))
        assert caught.value.errno == number, (fails, caught.value)
        renamed = fails > expected.index("replace") + 1
        assert same_bits(mc.load_checkpoint(path), contents(2 if renamed else 1)), fails
        stuck = lasting and disk.calls[-1] == "unlink" and fails > 1            # (if open failed, there is nothing to remove)
        left = [name for name in os.listdir(tmp_path) if name != "a.npz"]
        assert len(left) == stuck, (fails, left)
        for name in left:
            os.unlink(tmp_path / name)


def test_a_save_after_a_failed_one(tmp_path):
    """It also removes the temporary file that the failed save could not remove."""
    manager = CheckpointManager(tmp_path)
    manager.save(1, model=contents(1)["model"])
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(OSError, match="Read-only"):
        Disk(monkeypatch, 8, errno.EROFS)
        manager.save(2, model=contents(2)["model"])
    assert len(os.listdir(tmp_path)) == 2
    manager.save(3, model=contents(3)["model"])
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-000000001.npz", "checkpoint-000000003.npz"]


@pytest.mark.parametrize("number", ERRNOS, ids=[errno.errorcode[n] for n in ERRNOS])
@pytest.mark.parametrize("name, nth, newest", [("fsync", 1, None), ("fsync", 3, 2), ("fsync", 4, 4), ("replace", 3, 4), ("unlink", 1, 12)])
def test_the_program_ends_with_one_clear_line_and_can_be_resumed(name, nth, newest, number, program, straight, tmp_path):
    """A save calls fsync twice, for the file and for its folder. An old checkpoint that cannot be removed does not end the run."""
    run = tmp_path / "run"
    result = program(*SHORT, "--max-steps", STEPS, "--out", "run", cwd=tmp_path, faults={"failing": [name, nth, number]})
    found = [step for step, _ in list_checkpoints(run)]
    if name == "unlink":
        assert result.code == 0, result.err
        assert found == [2, 4, 6, 8, 10, 12]
        return
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("error: ")
    assert os.strerror(number) in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
    assert not list(run.glob("*.tmp"))
    assert found == list(range(2, (newest or 0) + 1, 2))
    again = ["--resume", "run", *HERE] if newest else [*SHORT, "--out", "run"]
    result = program(*again, "--max-steps", STEPS, cwd=tmp_path)
    assert result.code == 0, result.err
    assert differences(load_latest(run)[1], straight[0]) == []
    check_log(read_log(run / "log.jsonl"), straight[1])


# ---- a real disk ----

@contextlib.contextmanager
def mounted(folder, size):
    """A file system in memory of this size, mounted at `folder`; skips the test where none can be mounted."""
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small disk")
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "minicnn-test", folder], capture_output=True, text=True,
                              check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount program")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def remount(folder, *options):
    subprocess.run(["mount", "-o", ",".join(("remount", *options)), folder], check=True)


def check_refused(result, reason):
    assert result.code == 2, result.err
    assert result.err.splitlines()[-1].startswith("error: ")
    assert reason in result.err.splitlines()[-1]
    assert "Traceback" not in result.err


def test_a_disk_that_becomes_full_during_a_save(program, straight, tmp_path):
    with mounted(tmp_path / "disk", "10m") as disk:         # a little more than two checkpoints
        result = program(*SHORT, "--max-steps", STEPS, "--out", "disk/run", cwd=tmp_path)
        check_refused(result, "No space left on device")
        assert [step for step, _ in list_checkpoints(disk / "run")] == [2, 4]
        assert sorted(os.listdir(disk / "run")) == ["checkpoint-000000002.npz", "checkpoint-000000004.npz", "log.jsonl"]
        assert load_latest(disk / "run")[1]["step"] == 4
        check_refused(program("--resume", "disk/run", *HERE, "--max-steps", STEPS, cwd=tmp_path), "No space left on device")
        assert load_latest(disk / "run")[1]["step"] == 4
        remount(disk, "size=60m")
        result = program("--resume", "disk/run", *HERE, "--max-steps", STEPS, cwd=tmp_path)
        assert result.code == 0, result.err
        assert differences(load_latest(disk / "run")[1], straight[0]) == []
        check_log(read_log(disk / "run" / "log.jsonl"), straight[1])


def test_a_disk_without_space_for_a_line_of_the_log(program, straight, tmp_path):
    with mounted(tmp_path / "disk", "60m") as disk:
        assert program(*SHORT, "--max-steps", 4, "--out", "disk/run", cwd=tmp_path).code == 0
        log = disk / "run" / "log.jsonl"
        room = -log.stat().st_size % 4096
        with open(log, "a") as file:                        # up to 50 bytes before the end of its last block
            file.write(" " * (room - 51) + "\n")
        with open(disk / "big", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        before = {path: path.read_bytes() for path in disk.glob("run/*.npz")}
        check_refused(program("--resume", "disk/run", *HERE, "--max-steps", STEPS, cwd=tmp_path), "No space left on device")
        assert {path: path.read_bytes() for path in disk.glob("run/*.npz")} == before
        os.unlink(disk / "big")
        result = program("--resume", "disk/run", *HERE, "--max-steps", STEPS, cwd=tmp_path)
        assert result.code == 0, result.err
        check_log([r for r in read_log(log) if (r["kind"], r["step"]) != ("val", 4)], straight[1])


def test_a_read_only_disk(program, tmp_path):
    with mounted(tmp_path / "disk", "60m") as disk:
        assert program(*SHORT, "--max-steps", 4, "--out", "disk/run", cwd=tmp_path).code == 0
        remount(disk, "ro")
        before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
        check_refused(program("--resume", "disk/run", *HERE, "--max-steps", STEPS, cwd=tmp_path), "Read-only file system")
        check_refused(program(*SHORT, "--max-steps", 4, "--out", "disk/new", cwd=tmp_path), "Read-only file system")
        assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before
