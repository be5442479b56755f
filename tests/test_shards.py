"""Packed sets: the same images, whatever interrupts the packing, and nothing but a DataError once they are damaged."""

import errno
import io
import json
import os
import pathlib
import pickle
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from minicnn.backend.arrays import ceil_div
from minicnn.data import DataError, ImageFolder, photos
from minicnn.data.datasets import ArrayDataset
from minicnn.data.lazy_image import LazyImage
from minicnn.data.shards import Packed, pack, verify, writer
from minicnn.data.shards.format import FOOTER, INDEX_DTYPE, INDEX_FILE
from minicnn.data.transforms import Resize

SIDE, SHARD = 48, 30_000            # small images, and several shards of them
OPTIONS = {"side": SIDE, "shard_bytes": SHARD, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 photographs in 3 classes: landscape, portrait, square, smaller than SIDE, exactly SIDE, and with non-ASCII names."""
    root = tmp_path_factory.mktemp("photographs")
    sizes = [(100, 75), (75, 101), (64, 64), (40, 30), (SIDE + 17, SIDE), (120, 49)]
    for i in range(24):
        _, photo = photos()[i % 8]
        W, H = sizes[i % 6]
        class_folder = root / ("Äpfel", "chats", "日本")[i // 8]
        class_folder.mkdir(exist_ok=True)
        Image.fromarray(photo[i:i + 280, i:i + 400]).resize((W, H)).save(class_folder / f"Bild {i} é.jpg", quality=95)
    return root


@pytest.fixture
def source(folder):
    return ImageFolder(folder)


class Grey(ArrayDataset):
    """Six grey images in memory, which have no files."""

    def __init__(self, seed=0):
        super().__init__(np.random.default_rng(seed).integers(0, 256, (6, 28, 28, 1), np.uint8), np.arange(6) % 2, ["even", "odd"])


class Plain:
    """A data set without the optional methods `load` and `name`."""

    classes = ("a", "b")

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def files(root):
    return {path.name: path.read_bytes() for path in sorted(root.iterdir())}


def relative(source, i):
    """The path of image i relative to the root."""
    return os.path.relpath(source.name(i), source.root)


# ---- images

@pytest.mark.parametrize("side", [SIDE, 30, 20])
def test_raw_images_are_bitwise_those_of_resize(source, tmp_path, side):
    packed = pack(source, tmp_path / "p", "raw", **{**OPTIONS, "side": side})
    assert len(packed) == len(source) == 24
    assert packed.classes == source.classes
    for i in range(24):
        lazy, label = source.load(i, side)
        expected = np.asarray(Resize(side)(np.asarray(lazy), None))
        image, packed_label = packed[i]
        assert image.dtype == np.uint8
        assert np.array_equal(image, expected)
        assert np.array_equal(np.asarray(Resize(side)(image, None)), expected)
        assert type(packed_label) is int
        assert packed_label == label


def test_jpeg_images_are_close_to_raw_ones(source, tmp_path):
    jpeg, raw = pack(source, tmp_path / "j", "jpeg", **OPTIONS), pack(source, tmp_path / "r", "raw", **OPTIONS)
    differences = [np.abs(jpeg[i][0].astype(int) - raw[i][0]).mean() for i in range(24)]
    assert 0 < np.mean(differences) < 4             # of 255; these are small and busy
    assert [jpeg[i][1] for i in range(24)] == [raw[i][1] for i in range(24)]
    assert sum(s["bytes"] for s in jpeg.shards) < sum(s["bytes"] for s in raw.shards) / 2


@pytest.mark.parametrize("format", ["jpeg", "raw"])
def test_a_packed_lazy_image_can_be_cropped_flipped_and_resized(source, tmp_path, format):
    packed = pack(source, tmp_path / "p", format, **OPTIONS)
    whole, label = packed[1]
    lazy, lazy_label = packed.load(1)
    assert isinstance(lazy, LazyImage)
    assert lazy.shape == whole.shape
    assert lazy_label == label
    assert np.array_equal(lazy[3:30, 5:25], whole[3:30, 5:25])
    assert np.array_equal(lazy[:, ::-1], whole[:, ::-1])
    assert np.array_equal(np.asarray(lazy, np.float32), whole.astype(np.float32))
    H, W, _ = whole.shape
    small = np.asarray(Image.fromarray(whole).resize((W // 2, H // 2), Image.Resampling.BILINEAR))
    assert np.array_equal(np.asarray(lazy.resized(H // 2, W // 2)), small)
    assert np.array_equal(np.asarray(lazy.resized(H, W)), whole)


def test_a_raw_image_is_a_read_only_view(source, tmp_path):
    image, _ = pack(source, tmp_path / "p", "raw", **OPTIONS)[0]
    assert image.base is not None
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


def test_a_jpeg_is_decoded_smaller_if_min_size_allows_it(source, tmp_path):
    packed = pack(source, tmp_path / "p", "jpeg", **OPTIONS)
    H, W = packed[0][0].shape[:2]
    assert packed.load(0, min_size=SIDE)[0].shape == (H, W, 3)
    assert packed.load(0, min_size=SIDE // 2)[0].shape == (ceil_div(H, 2), ceil_div(W, 2), 3)


@pytest.mark.parametrize("format", ["jpeg", "raw"])
def test_grey_images_stay_grey_and_small_ones_are_scaled_up(tmp_path, format):
    source = Grey()
    packed = pack(source, tmp_path / "p", format, **OPTIONS)
    assert packed.classes == ["even", "odd"]
    for i in range(6):
        image, label = packed[i]
        assert image.shape == (SIDE, SIDE, 1)
        assert label == i % 2
        if format == "raw":
            assert np.array_equal(image, np.asarray(Resize(SIDE)(source[i][0], None)))
    assert verify(tmp_path / "p", progress=False) == []


@pytest.mark.parametrize("quality", [1, 90, 95, 100])
def test_incompressible_noise_can_be_packed(tmp_path, quality):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    packed = pack(Plain((noise, 1)), tmp_path / "p", side=256, quality=quality, progress=False)
    assert packed[0][0].shape == (256, 256, 3)


def test_a_data_set_needs_neither_load_nor_name(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    packed = pack(Plain((image, 1), (image[::-1], 0)), tmp_path / "p", "raw", **OPTIONS)
    assert np.array_equal(packed[1][0], np.asarray(Resize(SIDE)(np.ascontiguousarray(image[::-1]), None)))
    assert packed.name(1) == "image 1"
    again = pack(packed, tmp_path / "q", "raw", **OPTIONS)
    assert np.array_equal(again[0][0], packed[0][0])


def test_names_and_counts_are_stored(source, tmp_path):
    packed = pack(source, tmp_path / "päckchen", **OPTIONS)
    assert [packed.name(i) for i in range(24)] == [relative(source, i) for i in range(24)]
    index = json.loads((tmp_path / "päckchen" / INDEX_FILE).read_text())
    assert index["images"] == 24
    assert index["counts"] == [8, 8, 8]
    assert index["classes"] == ["chats", "Äpfel", "日本"]
    assert index["source"].startswith("ImageFolder photographs")


def test_items_are_indexed_as_in_a_list(source, tmp_path):
    packed = pack(source, tmp_path / "p", "raw", **OPTIONS)
    assert len(packed.shards) > 2
    assert np.array_equal(packed[-1][0], packed[23][0])
    assert np.array_equal(packed[np.int64(5)][0], packed[5][0])
    assert len(list(packed)) == 24                  # by IndexError
    for i in (24, -25):
        with pytest.raises(IndexError, match="out of range for 24 images"):
            packed[i]


def test_the_format_is_as_documented(source, tmp_path):
    pack(source, tmp_path / "p", "raw", **OPTIONS)
    data = (tmp_path / "p" / "shard-00000.bin").read_bytes()
    magic, table, length, _ = FOOTER.unpack(data[-24:])
    assert magic == b"minicnnp"
    metadata = json.loads(data[-24 - length:-24])
    assert metadata["first"] == 0
    rows = np.frombuffer(data[table:-24 - length], INDEX_DTYPE)
    assert INDEX_DTYPE.itemsize == 32
    assert len(rows) == metadata["next"]
    row = rows[1]
    assert row["length"] == row["height"] * row["width"] * 3
    pixels = np.frombuffer(data, np.uint8, row["length"], row["offset"])
    assert np.array_equal(pixels.reshape(row["height"], row["width"], 3), Packed(tmp_path / "p")[1][0])
    end = row["offset"] + row["length"]
    assert data[end:end + row["name"]].decode() == relative(source, 1)
    assert table < SHARD


# ---- bytes

@pytest.mark.parametrize("format", ["jpeg", "raw"])
def test_the_number_of_workers_does_not_change_the_bytes(source, tmp_path, format):
    for workers in (1, 4):
        pack(source, tmp_path / str(workers), format, workers=workers, **OPTIONS)
    assert files(tmp_path / "1") == files(tmp_path / "4")
    assert len(files(tmp_path / "1")) > 2


def test_packing_again_changes_nothing(source, tmp_path):
    pack(source, tmp_path / "p", **OPTIONS)
    before = files(tmp_path / "p")
    pack(source, tmp_path / "p", **OPTIONS)
    assert files(tmp_path / "p") == before


def test_packing_resumes_to_the_same_bytes_after_any_kill(folder, tmp_path):
    program = ("import sys; from minicnn.data import ImageFolder; from minicnn.data.shards import pack; print('go', flush=True);"
               "pack(ImageFolder(sys.argv[1]), sys.argv[2], 'raw', side=400, shard_bytes=3_000_000, progress=False, workers=2)")
    command = [sys.executable, "-c", program, str(folder)]
    started = subprocess.Popen([*command, str(tmp_path / "whole")], stdout=subprocess.PIPE)
    started.stdout.readline()
    begin = time.perf_counter()
    assert started.wait() == 0
    started.stdout.close()
    takes = time.perf_counter() - begin
    moments, killed = random.Random(0), 0
    for attempt in range(2):
        target = tmp_path / f"killed {attempt}"
        for _ in range(4):
            process = subprocess.Popen([*command, str(target)], stdout=subprocess.PIPE)
            process.stdout.readline()
            time.sleep(moments.random() * takes / 2)
            process.kill()
            killed += process.wait() != 0
            process.stdout.close()
            if target.exists():
                complete = list(target.glob("shard-*.bin"))
                assert all((tmp_path / "whole" / path.name).read_bytes() == path.read_bytes() for path in complete)
        assert subprocess.run([*command, str(target)], stdout=subprocess.DEVNULL).returncode == 0
        assert files(target) == files(tmp_path / "whole")
    assert killed > 2


def test_an_incomplete_file_of_a_killed_run_is_ignored_and_removed(folder, source, tmp_path):
    program = ("import os, sys; from minicnn.data import ImageFolder; from minicnn.data.shards import writer\n"
               "real, complete = writer.write_footer, []\n"
               "writer.write_footer = lambda *args: os._exit(9) if complete else complete.append(real(*args))\n"
               f"writer.pack(ImageFolder(sys.argv[1]), sys.argv[2], 'raw', workers=1, **{OPTIONS})")
    assert subprocess.run([sys.executable, "-c", program, str(folder), str(tmp_path / "p")]).returncode == 9
    left = files(tmp_path / "p")
    whole = files(pack(source, tmp_path / "whole", "raw", **OPTIONS).root)
    assert [name.split(".")[0] for name in left] == ["shard-00000", "shard-00001"]
    assert [name.endswith(".tmp") for name in left] == [False, True]
    assert all(whole[name] == data for name, data in left.items() if not name.endswith(".tmp"))
    pack(source, tmp_path / "p", "raw", **OPTIONS)
    assert files(tmp_path / "p") == whole


def test_a_file_is_renamed_only_after_fsync(source, tmp_path, monkeypatch):
    synced, named, fsync, replace = set(), [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: synced.add((os.fstat(handle).st_ino, os.fstat(handle).st_size)) or fsync(handle))

    def checked(old, new):
        assert (os.stat(old).st_ino, os.stat(old).st_size) in synced
        named.append(pathlib.Path(new).name)
        replace(old, new)

    monkeypatch.setattr(os, "replace", checked)
    packed = pack(source, tmp_path / "p", "raw", **OPTIONS)
    assert named == [*(f"shard-{n:05}.bin" for n in range(len(packed.shards))), INDEX_FILE]       # the index file last


def test_packing_resumes_after_any_failed_write(source, tmp_path, monkeypatch):
    pack(source, tmp_path / "whole", "raw", **OPTIONS)
    whole, real, calls, refused = files(tmp_path / "whole"), os.fsync, [], 0
    for failing in range(10):
        calls.clear()

        def fsync(handle):
            calls.append(handle)
            if len(calls) > failing:                # noqa: B023
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        target = tmp_path / f"full {failing}"
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            with pytest.raises(OSError, match="free some space.*run the same pack command again") as caught:
                pack(source, target, "raw", **OPTIONS)
        assert caught.value.errno == errno.ENOSPC
        left = files(target)
        assert not [name for name in left if name.endswith(".tmp")]
        assert INDEX_FILE not in left or left == whole
        assert all(whole[name] == data for name, data in left.items())
        refused += len(left) < len(whole)
        pack(source, target, "raw", **OPTIONS)
        assert files(target) == whole
    assert refused > 5


def test_a_full_disk_in_the_middle_of_a_shard_is_one_clear_error(source, tmp_path, monkeypatch):
    real, written = open, []

    class Full(io.BufferedWriter):
        def write(self, data):
            written.append(len(data))
            if sum(written) > 60_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    def full_open(path, mode="r", *args, **kwargs):
        return Full(io.FileIO(path, "w")) if mode == "wb" else real(path, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", full_open)
        with pytest.raises(OSError, match="No space left on device"):
            pack(source, tmp_path / "p", "raw", **OPTIONS)
    left = files(tmp_path / "p")
    assert list(left) == [f"shard-{n:05}.bin" for n in range(len(left))]
    assert left
    with pytest.raises(DataError, match="an incomplete one"):
        Packed(tmp_path / "p")
    assert verify(pack(source, tmp_path / "p", "raw", **OPTIONS).root, progress=False) == []


def test_a_destination_that_cannot_be_a_folder_is_named(source, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for destination in (tmp_path / "file", tmp_path / "file" / "p"):
        with pytest.raises(OSError, match=f"{destination.name}: cannot be written to"):
            pack(source, destination, **OPTIONS)


# ---- errors

@pytest.mark.parametrize("change", [{"side": SIDE + 1}, {"quality": 91}, {"shard_bytes": SHARD + 1}, {"format": "raw"}])
def test_other_settings_are_refused(source, tmp_path, change):
    pack(source, tmp_path / "p", **OPTIONS)
    before = files(tmp_path / "p")
    for unfinished in (False, True):
        if unfinished:
            (tmp_path / "p" / INDEX_FILE).unlink()
            del before[INDEX_FILE]
        with pytest.raises(DataError, match="another source or with other settings"):
            pack(source, tmp_path / "p", **{**OPTIONS, **change})
        assert files(tmp_path / "p") == before


def test_another_source_is_refused(folder, source, tmp_path):
    pack(source, tmp_path / "p", **OPTIONS)
    before = files(tmp_path / "p")
    copy = pathlib.Path(shutil.copytree(folder, tmp_path / "copy"))
    pack(ImageFolder(copy), tmp_path / "q", **OPTIONS)
    for name, shard in files(tmp_path / "q").items():
        assert name == INDEX_FILE or shard == before[name]            # the location of the source makes no difference
    first = copy / "chats" / relative(source, 0).split("/")[1]
    renamed = first.rename(first.with_name("A.jpg"))
    with pytest.raises(DataError, match="image 0 was chats/Bild"):
        pack(ImageFolder(copy), tmp_path / "p", **OPTIONS)
    renamed.rename(first)
    Image.new("RGB", (100, 80)).save(first)
    with pytest.raises(DataError, match="other pixels"):
        pack(ImageFolder(copy), tmp_path / "p", **OPTIONS)
    (copy / "chats").rename(copy / "cats")
    with pytest.raises(DataError, match="other classes"):
        pack(ImageFolder(copy), tmp_path / "p", **OPTIONS)
    with pytest.raises(DataError, match="another source"):
        pack(Plain(*[source[i] for i in range(24)]), tmp_path / "p", **OPTIONS)
    assert files(tmp_path / "p") == before


def test_in_memory_sets_are_distinguished_by_their_pixels(tmp_path):
    pack(Grey(0), tmp_path / "p", **OPTIONS)
    with pytest.raises(DataError, match="other pixels"):
        pack(Grey(1), tmp_path / "p", **OPTIONS)


def test_a_folder_with_other_files_is_not_touched(folder, source, tmp_path):
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError, match="must be empty or a packed set, but holds "):
        pack(source, folder, **OPTIONS)
    assert sorted(folder.rglob("*")) == before


def test_an_empty_source_is_refused(tmp_path):
    with pytest.raises(DataError, match="nothing to pack"):
        pack(Plain(), tmp_path / "p", **OPTIONS)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("wrong", [{"format": "png"}, {"on_error": "ignore"}, {"side": 0}, {"quality": 101}, {"workers": 0},
                                   {"shard_bytes": 0}])
def test_wrong_arguments_are_refused(source, tmp_path, wrong):
    with pytest.raises(ValueError, match="pack: "):
        pack(source, tmp_path / "p", **{**OPTIONS, **wrong})


@pytest.fixture
def with_unreadable(folder, tmp_path):
    """The photographs, of which numbers 0, 9 and 23 (the first, the last, and one in between) cannot be read."""
    copy = pathlib.Path(shutil.copytree(folder, tmp_path / "unreadable"))
    source = ImageFolder(copy)
    for i, content in ((0, b""), (9, b"this is no image"), (23, pathlib.Path(source.name(23)).read_bytes()[:300])):
        pathlib.Path(source.name(i)).write_bytes(content)
    return source


def test_an_unreadable_image_is_named(with_unreadable, tmp_path):
    with pytest.raises(DataError, match="Bild 10 é.jpg|Bild 8 é.jpg"):
        pack(with_unreadable, tmp_path / "p", **OPTIONS)
    assert files(tmp_path / "p") == {}


@pytest.mark.parametrize("format", ["jpeg", "raw"])
def test_unreadable_images_are_skipped_and_listed(with_unreadable, tmp_path, format):
    packed = pack(with_unreadable, tmp_path / "p", format, on_error="skip", **OPTIONS)
    good = [i for i in range(24) if i not in (0, 9, 23)]
    assert len(packed) == 21
    assert [packed.name(i) for i in range(21)] == [relative(with_unreadable, i) for i in good]
    assert [packed[i][1] for i in range(21)] == [int(with_unreadable.labels[i]) for i in good]
    assert [(number, name) for number, name, _ in packed.skipped] == [(i, relative(with_unreadable, i)) for i in (0, 9, 23)]
    assert all("cannot be read" in reason for _, _, reason in packed.skipped)
    assert verify(packed.root, progress=False) == []
    before = files(tmp_path / "p")
    for name in before:                                         # a lost file is rewritten, the same
        (tmp_path / "p" / name).unlink()
        pack(with_unreadable, tmp_path / "p", format, on_error="skip", workers=1, **OPTIONS)
        assert files(tmp_path / "p") == before


def test_a_set_without_readable_images_is_an_error_with_the_reason(tmp_path):
    for name in "ab":
        (tmp_path / "s" / name).mkdir(parents=True)
        (tmp_path / "s" / name / "x.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 2 images.*x.jpg"):
        pack(ImageFolder(tmp_path / "s"), tmp_path / "p", on_error="skip", **OPTIONS)


@pytest.mark.parametrize("image, label, what", [
    (np.zeros((1, 3000, 3), np.uint8), 0, "too elongated"), (np.zeros((9, 9, 3), np.float32), 0, "uint8"),
    (np.zeros((9, 9, 4), np.uint8), 0, "3 or 1"), (np.zeros((9, 9), np.uint8), 0, "3 or 1"), (np.zeros((9, 9, 3), np.uint8), 2, "label 2")])
def test_an_image_that_cannot_be_stored_is_named(tmp_path, image, label, what):
    good = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(DataError, match=f"image 1: .*{what}"):
        pack(Plain((good, 0), (image, label)), tmp_path / "p", **OPTIONS)


def test_a_disk_error_in_the_source_is_an_unreadable_image_not_a_full_disk(tmp_path):
    class Broken(Plain):
        def __getitem__(self, i):
            raise OSError(errno.EIO, "the disk is broken")
    with pytest.raises(DataError, match="image 0: this image cannot be read.*the disk is broken"):
        pack(Broken(1, 2), tmp_path / "p", **OPTIONS)


def test_another_exception_of_the_source_is_not_caught(tmp_path):
    class Broken(Plain):
        def __getitem__(self, i):
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        pack(Broken(1, 2), tmp_path / "p", on_error="skip", **OPTIONS)
    assert files(tmp_path / "p") == {}


# ---- damage

@pytest.fixture(scope="module", params=["jpeg", "raw"])
def sound(request, folder, tmp_path_factory):
    return pack(ImageFolder(folder), tmp_path_factory.mktemp("sound") / "p", request.param, **OPTIONS)


@pytest.fixture
def copy(sound, tmp_path):
    return pathlib.Path(shutil.copytree(sound.root, tmp_path / "copy"))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_a_sound_set_has_no_problems(sound):
    assert verify(sound.root, progress=False) == []


def test_a_flipped_bit_in_an_image_is_found_by_reading_and_by_verify(sound, copy):
    row, _ = sound.read_record(1)
    for at in (row["offset"], row["offset"] + row["length"] // 2, row["offset"] + row["length"] - 1, row["offset"] + row["length"] + 1):
        flip(copy / "shard-00000.bin", at)
        packed = Packed(copy)
        packed[0]
        with pytest.raises(DataError, match=r"shard-00000.bin: image 1 .* is damaged.*delete this file and run the same pack command"):
            packed[1]
        assert [problem.split(" (")[0] for problem in verify(copy, progress=False)] == [f"{copy / 'shard-00000.bin'}: image 1"]
        flip(copy / "shard-00000.bin", at)


def test_a_flipped_bit_in_a_table_is_found_by_reading_and_by_verify(sound, copy):
    table = sound.shards[0]["table"]
    for at in range(INDEX_DTYPE.itemsize):                  # the row of image 1: its label too
        flip(copy / "shard-00000.bin", table + INDEX_DTYPE.itemsize + at)
        with pytest.raises(DataError, match=r"image 1 .* is damaged"):
            Packed(copy)[1]
        assert any("the checksum of its table" in problem for problem in verify(copy, progress=False))
        flip(copy / "shard-00000.bin", table + INDEX_DTYPE.itemsize + at)


def test_a_flipped_bit_in_any_file_is_found_by_verify(sound, copy):
    moments = random.Random(0)
    for path in sorted(copy.iterdir()):
        size = path.stat().st_size
        for at in sorted({0, size - 1, *(moments.randrange(size) for _ in range(25))}):
            flip(path, at)
            assert verify(copy, progress=False), (path.name, at)
            flip(path, at)
    assert verify(copy, progress=False) == []


@pytest.mark.parametrize("length", [0, 1, 23, 24, -1])
def test_a_shard_of_the_wrong_length_is_named_when_the_set_is_opened(copy, length):
    path = copy / "shard-00001.bin"
    data = path.read_bytes()
    for wrong in (data[:length], data + b"more"):
        path.write_bytes(wrong)
        with pytest.raises(DataError, match=r"shard-00001.bin: must have \d+ bytes, got \d+"):
            Packed(copy)
        assert len(verify(copy, progress=False)) == 1


def test_every_missing_shard_is_named(sound, copy, source):
    before = files(copy)
    for name in ("shard-00000.bin", "shard-00001.bin"):
        (copy / name).unlink()
    with pytest.raises(DataError, match=r"shard-00000.bin: cannot be opened[^\n]*\n.*shard-00001.bin: cannot be opened"):
        Packed(copy)
    assert len(verify(copy, progress=False)) == 2
    pack(source, copy, sound.index["settings"]["format"], **OPTIONS)        # the repair that the message names
    assert files(copy) == before


def test_a_shard_that_is_cut_short_while_it_is_open_is_an_error_not_a_crash(sound, copy):
    packed = Packed(copy)
    os.truncate(copy / "shard-00000.bin", 100)
    for i in range(sound.shards[0]["images"]):
        with pytest.raises(DataError, match="damaged"):
            packed[i]
    assert packed.name(0).startswith("image 0 of")


def test_huge_sizes_in_a_damaged_table_are_refused_before_allocation(sound, copy, monkeypatch):
    table, requested, real = sound.shards[0]["table"], [], os.pread
    monkeypatch.setattr(os, "pread", lambda handle, count, at: requested.append(count) or real(handle, count, at))
    for field, value in (("length", 2**32 - 1), ("offset", 2**62), ("offset", -1), ("offset", 2**63 - 1), ("height", 2**32 - 1)):
        data = bytearray((sound.root / "shard-00000.bin").read_bytes())
        row = np.frombuffer(data, INDEX_DTYPE, 1, table)
        row[field] = value
        (copy / "shard-00000.bin").write_bytes(data)
        with pytest.raises(DataError, match="damaged"):
            Packed(copy)[0]
    assert requested
    assert max(requested) < SHARD


@pytest.mark.parametrize("change, what", [
    ({"version": 2}, "version must be 1, got 2; upgrade"), ({"format": "zip"}, "not an index file"), ({"images": 23}, "damaged"),
    ({"shards": [{"bytes": 10**18, "images": 10**15, "table": 0}], "images": 10**15}, "must have 1000000000000000000 bytes"),
    ({"shards": [{"bytes": 100, "images": 10**18, "table": 0}], "images": 10**18}, "damaged"), ({"shards": [], "images": 0}, "damaged"),
    ({"shards": [{"bytes": 100, "images": -1, "table": 0}]}, "damaged"), ({"classes": "ab"}, "damaged"), ({"settings": {}}, "damaged")])
def test_an_inconsistent_index_is_refused(copy, change, what):
    index = json.loads((copy / INDEX_FILE).read_text())
    (copy / INDEX_FILE).write_text(json.dumps({**index, **change}))
    with pytest.raises(DataError, match=what):
        Packed(copy)
    assert len(verify(copy, progress=False)) == 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_random_bytes_in_a_file_raise_nothing_but_data_error(sound, tmp_path, data):
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(sound.root, copy)
    path = copy / data.draw(st.sampled_from([INDEX_FILE, "shard-00000.bin"]))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    rubbish = data.draw(st.binary(min_size=1, max_size=80) | st.text("[]{}\":,0123456789-+.eE NaInfity", min_size=1).map(str.encode))
    keep_size = data.draw(st.booleans())
    path.write_bytes(whole[:at] + rubbish + whole[at + len(rubbish):] if keep_size else rubbish)
    problems = verify(copy, progress=False)
    assert all(isinstance(problem, str) for problem in problems)
    assert problems or path.read_bytes() == whole or path.name == INDEX_FILE
    try:
        packed = Packed(copy)
    except DataError:
        return
    for i in range(len(packed)):
        try:
            image, label = packed[i]
        except DataError:
            continue
        assert np.array_equal(image, sound[i][0])
        assert label == sound[i][1]


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="not a packed set"):
        Packed(tmp_path)
    with pytest.raises(DataError, match="not a packed set"):
        Packed(tmp_path / "nowhere")
    (tmp_path / INDEX_FILE).mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        Packed(tmp_path)


# ---- other processes, and memory

def test_a_pickle_holds_only_the_path(sound, tmp_path):
    sent = pickle.dumps(sound)
    assert len(sent) < 500
    unpickled = pickle.loads(sent)
    assert np.array_equal(unpickled[3][0], sound[3][0])
    assert unpickled.fingerprint() == sound.fingerprint()


def test_unpickling_notices_a_set_that_was_repacked(sound, copy):
    sent = pickle.dumps(Packed(copy))
    shutil.rmtree(copy)
    pack(Grey(), copy, **OPTIONS)
    with pytest.raises(DataError, match="was repacked"):
        pickle.loads(sent)


def test_files_are_closed(sound):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no list of open files here")
    before = len(os.listdir("/proc/self/fd"))
    packed = Packed(sound.root)
    assert len(os.listdir("/proc/self/fd")) == before + len(packed.shards)
    del packed
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_stays_flat_while_reading(tmp_path):
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("no count of this process's memory here")
    noise = np.random.default_rng(0).integers(0, 256, (256, 341, 3), np.uint8)
    pack(Plain(*[(noise, 0)] * 200), tmp_path / "p", "raw", progress=False)         # 52 MB
    program = ("import sys; from minicnn.data.shards import Packed; packed = Packed(sys.argv[1])\n"
               "resident = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096\n"
               "packed[0]; before = resident()\n"
               "for i in range(200): packed[i][0][10:237, 10:237].copy()\n"
               "print(resident() - before)")
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path / "p")], capture_output=True, check=True)
    assert int(run.stdout) < 5e6


def test_every_image_is_stored_once_and_in_order(source, tmp_path, monkeypatch):
    """Images that were encoded ahead are not stored twice where one shard ends and the next begins."""
    seen = []
    monkeypatch.setattr(writer, "encode", lambda s, i, settings, real=writer.encode: seen.append(i) or real(s, i, settings))
    packed = pack(source, tmp_path / "p", "raw", workers=4, **OPTIONS)
    assert [packed.name(i) for i in range(24)] == [relative(source, i) for i in range(24)]
    assert set(seen) == set(range(24))


def test_the_progress_bar_counts_all_images(source, tmp_path, capsys):
    for _ in range(2):
        pack(source, tmp_path / "p", **{**OPTIONS, "progress": True})
        assert "24/24" in capsys.readouterr().err
    verify(tmp_path / "p")
    assert "24/24" in capsys.readouterr().err
