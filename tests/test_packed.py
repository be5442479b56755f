"""Packed files: the same images, whatever happens while they are written, and nothing but a DataError once they are damaged."""

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

from minicnn.data import DataError, ImageFolder, photos
from minicnn.data.datasets import ArrayDataset
from minicnn.data.packed import Packed, pack, packing, verify
from minicnn.data.packed.files import CONTENTS, END, ROW
from minicnn.data.picture import Picture
from minicnn.data.transforms import Resize

SIDE, SHARD = 48, 30_000            # small images, and several shards of them
HOW = {"side": SIDE, "shard_bytes": SHARD, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 photographs in 3 classes: landscape, portrait, square, smaller than SIDE, of exactly SIDE, and with non-ASCII names."""
    root = tmp_path_factory.mktemp("photographs")
    sizes = [(100, 75), (75, 101), (64, 64), (40, 30), (SIDE + 17, SIDE), (120, 49)]
    for i in range(24):
        _, photo = photos()[i % 8]
        W, H = sizes[i % 6]
        place = root / ("Äpfel", "chats", "日本")[i // 8]
        place.mkdir(exist_ok=True)
        Image.fromarray(photo[i:i + 280, i:i + 400]).resize((W, H)).save(place / f"Bild {i} é.jpg", quality=95)
    return root


@pytest.fixture
def source(folder):
    return ImageFolder(folder)


class Grey(ArrayDataset):
    """Six grey images, in memory, with no `name` of their own files."""

    def __init__(self, seed=0):
        super().__init__(np.random.default_rng(seed).integers(0, 256, (6, 28, 28, 1), np.uint8), np.arange(6) % 2, ["even", "odd"])


class Plain:
    """The least that a data set is: no picture, no name."""

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
    """The file of image i, below the root."""
    return os.path.relpath(source.name(i), source.root)


# ---- the same images

@pytest.mark.parametrize("side", [SIDE, 30, 20])
def test_raw_images_are_those_that_resize_gives_bit_by_bit(source, tmp_path, side):
    packed = pack(source, tmp_path / "p", "raw", **{**HOW, "side": side})
    assert len(packed) == len(source) == 24
    assert packed.classes == source.classes
    for i in range(24):
        picture, label = source.picture(i, side)
        expected = np.asarray(Resize(side)(np.asarray(picture), None))
        image, packed_label = packed[i]
        assert image.dtype == np.uint8
        assert np.array_equal(image, expected)
        assert np.array_equal(np.asarray(Resize(side)(image, None)), expected)
        assert type(packed_label) is int
        assert packed_label == label


def test_jpeg_images_differ_by_little(source, tmp_path):
    jpeg, raw = pack(source, tmp_path / "j", "jpeg", **HOW), pack(source, tmp_path / "r", "raw", **HOW)
    differences = [np.abs(jpeg[i][0].astype(int) - raw[i][0]).mean() for i in range(24)]
    assert 0 < np.mean(differences) < 4             # of 255; these are small and busy
    assert [jpeg[i][1] for i in range(24)] == [raw[i][1] for i in range(24)]
    assert sum(s["bytes"] for s in jpeg.shards) < sum(s["bytes"] for s in raw.shards) / 2


@pytest.mark.parametrize("format", ["jpeg", "raw"])
def test_a_picture_can_be_cut_mirrored_and_scaled_like_any_other(source, tmp_path, format):
    packed = pack(source, tmp_path / "p", format, **HOW)
    whole, label = packed[1]
    picture, same = packed.picture(1)
    assert isinstance(picture, Picture)
    assert picture.shape == whole.shape
    assert same == label
    assert np.array_equal(picture[3:30, 5:25], whole[3:30, 5:25])
    assert np.array_equal(picture[:, ::-1], whole[:, ::-1])
    assert np.array_equal(np.asarray(picture, np.float32), whole.astype(np.float32))
    H, W, _ = whole.shape
    small = np.asarray(Image.fromarray(whole).resize((W // 2, H // 2), Image.Resampling.BILINEAR))
    assert np.array_equal(np.asarray(picture.scaled(H // 2, W // 2)), small)
    assert np.array_equal(np.asarray(picture.scaled(H, W)), whole)


def test_a_raw_image_is_a_view_that_cannot_be_written_to(source, tmp_path):
    image, _ = pack(source, tmp_path / "p", "raw", **HOW)[0]
    assert image.base is not None
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


def test_a_jpeg_is_decoded_smaller_if_that_is_enough(source, tmp_path):
    packed = pack(source, tmp_path / "p", "jpeg", **HOW)
    H, W = packed[0][0].shape[:2]
    assert packed.picture(0, at_least=SIDE)[0].shape == (H, W, 3)
    assert packed.picture(0, at_least=SIDE // 2)[0].shape == (-(-H // 2), -(-W // 2), 3)


@pytest.mark.parametrize("format", ["jpeg", "raw"])
def test_grey_images_stay_grey_and_small_ones_are_scaled_up(tmp_path, format):
    source = Grey()
    packed = pack(source, tmp_path / "p", format, **HOW)
    assert packed.classes == ["even", "odd"]
    for i in range(6):
        image, label = packed[i]
        assert image.shape == (SIDE, SIDE, 1)
        assert label == i % 2
        if format == "raw":
            assert np.array_equal(image, np.asarray(Resize(SIDE)(source[i][0], None)))
    assert verify(tmp_path / "p", progress=False) == []


@pytest.mark.parametrize("quality", [1, 90, 95, 100])
def test_noise_which_no_jpeg_compresses_is_packed_all_the_same(tmp_path, quality):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    packed = pack(Plain((noise, 1)), tmp_path / "p", side=256, quality=quality, progress=False)
    assert packed[0][0].shape == (256, 256, 3)


def test_a_data_set_need_have_neither_pictures_nor_names(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    packed = pack(Plain((image, 1), (image[::-1], 0)), tmp_path / "p", "raw", **HOW)
    assert np.array_equal(packed[1][0], np.asarray(Resize(SIDE)(np.ascontiguousarray(image[::-1]), None)))
    assert packed.name(1) == "image 1"
    again = pack(packed, tmp_path / "q", "raw", **HOW)
    assert np.array_equal(again[0][0], packed[0][0])


def test_names_and_counts_are_kept(source, tmp_path):
    packed = pack(source, tmp_path / "päckchen", **HOW)
    assert [packed.name(i) for i in range(24)] == [relative(source, i) for i in range(24)]
    contents = json.loads((tmp_path / "päckchen" / CONTENTS).read_text())
    assert contents["images"] == 24
    assert contents["counts"] == [8, 8, 8]
    assert contents["classes"] == ["chats", "Äpfel", "日本"]
    assert contents["source"].startswith("ImageFolder photographs")


def test_items_are_counted_as_in_a_list(source, tmp_path):
    packed = pack(source, tmp_path / "p", "raw", **HOW)
    assert len(packed.shards) > 2
    assert np.array_equal(packed[-1][0], packed[23][0])
    assert np.array_equal(packed[np.int64(5)][0], packed[5][0])
    assert len(list(packed)) == 24                  # by IndexError
    for i in (24, -25):
        with pytest.raises(IndexError, match="24 images"):
            packed[i]


def test_the_format_is_what_the_documentation_says(source, tmp_path):
    pack(source, tmp_path / "p", "raw", **HOW)
    data = (tmp_path / "p" / "shard-00000.bin").read_bytes()
    magic, table, length, _ = END.unpack(data[-24:])
    assert magic == b"minicnnp"
    about = json.loads(data[-24 - length:-24])
    assert about["first"] == 0
    rows = np.frombuffer(data[table:-24 - length], ROW)
    assert ROW.itemsize == 32
    assert len(rows) == about["next"]
    row = rows[1]
    assert row["length"] == row["height"] * row["width"] * 3
    pixels = np.frombuffer(data, np.uint8, row["length"], row["offset"])
    assert np.array_equal(pixels.reshape(row["height"], row["width"], 3), Packed(tmp_path / "p")[1][0])
    end = row["offset"] + row["length"]
    assert data[end:end + row["name"]].decode() == relative(source, 1)
    assert table < SHARD


# ---- the same bytes

@pytest.mark.parametrize("format", ["jpeg", "raw"])
def test_any_number_of_workers_gives_the_same_bytes(source, tmp_path, format):
    for workers in (1, 4):
        pack(source, tmp_path / str(workers), format, workers=workers, **HOW)
    assert files(tmp_path / "1") == files(tmp_path / "4")
    assert len(files(tmp_path / "1")) > 2


def test_packing_what_is_packed_changes_nothing(source, tmp_path):
    pack(source, tmp_path / "p", **HOW)
    before = files(tmp_path / "p")
    pack(source, tmp_path / "p", **HOW)
    assert files(tmp_path / "p") == before


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(folder, tmp_path):
    program = ("import sys; from minicnn.data import ImageFolder; from minicnn.data.packed import pack; print('go', flush=True);"
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


def test_what_a_killed_run_leaves_is_not_taken_for_a_shard_and_goes(folder, source, tmp_path):
    program = ("import os, sys; from minicnn.data import ImageFolder; from minicnn.data.packed import packing\n"
               "real, complete = packing.write_end, []\n"
               "packing.write_end = lambda *args: os._exit(9) if complete else complete.append(real(*args))\n"
               f"packing.pack(ImageFolder(sys.argv[1]), sys.argv[2], 'raw', workers=1, **{HOW})")
    assert subprocess.run([sys.executable, "-c", program, str(folder), str(tmp_path / "p")]).returncode == 9
    left = files(tmp_path / "p")
    whole = files(pack(source, tmp_path / "whole", "raw", **HOW).root)
    assert [name.split(".")[0] for name in left] == ["shard-00000", "shard-00001"]
    assert [name.endswith(".tmp") for name in left] == [False, True]
    assert all(whole[name] == data for name, data in left.items() if not name.endswith(".tmp"))
    pack(source, tmp_path / "p", "raw", **HOW)
    assert files(tmp_path / "p") == whole


def test_a_file_gets_its_name_only_when_it_is_on_the_disk(source, tmp_path, monkeypatch):
    synced, named, fsync, replace = set(), [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: synced.add((os.fstat(handle).st_ino, os.fstat(handle).st_size)) or fsync(handle))

    def checked(old, new):
        assert (os.stat(old).st_ino, os.stat(old).st_size) in synced
        named.append(pathlib.Path(new).name)
        replace(old, new)

    monkeypatch.setattr(os, "replace", checked)
    packed = pack(source, tmp_path / "p", "raw", **HOW)
    assert named == [*(f"shard-{n:05}.bin" for n in range(len(packed.shards))), CONTENTS]       # what says that all is there, last


def test_every_write_that_fails_leaves_what_the_next_run_completes(source, tmp_path, monkeypatch):
    pack(source, tmp_path / "whole", "raw", **HOW)
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
            with pytest.raises(OSError, match="make room.*run the same pack again") as caught:
                pack(source, target, "raw", **HOW)
        assert caught.value.errno == errno.ENOSPC
        left = files(target)
        assert not [name for name in left if name.endswith(".tmp")]
        assert CONTENTS not in left or left == whole
        assert all(whole[name] == data for name, data in left.items())
        refused += len(left) < len(whole)
        pack(source, target, "raw", **HOW)
        assert files(target) == whole
    assert refused > 5


def test_a_full_disk_in_the_middle_of_a_shard_is_one_clear_message(source, tmp_path, monkeypatch):
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
            pack(source, tmp_path / "p", "raw", **HOW)
    left = files(tmp_path / "p")
    assert list(left) == [f"shard-{n:05}.bin" for n in range(len(left))]
    assert left
    with pytest.raises(DataError, match="not all of them yet"):
        Packed(tmp_path / "p")
    assert verify(pack(source, tmp_path / "p", "raw", **HOW).root, progress=False) == []


def test_a_place_where_no_folder_can_be_is_named(source, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for place in (tmp_path / "file", tmp_path / "file" / "p"):
        with pytest.raises(OSError, match=f"{place.name}: cannot be written to"):
            pack(source, place, **HOW)


# ---- what is refused

@pytest.mark.parametrize("change", [{"side": SIDE + 1}, {"quality": 91}, {"shard_bytes": SHARD + 1}, {"format": "raw"}])
def test_other_settings_are_refused(source, tmp_path, change):
    pack(source, tmp_path / "p", **HOW)
    before = files(tmp_path / "p")
    for unfinished in (False, True):
        if unfinished:
            (tmp_path / "p" / CONTENTS).unlink()
            del before[CONTENTS]
        with pytest.raises(DataError, match="another source or with other settings"):
            pack(source, tmp_path / "p", **{**HOW, **change})
        assert files(tmp_path / "p") == before


def test_another_source_is_refused(folder, source, tmp_path):
    pack(source, tmp_path / "p", **HOW)
    before = files(tmp_path / "p")
    copy = pathlib.Path(shutil.copytree(folder, tmp_path / "copy"))
    pack(ImageFolder(copy), tmp_path / "q", **HOW)
    for name, shard in files(tmp_path / "q").items():
        assert name == CONTENTS or shard == before[name]            # where it lies makes no difference
    first = copy / "chats" / relative(source, 0).split("/")[1]
    renamed = first.rename(first.with_name("A.jpg"))
    with pytest.raises(DataError, match="image 0 was chats/Bild"):
        pack(ImageFolder(copy), tmp_path / "p", **HOW)
    renamed.rename(first)
    Image.new("RGB", (100, 80)).save(first)
    with pytest.raises(DataError, match="other pixels"):
        pack(ImageFolder(copy), tmp_path / "p", **HOW)
    (copy / "chats").rename(copy / "cats")
    with pytest.raises(DataError, match="other classes"):
        pack(ImageFolder(copy), tmp_path / "p", **HOW)
    with pytest.raises(DataError, match="another source"):
        pack(Plain(*[source[i] for i in range(24)]), tmp_path / "p", **HOW)
    assert files(tmp_path / "p") == before


def test_in_memory_sets_without_names_are_told_apart_by_their_pixels(tmp_path):
    pack(Grey(0), tmp_path / "p", **HOW)
    with pytest.raises(DataError, match="other pixels"):
        pack(Grey(1), tmp_path / "p", **HOW)


def test_a_folder_with_other_things_in_it_is_left_alone(folder, source, tmp_path):
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError, match="holds something else"):
        pack(source, folder, **HOW)
    assert sorted(folder.rglob("*")) == before


def test_an_empty_source_is_refused(tmp_path):
    with pytest.raises(DataError, match="nothing to pack"):
        pack(Plain(), tmp_path / "p", **HOW)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("wrong", [{"format": "png"}, {"on_bad": "ignore"}, {"side": 0}, {"quality": 101}, {"workers": 0},
                                   {"shard_bytes": 0}])
def test_wrong_arguments_are_refused(source, tmp_path, wrong):
    with pytest.raises(ValueError, match="pack: "):
        pack(source, tmp_path / "p", **{**HOW, **wrong})


@pytest.fixture
def with_bad(folder, tmp_path):
    """The photographs, of which numbers 0, 9 and 23 (the first, the last, and one between) cannot be read."""
    copy = pathlib.Path(shutil.copytree(folder, tmp_path / "with bad"))
    source = ImageFolder(copy)
    for i, content in ((0, b""), (9, b"this is no image"), (23, pathlib.Path(source.name(23)).read_bytes()[:300])):
        pathlib.Path(source.name(i)).write_bytes(content)
    return source


def test_a_bad_image_is_named(with_bad, tmp_path):
    with pytest.raises(DataError, match="Bild 10 é.jpg|Bild 8 é.jpg"):
        pack(with_bad, tmp_path / "p", **HOW)
    assert files(tmp_path / "p") == {}


@pytest.mark.parametrize("format", ["jpeg", "raw"])
def test_bad_images_are_left_out_and_listed(with_bad, tmp_path, format):
    packed = pack(with_bad, tmp_path / "p", format, on_bad="skip", **HOW)
    good = [i for i in range(24) if i not in (0, 9, 23)]
    assert len(packed) == 21
    assert [packed.name(i) for i in range(21)] == [relative(with_bad, i) for i in good]
    assert [packed[i][1] for i in range(21)] == [int(with_bad.labels[i]) for i in good]
    assert [(number, name) for number, name, _ in packed.skipped] == [(i, relative(with_bad, i)) for i in (0, 9, 23)]
    assert all("cannot be read" in reason for _, _, reason in packed.skipped)
    assert verify(packed.root, progress=False) == []
    before = files(tmp_path / "p")
    for name in before:                                         # a shard that is lost is made anew, the same
        (tmp_path / "p" / name).unlink()
        pack(with_bad, tmp_path / "p", format, on_bad="skip", workers=1, **HOW)
        assert files(tmp_path / "p") == before


def test_not_one_good_image_is_an_error_that_says_why(tmp_path):
    for name in "ab":
        (tmp_path / "s" / name).mkdir(parents=True)
        (tmp_path / "s" / name / "x.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="not one of 2 images.*x.jpg"):
        pack(ImageFolder(tmp_path / "s"), tmp_path / "p", on_bad="skip", **HOW)


@pytest.mark.parametrize("image, label, what", [
    (np.zeros((1, 3000, 3), np.uint8), 0, "too long and thin"), (np.zeros((9, 9, 3), np.float32), 0, "uint8"),
    (np.zeros((9, 9, 4), np.uint8), 0, "3 or 1"), (np.zeros((9, 9), np.uint8), 0, "3 or 1"), (np.zeros((9, 9, 3), np.uint8), 2, "class 2")])
def test_an_image_that_cannot_be_stored_is_named(tmp_path, image, label, what):
    good = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(DataError, match=f"image 1: .*{what}"):
        pack(Plain((good, 0), (image, label)), tmp_path / "p", **HOW)


def test_a_disk_error_in_the_source_is_a_bad_image_and_not_a_full_disk(tmp_path):
    class Broken(Plain):
        def __getitem__(self, i):
            raise OSError(errno.EIO, "the disk is broken")
    with pytest.raises(DataError, match="image 0: this image cannot be read.*the disk is broken"):
        pack(Broken(1, 2), tmp_path / "p", **HOW)


def test_a_mistake_in_the_source_is_not_taken_for_a_bad_image(tmp_path):
    class Broken(Plain):
        def __getitem__(self, i):
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        pack(Broken(1, 2), tmp_path / "p", on_bad="skip", **HOW)
    assert files(tmp_path / "p") == {}


# ---- damage

@pytest.fixture(scope="module", params=["jpeg", "raw"])
def sound(request, folder, tmp_path_factory):
    return pack(ImageFolder(folder), tmp_path_factory.mktemp("sound") / "p", request.param, **HOW)


@pytest.fixture
def copy(sound, tmp_path):
    return pathlib.Path(shutil.copytree(sound.root, tmp_path / "copy"))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_a_sound_set_has_no_problems(sound):
    assert verify(sound.root, progress=False) == []


def test_a_flipped_bit_anywhere_in_an_image_is_found_by_reading_and_by_verify(sound, copy):
    row, _ = sound.record(1)
    for at in (row["offset"], row["offset"] + row["length"] // 2, row["offset"] + row["length"] - 1, row["offset"] + row["length"] + 1):
        flip(copy / "shard-00000.bin", at)
        packed = Packed(copy)
        packed[0]
        with pytest.raises(DataError, match=r"shard-00000.bin: image 1 .* is damaged.*delete this file and run the same pack again"):
            packed[1]
        assert [problem.split(" (")[0] for problem in verify(copy, progress=False)] == [f"{copy / 'shard-00000.bin'}: image 1"]
        flip(copy / "shard-00000.bin", at)


def test_a_flipped_bit_anywhere_in_a_table_is_found_by_reading_and_by_verify(sound, copy):
    table = sound.shards[0]["table"]
    for at in range(ROW.itemsize):                  # the row of image 1: its label too
        flip(copy / "shard-00000.bin", table + ROW.itemsize + at)
        with pytest.raises(DataError, match=r"image 1 .* is damaged"):
            Packed(copy)[1]
        assert any("the checksum of its table" in problem for problem in verify(copy, progress=False))
        flip(copy / "shard-00000.bin", table + ROW.itemsize + at)


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
        with pytest.raises(DataError, match=r"shard-00001.bin: \d+ bytes, but \d+ were written"):
            Packed(copy)
        assert len(verify(copy, progress=False)) == 1


def test_every_missing_shard_is_named(sound, copy, source):
    before = files(copy)
    for name in ("shard-00000.bin", "shard-00001.bin"):
        (copy / name).unlink()
    with pytest.raises(DataError, match=r"shard-00000.bin: cannot be opened[^\n]*\n.*shard-00001.bin: cannot be opened"):
        Packed(copy)
    assert len(verify(copy, progress=False)) == 2
    how = sound.contents["settings"]
    pack(source, copy, how["format"], **HOW)        # the mend that the message names
    assert files(copy) == before


def test_a_shard_that_is_cut_short_while_it_is_open_is_an_error_not_a_crash(sound, copy):
    packed = Packed(copy)
    os.truncate(copy / "shard-00000.bin", 100)
    for i in range(sound.shards[0]["images"]):
        with pytest.raises(DataError, match="damaged"):
            packed[i]
    assert packed.name(0).startswith("image 0 of")


def test_huge_sizes_in_a_damaged_table_are_refused_before_memory_is_taken(sound, copy, monkeypatch):
    table, asked, real = sound.shards[0]["table"], [], os.pread
    monkeypatch.setattr(os, "pread", lambda handle, count, at: asked.append(count) or real(handle, count, at))
    for field, value in (("length", 2**32 - 1), ("offset", 2**62), ("offset", -1), ("offset", 2**63 - 1), ("height", 2**32 - 1)):
        data = bytearray((sound.root / "shard-00000.bin").read_bytes())
        row = np.frombuffer(data, ROW, 1, table)
        row[field] = value
        (copy / "shard-00000.bin").write_bytes(data)
        with pytest.raises(DataError, match="damaged"):
            Packed(copy)[0]
    assert asked
    assert max(asked) < SHARD


@pytest.mark.parametrize("change, what", [
    ({"version": 2}, "version 2.*upgrade"), ({"format": "zip"}, "not a list of contents"), ({"images": 23}, "damaged"),
    ({"shards": [{"bytes": 10**18, "images": 10**15, "table": 0}], "images": 10**15}, "were written"),
    ({"shards": [{"bytes": 100, "images": 10**18, "table": 0}], "images": 10**18}, "damaged"), ({"shards": [], "images": 0}, "damaged"),
    ({"shards": [{"bytes": 100, "images": -1, "table": 0}]}, "damaged"), ({"classes": "ab"}, "damaged"), ({"settings": {}}, "damaged")])
def test_contents_that_cannot_be_right_are_refused(copy, change, what):
    contents = json.loads((copy / CONTENTS).read_text())
    (copy / CONTENTS).write_text(json.dumps({**contents, **change}))
    with pytest.raises(DataError, match=what):
        Packed(copy)
    assert len(verify(copy, progress=False)) == 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_random_bytes_instead_of_a_file_never_raise_anything_but_a_data_error(sound, tmp_path, data):
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(sound.root, copy)
    path = copy / data.draw(st.sampled_from([CONTENTS, "shard-00000.bin"]))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    rubbish = data.draw(st.binary(min_size=1, max_size=80) | st.text("[]{}\":,0123456789-+.eE NaInfity", min_size=1).map(str.encode))
    keep_size = data.draw(st.booleans())
    path.write_bytes(whole[:at] + rubbish + whole[at + len(rubbish):] if keep_size else rubbish)
    problems = verify(copy, progress=False)
    assert all(isinstance(problem, str) for problem in problems)
    assert problems or path.read_bytes() == whole or path.name == CONTENTS
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


def test_what_is_no_packed_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="no packed images"):
        Packed(tmp_path)
    with pytest.raises(DataError, match="no packed images"):
        Packed(tmp_path / "nowhere")
    (tmp_path / CONTENTS).mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        Packed(tmp_path)


# ---- other processes, and memory

def test_it_travels_to_other_processes_as_a_path(sound, tmp_path):
    sent = pickle.dumps(sound)
    assert len(sent) < 500
    there = pickle.loads(sent)
    assert np.array_equal(there[3][0], sound[3][0])
    assert there.fingerprint() == sound.fingerprint()


def test_a_set_that_was_packed_anew_meanwhile_is_noticed(sound, copy):
    sent = pickle.dumps(Packed(copy))
    shutil.rmtree(copy)
    pack(Grey(), copy, **HOW)
    with pytest.raises(DataError, match="packed anew"):
        pickle.loads(sent)


def test_it_closes_its_files(sound):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no list of open files here")
    before = len(os.listdir("/proc/self/fd"))
    packed = Packed(sound.root)
    assert len(os.listdir("/proc/self/fd")) == before + len(packed.shards)
    del packed
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_stays_flat_while_it_is_read(tmp_path):
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("no count of this process's memory here")
    noise = np.random.default_rng(0).integers(0, 256, (256, 341, 3), np.uint8)
    pack(Plain(*[(noise, 0)] * 200), tmp_path / "p", "raw", progress=False)         # 52 MB
    program = ("import sys; from minicnn.data.packed import Packed; packed = Packed(sys.argv[1])\n"
               "resident = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096\n"
               "packed[0]; before = resident()\n"
               "for i in range(200): packed[i][0][10:237, 10:237].copy()\n"
               "print(resident() - before)")
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path / "p")], capture_output=True, check=True)
    assert int(run.stdout) < 5e6


def test_bytes_are_written_once_per_image_and_in_order(source, tmp_path, monkeypatch):
    """Images that are encoded ahead are not stored twice where one shard ends and the next begins."""
    seen = []
    monkeypatch.setattr(packing, "encode", lambda s, i, how, real=packing.encode: seen.append(i) or real(s, i, how))
    packed = pack(source, tmp_path / "p", "raw", workers=4, **HOW)
    assert [packed.name(i) for i in range(24)] == [relative(source, i) for i in range(24)]
    assert set(seen) == set(range(24))


def test_the_bar_counts_all_images(source, tmp_path, capsys):
    for _ in range(2):
        pack(source, tmp_path / "p", **{**HOW, "progress": True})
        assert "24/24" in capsys.readouterr().err
    verify(tmp_path / "p")
    assert "24/24" in capsys.readouterr().err
