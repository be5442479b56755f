"""Checkpoints: what was saved is loaded exactly, or the file is refused."""

import json
import os
import zipfile

import numpy as np
import pytest

import minicnn as mc


def contents():
    channels_last = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2).transpose(0, 3, 1, 2)
    return {"model": {"conv1.weight": channels_last, "conv1.bias": np.ones(2)},
            "velocities": [np.full((2, 2), 0.5, np.float32), np.zeros(0, np.float32)],
            "step": 12, "rate": 0.1, "name": "Ångström", "done": False,
            "best": None, "nested": {"list": [1, [2.5, "three"], {}]}, "scalar": np.float32(1.5), "count": np.int64(7)}


def test_round_trip_keeps_every_value_shape_and_dtype(tmp_path):
    path = tmp_path / "a.npz"
    mc.save_checkpoint(path, **contents())
    loaded = mc.load_checkpoint(path)
    expected = contents()
    for name in ("conv1.weight", "conv1.bias"):
        assert loaded["model"][name].dtype == expected["model"][name].dtype
        np.testing.assert_array_equal(loaded["model"][name], expected["model"][name])
    for got, want in zip(loaded["velocities"], expected["velocities"], strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    for name in ("step", "rate", "name", "done", "best", "nested", "count"):
        assert loaded[name] == expected[name]
    assert loaded["scalar"] == 1.5


def test_there_is_no_pickle_in_the_file(tmp_path):
    mc.save_checkpoint(tmp_path / "a.npz", **contents())
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as member:
                    np.lib.format.read_array(member, allow_pickle=False)
            else:
                assert name == "tree.json"
                json.loads(archive.read(name))


def test_objects_are_refused_and_the_old_file_is_unchanged(tmp_path):
    path = tmp_path / "a.npz"
    mc.save_checkpoint(path, step=1)
    with pytest.raises(TypeError, match="extra must be a number, string, array, dict or list, got object"):
        mc.save_checkpoint(path, step=2, extra=object())
    with pytest.raises(TypeError, match="names must be an array of numbers, got dtype <U1"):
        mc.save_checkpoint(path, step=2, names=np.array(["a"]))
    with pytest.raises(TypeError, match="keys"):
        mc.save_checkpoint(path, step=2, by_number={1: 2})
    assert mc.load_checkpoint(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["a.npz"]


def test_a_failed_write_leaves_the_old_file_intact(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    mc.save_checkpoint(path, step=1)

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        mc.save_checkpoint(path, step=2, weights=np.ones(1000))
    assert mc.load_checkpoint(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["a.npz"]


def test_the_file_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b))[1])
    mc.save_checkpoint(tmp_path / "a.npz", step=1)
    assert events[:2] == ["fsync", "rename"]


def test_a_truncated_file_is_detected(tmp_path):
    path = tmp_path / "a.npz"
    mc.save_checkpoint(path, **contents())
    whole = path.read_bytes()
    for size in [0, 1, 10, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(mc.CheckpointError, match=r"a\.npz"):
            mc.load_checkpoint(path)


def test_a_flipped_bit_is_detected_or_harmless(tmp_path):
    path = tmp_path / "a.npz"
    mc.save_checkpoint(path, **contents())
    whole = path.read_bytes()
    want = mc.load_checkpoint(path)
    refused = 0
    for position in np.random.default_rng(0).integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            got = mc.load_checkpoint(path)
        except mc.CheckpointError as error:
            assert "a.npz" in str(error)
            refused += 1
        else:       # a time stamp or an attribute of the archive: the contents must be the same
            np.testing.assert_equal(got, want)
    assert refused > 200


def test_foreign_files_are_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a checkpoint")
    with pytest.raises(mc.CheckpointError, match="notes.txt: not a checkpoint"):
        mc.load_checkpoint(text)
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    with pytest.raises(mc.CheckpointError, match="no tree.json"):
        mc.load_checkpoint(tmp_path / "arrays.npz")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        mc.load_checkpoint(tmp_path / "missing.npz")
    with pytest.raises(OSError, match="directory"):
        mc.load_checkpoint(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tree.json", json.dumps({"format": "minicnn checkpoint", "version": 99, "contents": {}}))
    with pytest.raises(mc.CheckpointError, match="newer minicnn"):
        mc.load_checkpoint(path)


def test_a_pickle_inside_is_not_executed(tmp_path):
    path = tmp_path / "a.npz"
    tree = {"format": "minicnn checkpoint", "version": 1, "contents": {"dict": {"w": {"array": "w", "shape": [1], "dtype": "|O"}}}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tree.json", json.dumps(tree))
        with archive.open("w.npy", "w") as member:
            np.lib.format.write_array(member, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(mc.CheckpointError, match="damaged"):
        mc.load_checkpoint(path)


def test_the_error_for_another_network_names_the_differences(tmp_path):
    small, large = mc.nn.Sequential(fc=mc.nn.Linear(3, 2)), mc.nn.Sequential(fc=mc.nn.Linear(4, 2), out=mc.nn.Linear(2, 2))
    mc.save_checkpoint(tmp_path / "a.npz", model=small.state_dict())
    before = large.fc.bias.data.copy()
    with pytest.raises(ValueError, match=r"out.weight is missing.*fc.weight must have shape \(2, 4\), got \(2, 3\)"):
        large.load_state_dict(mc.load_checkpoint(tmp_path / "a.npz")["model"])
    np.testing.assert_array_equal(large.fc.bias.data, before)


def test_two_arrays_of_the_same_name_are_refused(tmp_path):
    with pytest.raises(TypeError, match="two arrays would have the same name 'a/b'"):
        mc.save_checkpoint(tmp_path / "a.npz", **{"a": {"b": np.zeros(2)}, "a/b": np.ones(2)})
    assert os.listdir(tmp_path) == []


def test_every_flipped_bit_of_a_small_file_is_detected_or_harmless(tmp_path):
    path = tmp_path / "a.npz"
    mc.save_checkpoint(path, w=np.ones(3), step=1, done=np.bool_(True))
    whole, want = path.read_bytes(), mc.load_checkpoint(path)
    for position in range(len(whole)):
        for bit in (0x01, 0x80):
            damaged = bytearray(whole)
            damaged[position] ^= bit
            path.write_bytes(damaged)
            try:
                np.testing.assert_equal(mc.load_checkpoint(path), want)
            except mc.CheckpointError as error:
                assert "a.npz" in str(error)


def test_an_array_header_that_numpy_cannot_parse_is_reported_as_damage(tmp_path):
    """Found by fuzzing: NumPy parses the header of an array with Python's tokenizer, whose errors have types of their own."""
    path = tmp_path / "a.npz"
    mc.save_checkpoint(path, w=np.zeros(3))
    with zipfile.ZipFile(path) as archive:
        tree, array = archive.read("tree.json"), archive.read("w.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tree.json", tree)
        archive.writestr("w.npy", array.replace(b"'<f8',", b"'<f8'( "))
    with pytest.raises(mc.CheckpointError, match="damaged"):
        mc.load_checkpoint(path)
