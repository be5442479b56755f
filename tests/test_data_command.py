"""`minicnn data` finds what is wrong with a data set before training does, and says how to fix it."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from minicnn import data
from minicnn.__main__ import main
from minicnn.cli.data import format_report
from minicnn.data.verify import ConcatDataset, verify
from minicnn.visualize.contact_sheet import CELL, GAP, TEXT, contact_sheet

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 210)}


def save(path, colour, seed, size=(48, 36), kind="JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-20, 20, (size[1], size[0], 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path, kind)


@pytest.fixture
def tree(tmp_path):
    """train/ and val/ with three classes, 6 and 2 images in each."""
    for c, (name, colour) in enumerate(COLOURS.items()):
        for split, count in (("train", 6), ("val", 2)):
            for j in range(count):
                save(tmp_path / split / name / f"{j}.jpg", colour, 1000 * c + 100 * count + j)
    return tmp_path


def inspect(where, **options):
    """The report of `verify`, which can be written as JSON."""
    report = verify(where, progress=False, **options)
    json.dumps(report)
    return report


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_sound_data_set_has_no_problems(tree, fast, workers, capsys):
    report = inspect(tree, fast=fast, workers=workers)
    assert report["problems"] == report["notes"] == report["duplicates"] == []
    assert {name: one["classes"] for name, one in report["sets"].items()} == {
        "train": {"blue": 6, "green": 6, "red": 6}, "val": {"blue": 2, "green": 2, "red": 2}}
    assert report["sets"]["val"]["bytes"] == sum(path.stat().st_size for path in tree.glob("val/*/*"))
    assert report["kinds"] == {"JPEG RGB": 24}
    assert report["sizes"]["median"] == {"width": 48, "height": 36}
    assert main(["data", "verify", str(tree), *["--fast"] * fast, "--workers", str(workers)]) == 0
    text = capsys.readouterr().out
    assert "no problems" in text
    assert "green      6    2" in text


def test_sizes_are_those_of_the_images(tree):
    save(tree / "train" / "red" / "small.png", COLOURS["red"], 1, (5, 7), "PNG")
    save(tree / "train" / "red" / "wide.png", COLOURS["red"], 2, (400, 20), "PNG")
    sizes = inspect(tree)["sizes"]
    assert sizes["smallest"] == {"width": 5, "height": 7, "file": str(tree / "train" / "red" / "small.png")}
    assert sizes["largest"] == {"width": 400, "height": 20, "file": str(tree / "train" / "red" / "wide.png")}


def test_every_unreadable_image_is_named_and_fast_misses_only_late_damage(tree):
    bad = {"empty": b"", "text": b"hello", "cut": (tree / "train" / "red" / "0.jpg").read_bytes()[:-60]}
    for name, content in bad.items():
        (tree / "train" / "red" / f"{name}.jpg").write_bytes(content)
    (tree / "val" / "blue" / "gone.jpg").symlink_to("nowhere")
    problems = inspect(tree)["problems"]
    assert len(problems) == 4
    for name, reason in (("red/empty", "the file is empty"), ("red/text", "it is text"), ("red/cut", "image file is truncated"),
                         ("blue/gone", "broken symbolic link")):
        assert sum(f"{name}.jpg: this image cannot be read ({reason}" in problem for problem in problems) == 1
    assert [name for name in ("empty", "text", "cut", "gone") if any(f"{name}.jpg" in p for p in inspect(tree, fast=True)["problems"])] == [
        "empty", "text", "gone"]


def test_duplicates_are_found(tree):
    for fast in (False, True):
        assert inspect(tree, fast=fast)["duplicates"] == []
    train, val = tree / "train", tree / "val"
    shutil.copy(train / "red" / "0.jpg", train / "red" / "again.jpg")
    shutil.copy(train / "green" / "1.jpg", train / "blue" / "other.jpg")
    shutil.copy(train / "blue" / "2.jpg", val / "blue" / "leak.jpg")
    for fast in (False, True):
        report = inspect(tree, fast=fast)
        assert sorted(map(sorted, report["duplicates"])) == sorted(sorted(map(str, pair)) for pair in [
            (train / "red" / "0.jpg", train / "red" / "again.jpg"), (train / "green" / "1.jpg", train / "blue" / "other.jpg"),
            (train / "blue" / "2.jpg", val / "blue" / "leak.jpg")])
        assert len(report["problems"]) == 2
        assert any(problem.startswith("the same image in the classes blue, green: ") for problem in report["problems"])
        assert any(problem.startswith("the same image in train and val: ") and "leak.jpg" in problem for problem in report["problems"])
        assert [note.partition(":")[0] for note in report["notes"]] == ["the same image more than once in a class"]


def test_fast_compares_whole_files_before_it_reports_a_duplicate(tree):
    """Files of one size whose first 4096 bytes are the same."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    for j in range(2):
        pixels[-1, -1, -1] = j
        Image.fromarray(pixels).save(tree / "train" / "red" / f"like{j}.bmp")
    first, second = ((tree / "train" / "red" / f"like{j}.bmp").read_bytes() for j in range(2))
    assert len(first) == len(second) > 4096
    pixels[0, 0, 0] ^= 1                # a BMP begins with its last row: the difference is near the end now
    Image.fromarray(pixels).save(tree / "train" / "red" / "like0.bmp")
    first = (tree / "train" / "red" / "like0.bmp").read_bytes()
    assert first[:4096] == second[:4096]
    assert first != second
    assert inspect(tree, fast=True)["duplicates"] == []


def test_empty_and_missing_classes_are_problems_and_imbalance_is_noted(tree):
    shutil.rmtree(tree / "val" / "green")
    for path in (tree / "train" / "blue").iterdir():
        path.unlink()
    for j in range(3, 6):
        (tree / "train" / "red" / f"{j}.jpg").unlink()
    (tree / "train" / "red" / "2.jpg").unlink()
    (tree / "val" / "pink").mkdir()
    report = inspect(tree)
    assert sorted(report["problems"]) == sorted([
        f"{tree}/train/blue: no images in this class; add some, or remove the folder",
        f"{tree}/val/pink: no images in this class; add some, or remove the folder",
        "the class green is in train, but not in val", "the class pink is in val, but not in train"])
    assert report["notes"] == ["train: the largest class has 3.0 times as many images as the smallest"]
    assert report["sets"]["train"]["classes"] == {"blue": 0, "green": 6, "red": 2}


def test_misnamed_files_are_noted(tree):
    save(tree / "train" / "red" / "x.JPEG", COLOURS["red"], 5, kind="PNG")
    save(tree / "train" / "red" / "y.JPEG", COLOURS["red"], 6)
    Image.open(tree / "train" / "red" / "0.jpg").convert("CMYK").save(tree / "train" / "red" / "z.jpg")
    report = inspect(tree)
    assert report["problems"] == []
    assert report["notes"] == [f"{tree}/train/red/x.JPEG: is a PNG despite its extension"]
    assert report["kinds"] == {"JPEG RGB": 25, "PNG RGB": 1, "JPEG CMYK": 1}


def test_a_single_folder_of_classes_and_built_in_sets_are_inspected_too(tree):
    report = inspect(tree / "train")
    assert list(report["sets"]) == ["all"]
    assert report["sets"]["all"]["images"] == 18
    assert inspect("photos")["sets"]["val"]["images"] == 160
    report = inspect("fashion-mnist")
    assert report["sets"]["train"]["classes"]["Sneaker"] == 800
    assert report["kinds"] == {"grey": 10_000}
    assert report["problems"] == report["duplicates"] == []


def test_concat_dataset_numbers_the_images_of_all_sets(tree):
    sets = {"train": data.ImageFolder(tree / "train"), "none": [], "val": data.ImageFolder(tree / "val")}
    images = ConcatDataset(sets)
    assert len(images) == 24
    assert [images.set_of(n) for n in (0, 17, 18, 23)] == ["train", "train", "val", "val"]
    assert images.locate(18) == (sets["val"], 0)
    assert images.slice_of("val") == slice(18, 24)


def test_long_lists_are_truncated_as_text_but_not_as_json(tree, capsys):
    for j in range(50):
        save(tree / "train" / f"class{j:02d}" / "0.jpg", (j, j, j), 5000 + j)
    report = inspect(tree)
    assert len(report["problems"]) == 50
    text = format_report(report)
    assert "... and 30 more" in text
    assert "... 33 more" in text
    assert len(text.splitlines()) < 60
    assert main(["data", "verify", str(tree), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == report


def test_exit_codes(tree, capsys):
    assert main(["data", "verify", str(tree)]) == 0
    (tree / "train" / "red" / "bad.jpg").write_bytes(b"")
    assert main(["data", "verify", str(tree)]) == 1
    assert "1 problem:" in capsys.readouterr().out
    assert main(["data", "verify", str(tree / "nothing here")]) == 2
    assert "no such folder" in capsys.readouterr().err
    for wrong in ([], ["verify"], ["verify", str(tree), "--workers", "0"], ["repair", str(tree)], ["preview", str(tree)],
                  ["pack", str(tree)], ["pack", str(tree), str(tree / "packed"), "--on-error", "warn"]):
        with pytest.raises(SystemExit) as left:
            main(["data", *wrong])
        assert left.value.code == 2
    for text in (["--help"], ["verify", "--help"]):
        with pytest.raises(SystemExit) as left:
            main(["data", *text])
        assert left.value.code == 0
    assert "inspect every image" in capsys.readouterr().out.lower()


def test_names_that_are_not_utf8_can_be_printed(tree):
    try:
        with open(os.fsencode(tree / "train" / "red") + b"/\xff.jpg", "wb"):
            pass
    except OSError:
        pytest.skip("this file system does not allow such names")
    done = subprocess.run([sys.executable, "-m", "minicnn", "data", "verify", str(tree)], capture_output=True, check=False,
                          env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 1
    assert rb"red/\xff.jpg: this image cannot be read (the file is empty)" in done.stdout
    assert b"Traceback" not in done.stderr


# ---- the contact sheet

def cell(sheet, row, column):
    top, left = GAP + TEXT + row * (CELL + TEXT + GAP), GAP + column * (CELL + GAP)
    return sheet[top:top + CELL, left:left + CELL].astype(int)


def test_a_contact_sheet_has_the_image_and_different_versions_of_it(tmp_path):
    train = data.PhotoCrops("train")
    contact_sheet(train, tmp_path / "sheet.png", rows=3, columns=4, size=64)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (GAP + TEXT + 3 * (CELL + TEXT + GAP), GAP + 4 * (CELL + GAP), 3)
    for row, label in enumerate((0, 3, 7)):                         # evenly spread over the eight
        photo = data.photos()[label][1]
        versions = [cell(sheet, row, column) for column in range(4)]
        assert np.abs(versions[0].mean((0, 1)) - cell(sheet, row, 1).mean((0, 1))).max() < 40     # the same colours, about
        assert photo.std() > 0
        for a in range(4):
            for b in range(a):
                assert np.abs(versions[a] - versions[b]).mean() > 2
    contact_sheet(train, tmp_path / "again.png", rows=3, columns=4, size=64)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()
    contact_sheet(train, tmp_path / "other.png", rows=3, columns=4, size=64, seed=1)
    other = np.asarray(Image.open(tmp_path / "other.png"))
    np.testing.assert_array_equal(cell(other, 1, 0), cell(sheet, 1, 0))
    assert not np.array_equal(cell(other, 1, 1), cell(sheet, 1, 1))


def test_a_contact_sheet_has_the_colours_of_the_images(tree):
    """Neither inverted, nor with red and blue swapped, nor with the mean subtracted."""
    assert main(["data", "preview", str(tree), str(tree / "sheet.png"), "--rows", "3", "--columns", "3", "--size", "32"]) == 0
    sheet = np.asarray(Image.open(tree / "sheet.png"))
    for row, name in enumerate(sorted(COLOURS)):
        for column in range(3):
            middle = cell(sheet, row, column)[CELL // 3:-CELL // 3, CELL // 3:-CELL // 3].mean((0, 1))
            assert np.abs(middle - COLOURS[name]).max() < 60


def test_a_contact_sheet_of_grey_images_and_of_two_classes(tmp_path):
    contact_sheet(data.FashionMNIST("test"), tmp_path / "a.png", rows=4, columns=2, size=28)
    assert np.asarray(Image.open(tmp_path / "a.png")).shape[0] == GAP + TEXT + 4 * (CELL + TEXT + GAP)
    two = data.datasets.ArrayDataset(np.random.default_rng(0).integers(0, 256, (5, 9, 30, 3), dtype=np.uint8), [0, 0, 1, 1, 1], ["猫", "b"])
    contact_sheet(two, tmp_path / "b.png", rows=4, columns=2, size=8)       # two of each class
    assert np.asarray(Image.open(tmp_path / "b.png")).shape[0] == GAP + TEXT + 4 * (CELL + TEXT + GAP)


def test_preview_reports_errors(tree, capsys):
    assert main(["data", "preview", str(tree / "none"), str(tree / "a.png")]) == 2
    assert main(["data", "preview", str(tree), str(tree / "a.txt")]) == 2
    assert main(["data", "preview", str(tree), str(tree / "no folder" / "a.png")]) == 2
    assert "no such folder" in capsys.readouterr().err


# ---- packing

def test_a_set_is_packed_verified_and_opened_again(tree, capsys):
    packed = tree / "packed"
    assert main(["data", "pack", str(tree), str(packed), "--side", "32", "--format", "raw", "--workers", "2"]) == 0
    assert "train: 18 images\nval: 6 images" in capsys.readouterr().out
    assert main(["data", "verify-pack", str(packed)]) == 0
    assert main(["data", "verify-pack", str(packed / "val")]) == 0
    train, val = data.open_dataset(packed)
    assert (len(train), len(val)) == (18, 6)
    assert train.classes == ["blue", "green", "red"]
    assert main(["data", "verify", str(packed)]) == 0
    assert main(["data", "preview", str(packed), str(tree / "sheet.png"), "--rows", "2"]) == 0
    shard = next((packed / "val").glob("shard-*"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    capsys.readouterr()
    assert main(["data", "verify-pack", str(packed)]) == 1
    assert "shard-00000.bin" in capsys.readouterr().out
    assert main(["data", "verify", str(packed)]) == 1
    assert main(["data", "verify-pack", str(tree)]) == 2


def test_unreadable_images_stop_packing_or_are_skipped_and_named(tree, capsys):
    (tree / "train" / "red" / "bad.jpg").write_bytes(b"")
    assert main(["data", "pack", str(tree), str(tree / "a"), "--side", "32"]) == 2
    assert "bad.jpg: this image cannot be read (the file is empty)" in capsys.readouterr().err
    assert main(["data", "pack", str(tree), str(tree / "b"), "--side", "32", "--on-error", "skip"]) == 0
    text = capsys.readouterr().out
    assert "train: 18 images" in text
    assert "skipped: " in text
    assert "bad.jpg" in text
