"""A thousand damaged checkpoints: each is refused or restores what was saved, bit for bit. None is loaded wrongly.

Refused means: CheckpointError and nothing else, with little memory, no code executed and no file created; and `load_latest`, by which a
run is resumed, then loads the checkpoint before it.
"""

import os
import tracemalloc
import zlib

import damages
import numpy as np
import pytest
from bits import same_bits

import minicnn as mc
from minicnn.train.checkpoint_manager import load_latest

# {kind: (how many, how many of them must be refused)}
KINDS = {"cuts": (100, 100), "flips": (300, 280), "blocks": (400, 395), "lies": (229, 215)}


def listing(folder):
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's folder with an older, undamaged checkpoint."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    run = tmp_path / "work" / "run"
    run.mkdir()
    mc.save_checkpoint(run / "checkpoint-000000001.npz", **damages.original(1))
    return run


def load(path):
    """load_latest of the folder of `path`, and the peak of memory: (path, contents, reasons, bytes)."""
    tracemalloc.start()
    try:
        return *load_latest(path.parent), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_checkpoint_is_loaded_wrongly(kind, run, tmp_path, capsys):
    newest = run / "checkpoint-000000002.npz"
    older, whole = damages.written(newest, 3), damages.written(newest, 2)
    assert same_bits(load(newest)[1], damages.original(2))
    everything = getattr(damages, kind)(whole, older)
    assert len({name for name, _ in everything}) > 0.9 * len(everything)
    before, wrong, refused, most = listing(tmp_path), [], 0, 0
    for name, damaged in everything:
        newest.write_bytes(damaged)
        try:
            path, contents, reasons, peak = load(newest)
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
            continue
        most = max(most, peak - len(damaged))
        if peak > 8 * len(damaged) + 2_000_000:          # ten thousand short lists are larger as objects than as JSON
            wrong.append(f"{name}: {peak / 1e6:.1f} MB for a file of {len(damaged) / 1e6:.3f} MB")
        if path == newest:
            if not same_bits(contents, damages.original(2)):
                wrong.append(f"{name}: loaded, and different")
        else:
            refused += 1
            assert same_bits(contents, damages.original(1)), name
            assert len(reasons) == 1, name
            assert reasons[0].startswith(f"{newest}: "), name
    with capsys.disabled():
        print(f"\n{kind}: {len(everything)} damaged checkpoints, {refused} refused, {len(wrong)} wrong; at most {most / 1e6:.1f} MB "
              "more than the file")
    assert not wrong, "\n".join(wrong)
    assert listing(tmp_path) == before
    assert (len(everything), refused >= KINDS[kind][1]) == (KINDS[kind][0], True)


def test_there_are_a_thousand_of_them():
    assert sum(count for count, _ in KINDS.values()) >= 1000


def test_the_comparison_detects_a_changed_weight_with_a_correct_checksum(run):
    """Negative control: with a changed weight and a repaired archive it is loaded, and differs from the original."""
    newest = run / "checkpoint-000000002.npz"
    files = damages.members(damages.written(newest, 2))
    name = "model/fc.bias.npy"
    changed = files[name][:-1] + bytes([files[name][-1] ^ 1])
    assert zlib.crc32(changed) != zlib.crc32(files[name])
    newest.write_bytes(damages.archived([*{**files, name: changed}.items()]))
    path, contents, _, _ = load(newest)
    assert path == newest
    assert not same_bits(contents, damages.original(2))
    contents["model"]["fc.bias"] = damages.original(2)["model"]["fc.bias"]
    assert same_bits(contents, damages.original(2))


def test_the_memory_of_a_load_is_measured(run):
    newest = run / "checkpoint-000000002.npz"
    mc.save_checkpoint(newest, w=np.zeros(1_000_000))
    assert 8_000_000 < load(newest)[-1] < 3 * os.path.getsize(newest) + 2_000_000
