"""Every data set is read correctly or refused by name, whatever is in the files."""

import gzip
import io
import os
import pickle
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minicnn import data
from minicnn.data.datasets import ArrayDataset, DataError, FileDataset, imagenet, read_image, read_lazy_image, unpickle
from minicnn.data.datasets.files import PackedStrings
from minicnn.data.datasets.images import orientation
from minicnn.data.detect import SUPPORTED
from minicnn.data.lazy_image import LazyImage


def photo(width=60, height=40, seed=0):
    """A smooth colour image, different for each seed, which JPEG changes little."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin((x + seed * 7) / (9 + c) + y / (11 - c) + c + seed) for c in range(3)]
    return np.stack(waves, -1).astype(np.uint8)


def jpeg(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0, **options)
    return file.getvalue()


def make_folder(root, classes=("cats", "rockets"), count=3, seed=0):
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for j in range(count):
            (root / name / f"{j}.jpg").write_bytes(jpeg(photo(seed=seed + 100 * c + j)))
    return root


# ---- the interface of all data sets

def every_dataset(tmp_path):
    yield data.FashionMNIST("test")
    yield data.PhotoCrops("train")
    yield data.PhotoCrops("val")
    yield data.ImageFolder(make_folder(tmp_path / "folder"))
    yield data.EvenSample(data.ImageFolder(tmp_path / "folder"), 2)
    yield ArrayDataset(np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3), [1, 0], "ab")


def test_every_data_set_has_the_common_interface_and_can_be_pickled(tmp_path):
    for one in every_dataset(tmp_path):
        unpickled = pickle.loads(pickle.dumps(one))
        assert list(unpickled.classes) == list(one.classes)
        assert one.fingerprint() == unpickled.fingerprint() == one.fingerprint()
        assert one.in_memory in (True, False)
        for i in (0, len(one) - 1):
            image, label = one[i]
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] in (1, 3)
            assert type(label) is int
            assert 0 <= label < len(one.classes)
            lazy, lazy_label = one.load(i)
            assert isinstance(lazy, LazyImage)
            assert lazy_label == label
            np.testing.assert_array_equal(np.asarray(lazy), image)
            np.testing.assert_array_equal(unpickled[i][0], image)
            assert one.name(i) == unpickled.name(i)
        assert len({one.name(i) for i in range(len(one))}) == len(one)


def test_fingerprints_of_arrays_change_with_a_pixel_and_a_label():
    images = np.zeros((3, 4, 4, 1), np.uint8)
    first = ArrayDataset(images, [0, 1, 0], "ab").fingerprint()
    assert ArrayDataset(images, [0, 1, 1], "ab").fingerprint() != first
    assert ArrayDataset(images, [0, 1, 0], "ac").fingerprint() != first
    images = images.copy()
    images[2, 3, 3] = 1
    assert ArrayDataset(images, [0, 1, 0], "ab").fingerprint() != first
    whole = data.FashionMNIST("test")
    assert data.EvenSample(whole, 10).fingerprint() not in (data.EvenSample(whole, 11).fingerprint(), whole.fingerprint())


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="labels must be 0 to 1 for 2 classes, got 2"):
        ArrayDataset(np.zeros((2, 1, 1, 1), np.uint8), [0, 2], "ab")
    with pytest.raises(DataError, match="2 images but 1 labels"):
        ArrayDataset(np.zeros((2, 1, 1, 1), np.uint8), [0], "ab")


@pytest.mark.parametrize("shape, hint", [
    ((2, 3, 4, 5), "; use images.transpose(0, 2, 3, 1)"), ((2, 1, 28, 28), "; use images.transpose(0, 2, 3, 1)"),
    ((2, 28, 28), ""), ((2, 4, 5, 4), "")])
def test_images_of_another_shape_are_refused(shape, hint):
    with pytest.raises(DataError) as caught:
        ArrayDataset(np.zeros(shape, np.uint8), [0, 1], "ab")
    assert str(caught.value) == f"ArrayDataset: images must be (N, H, W, C) with C = 3 or 1, got {shape}{hint}"
    if hint:
        assert ArrayDataset(np.zeros(shape, np.uint8).transpose(0, 2, 3, 1), [0, 1], "ab")[1][0].shape == (*shape[2:], shape[1])


def test_photo_crops_for_validation_are_not_those_for_training():
    train, val = data.PhotoCrops("train"), data.PhotoCrops("val")
    assert (len(train), len(val)) == (640, 160)
    assert train.classes == val.classes == [name for name, _ in data.photos()]
    crops = [{one[i][0].tobytes() for i in range(len(one))} for one in (train, val)]
    assert not crops[0] & crops[1]
    assert len(crops[1]) == 160
    for label in range(8):
        assert sum(val[i][1] == label for i in range(len(val))) == 20
    _, photo = data.photos()[2]
    image, label = train[2 * 80]
    assert label == 2
    np.testing.assert_array_equal(image, photo[:len(image), :len(image)])       # row 0, column 0
    with pytest.raises(DataError, match='"train" or "val"'):
        data.PhotoCrops("test")


# ---- names of files

@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8), max_size=20))
def test_packed_strings_are_the_strings(names):
    packed = PackedStrings(names)
    assert len(packed) == len(names)
    assert [packed[i] for i in range(len(packed))] == list(packed) == names
    assert [packed[-1 - i] for i in range(len(packed))] == names[::-1]
    with pytest.raises(IndexError):
        packed[len(names)]


def test_many_names_are_small_and_quick_to_unpickle():
    folders = [f"n{i:08d}" for i in range(1000)]
    names = [f"{name}_{j}.JPEG" for name in folders for j in range(200)]
    dataset = FileDataset("/data/train", folders, folders, names, np.repeat(np.arange(1000), 200))
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 27 * len(names)                           # bytes for each: 18 for its name, 4 for its end, 2 for its label
    start = time.perf_counter()
    unpickled = pickle.loads(pickled)
    assert time.perf_counter() - start < 1
    assert unpickled.name(123_456) == os.path.join("/data/train", "n00000617", "n00000617_56.JPEG")
    assert unpickled.labels[123_456] == 617


# ---- folders

def test_images_in_sub_folders_of_a_class_belong_to_it_and_hidden_ones_do_not(tmp_path):
    make_folder(tmp_path)
    deep = tmp_path / "cats" / "a" / "b"
    deep.mkdir(parents=True)
    for name in (tmp_path / "cats" / "z.PNG", deep / "9.jpg", deep / ".hidden.jpg", deep / "notes.txt", deep / "._9.jpg"):
        name.write_bytes(jpeg(photo()))
    hidden = tmp_path / "cats" / ".cache"
    hidden.mkdir()
    (hidden / "1.jpg").write_bytes(jpeg(photo()))
    folder = data.ImageFolder(tmp_path)
    names = [os.path.relpath(folder.name(i), tmp_path) for i in range(len(folder))]
    assert names == ["cats/0.jpg", "cats/1.jpg", "cats/2.jpg", "cats/a/b/9.jpg", "cats/z.PNG", *(f"rockets/{j}.jpg" for j in range(3))]
    assert list(folder.labels) == [0] * 5 + [1] * 3


def test_symbolic_links_are_followed_but_never_in_cycles(tmp_path):
    make_folder(tmp_path / "set")
    more = make_folder(tmp_path / "elsewhere", ["more"], 1)
    cats = tmp_path / "set" / "cats"
    (cats / "linked").symlink_to(more / "more")
    (cats / "self.jpg").symlink_to("self.jpg")                      # points to itself
    (cats / "up").symlink_to("..")                                  # would label the rockets as cats
    (cats / "here").symlink_to(".")
    (cats / "far up").symlink_to(tmp_path)
    (tmp_path / "elsewhere" / "more" / "back").symlink_to(cats)
    folder = data.ImageFolder(tmp_path / "set")
    names = [os.path.relpath(folder.name(i), tmp_path / "set") for i in range(len(folder))]
    assert names == [*(f"cats/{name}.jpg" for name in (0, 1, 2, "linked/0", "self")), *(f"rockets/{j}.jpg" for j in range(3))]
    with pytest.raises(DataError, match=r"self\.jpg: this image cannot be read"):
        folder[4]


def test_a_broken_symbolic_link_is_named_when_it_is_read(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "cats" / "gone.jpg").symlink_to("nowhere.jpg")
    folder = data.ImageFolder(tmp_path)
    with pytest.raises(DataError, match=r"gone\.jpg: this image cannot be read \(broken symbolic link\); restore it"):
        folder[3]


def test_classes_are_in_the_given_order(tmp_path):
    make_folder(tmp_path, ["b", "a", "c"])
    assert data.ImageFolder(tmp_path).classes == ["a", "b", "c"]
    folder = data.ImageFolder(tmp_path, classes=["c", "a", "b"])
    assert folder.classes == ["c", "a", "b"]
    assert [os.path.basename(os.path.dirname(folder.name(i))) for i in (0, 3, 6)] == ["c", "a", "b"]
    assert list(folder.labels) == [0] * 3 + [1] * 3 + [2] * 3
    for wrong in (["a", "b"], ["a", "b", "c", "d"], ["a", "a", "b", "c"]):
        with pytest.raises(DataError, match="differ from the given classes"):
            data.ImageFolder(tmp_path, classes=wrong)


def test_a_fingerprint_changes_when_files_are_added_removed_or_resized(tmp_path):
    make_folder(tmp_path)
    fingerprints = {data.ImageFolder(tmp_path).fingerprint()}
    moved = tmp_path / "cats" / "1.jpg"

    def new():
        found = data.ImageFolder(tmp_path).fingerprint()
        assert found == data.ImageFolder(tmp_path).fingerprint()
        assert found not in fingerprints
        fingerprints.add(found)

    moved.write_bytes(moved.read_bytes() + b"more")
    new()
    moved.rename(tmp_path / "cats" / "one.jpg")
    new()
    (tmp_path / "cats" / "one.jpg").rename(tmp_path / "rockets" / "one.jpg")
    new()
    (tmp_path / "rockets" / "one.jpg").unlink()
    new()
    folder = data.ImageFolder(tmp_path)
    assert folder.fingerprint() in fingerprints
    assert data.ImageFolder(tmp_path, classes=["rockets", "cats"]).fingerprint() not in fingerprints
    (tmp_path / "cats" / "0.jpg").unlink()                          # the name is stored: a missing file changes it too, and is no error
    assert folder.fingerprint() not in fingerprints


def test_a_fingerprint_is_the_same_in_every_version(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"12345")
    assert data.ImageFolder(tmp_path).fingerprint() == "2ef7f4a6b72a19022763c43d6a1be433897fc88e293f76e1b792a5f9c6ac5150"


def test_names_that_are_not_ascii_or_not_utf8_are_read_and_named(tmp_path):
    make_folder(tmp_path, ["Käfer", "猫"], 1)
    folder = data.ImageFolder(tmp_path)
    assert folder.classes == ["Käfer", "猫"]
    assert folder[1][0].shape == (40, 60, 3)
    raw = os.fsencode(tmp_path / "Käfer") + b"/\xff.jpg"
    try:
        with open(raw, "wb") as file:
            file.write(b"no image")
    except OSError:
        pytest.skip("this file system does not allow such names")
    folder = pickle.loads(pickle.dumps(data.ImageFolder(tmp_path)))
    with pytest.raises(DataError, match=r"Käfer/\\xff\.jpg: this image cannot be read") as caught:
        folder[1]
    str(caught.value).encode()                                      # it can be printed


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "cats").chmod(0)
    try:
        with pytest.raises(DataError, match="cats: this folder cannot be listed"):
            data.ImageFolder(tmp_path)
    finally:
        (tmp_path / "cats").chmod(0o700)


# ---- image files

def test_the_content_decides_the_format_not_the_name(tmp_path):
    pixels = photo()
    Image.fromarray(pixels).save(tmp_path / "a.JPEG", "PNG")        # as ImageNet's n02105855_2933.JPEG
    np.testing.assert_array_equal(read_image(tmp_path / "a.JPEG"), pixels)
    (tmp_path / "b.png").write_bytes(jpeg(pixels))
    assert abs(read_image(tmp_path / "b.png").astype(int) - pixels).mean() < 3


def test_cmyk_is_converted_to_rgb(tmp_path):
    """A CMYK JPEG is inverted, as Adobe's programs write it, and has a marker for that."""
    pixels = photo()
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "a.jpg", quality=95, subsampling=0)
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()
    assert abs(read_image(tmp_path / "a.jpg").astype(int) - pixels).mean() < 3
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pixels)


def test_transparency_is_composited_over_white(tmp_path):
    colours = Image.new("RGBA", (4, 1))
    for x, colour in enumerate([(200, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 127), (9, 9, 9, 0)]):
        colours.putpixel((x, 0), colour)
    colours.save(tmp_path / "a.png")
    want = [[200, 0, 0], [255, 255, 255], [128, 128, 128], [255, 255, 255]]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], want)
    grey = colours.convert("LA")
    grey.save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png")[0, 1:, 0], [255, 128, 255])
    palette = Image.new("P", (3, 1))
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    for x in range(3):
        palette.putpixel((x, 0), x)
    palette.save(tmp_path / "c.png", transparency=bytes([255, 0, 255]))
    np.testing.assert_array_equal(read_image(tmp_path / "c.png")[0], [[200, 0, 0], [255, 255, 255], [0, 0, 200]])
    palette.save(tmp_path / "d.gif", transparency=2)
    np.testing.assert_array_equal(read_image(tmp_path / "d.gif")[0], [[200, 0, 0], [0, 200, 0], [255, 255, 255]])
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "e.png", transparency=(1, 2, 3))
    np.testing.assert_array_equal(read_image(tmp_path / "e.png"), [[[255, 255, 255]]])


def test_sixteen_bits_are_reduced_to_the_upper_eight(tmp_path):
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name)[0], np.repeat([[0, 0, 1, 128, 255]], 3, axis=0).T)
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match=r"f\.tif: this image cannot be read \(its pixels are floats"):
        read_image(tmp_path / "f.tif")


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation_is_read(tmp_path, kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
    path = tmp_path / f"a.{kind}"
    try:
        frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "webp" else {}))
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {kind}")
    with Image.open(path) as image:
        assert image.n_frames == 3
    image = read_image(path)
    assert image.shape == (6, 8, 3)
    np.testing.assert_array_equal(image[3, 4], [255, 0, 0])


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("number", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, number, kind):
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16], upright[:16, 32:], upright[16:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    undo = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
            6: lambda a: np.rot90(a), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a, -1)}
    stored = np.ascontiguousarray(undo[number](upright))            # as the camera's sensor recorded it
    exif = Image.Exif()
    exif[0x010F] = "a maker of cameras"
    exif[0x0112] = number
    options = {"quality": 95, "subsampling": 0} if kind == "jpg" else {"lossless": True} if kind == "webp" else {}
    Image.fromarray(stored).save(tmp_path / f"a.{kind}", exif=exif, **options)
    image = read_image(tmp_path / f"a.{kind}")
    assert image.shape == upright.shape
    assert abs(image.astype(int) - upright).mean() < 3


@pytest.mark.parametrize("order", "<>")
def test_orientation_is_found_in_either_byte_order(order):
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, 6, 0)
    other = struct.pack(order + "HHII", 0x010F, 2, 4, 0)
    tiff = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 2) + other + entry
    assert orientation(tiff) == orientation(b"Exif\0\0" + tiff) == 6
    for end in range(len(tiff) - 2):
        assert orientation(tiff[:end]) == 1                         # truncated: as if there were none
    assert orientation(tiff.replace(struct.pack(order + "HH", 6, 0), struct.pack(order + "HH", 9, 0))) == 1
    assert orientation(None) == 1


@given(st.binary(max_size=60))
def test_broken_exif_is_upright(noise):
    assert 1 <= orientation(noise) <= 8
    assert 1 <= orientation(b"II*\0" + noise) <= 8


def test_broken_exif_is_ignored(tmp_path, recwarn):
    pixels = photo()
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x010F] = 3, 72.0, "somebody"
    whole = exif.tobytes()
    image = Image.fromarray(pixels)
    for end in range(6, len(whole)):
        for broken in (whole[:end], whole[:end] + b"\xff" * (len(whole) - end)):
            file = io.BytesIO()
            image.save(file, "JPEG", quality=95, subsampling=0, exif=broken)
            # Without the JFIF header, Pillow searches EXIF for the resolution as soon as it opens the file.
            start = file.getvalue()
            app0 = start.index(b"\xff\xe0")
            (tmp_path / "a.jpg").write_bytes(start[:app0] + start[app0 + 2 + int.from_bytes(start[app0 + 2:app0 + 4], "big"):])
            found = read_image(tmp_path / "a.jpg")
            assert min(abs(found.astype(int) - pixels).mean(), abs(found[::-1, ::-1].astype(int) - pixels).mean()) < 3
    assert not recwarn.list


@pytest.mark.parametrize("width, height", [(1, 1), (20_000, 1), (1, 20_000)])
def test_images_of_extreme_shapes(tmp_path, width, height):
    pixels = np.full((height, width, 3), 77, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "a.jpg").write_bytes(jpeg(pixels))
    for name in ("a.png", "a.jpg"):
        image = read_lazy_image(tmp_path / name, min_size=256)
        assert image.shape == (height, width, 3)
        np.testing.assert_array_equal(np.asarray(image), pixels)


def bad_files():
    whole = jpeg(photo(300, 200))
    png = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)).save(png, "PNG")
    png = png.getvalue()
    return {
        "empty": (b"", "the file is empty"), "text": (b"404 Not Found\n", "it is text: '404 Not Found"),
        "noise": (b"\xde\xad\xbe\xef" * 64, "not a known image format"), "truncated": (whole[:len(whole) // 2], "truncated"),
        "almost whole": (whole[:-200], "truncated"), "header only": (whole[:20], "only the beginning of a file"),
        "truncated PNG": (png[:-3000], "truncated|broken"), "damaged PNG": (png[:2000] + bytes(100) + png[2100:], "broken"),
    }


@pytest.mark.parametrize("kind", bad_files())
@pytest.mark.parametrize("min_size", [None, 20])
def test_an_unreadable_file_is_named_with_the_reason_and_what_to_do(tmp_path, kind, min_size):
    content, reason = bad_files()[kind]
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.jpg: this image cannot be read \(.*({reason}).*\); replace it or remove it"):
        read_lazy_image(tmp_path / "bad.jpg", min_size)


def test_a_folder_named_like_an_image_a_missing_file_and_a_forbidden_one_are_named(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(DataError, match=r"a\.jpg: this image cannot be read \(a folder\)"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"b\.jpg: this image cannot be read \(no such file\); restore it"):
        read_image(tmp_path / "b.jpg")
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        (tmp_path / "c.jpg").write_bytes(jpeg(photo()))
        (tmp_path / "c.jpg").chmod(0)
        with pytest.raises(DataError, match=r"c\.jpg: this image cannot be read \(no permission\); allow reading it"):
            read_image(tmp_path / "c.jpg")


def test_missing_permission_is_reported(tmp_path, monkeypatch):
    """As above, but also when the tests run as root."""
    def forbidden(*args):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(DataError, match=r"c\.jpg: this image cannot be read \(no permission\); allow reading it"):
        read_image("c.jpg")


@pytest.mark.parametrize("factor", [1.5, 3])                        # Pillow warns of the first, and refuses the second
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, factor):
    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(300 * 200 / factor))
    with pytest.raises(DataError, match=r"a\.png: this image cannot be read \(more than the \d+ pixels that Pillow allows"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300 * 200)
    assert read_image(tmp_path / "a.png").shape == (200, 300, 3)


@pytest.mark.parametrize("min_size, size", [(None, (600, 904)), (600, (600, 904)), (301, (600, 904)), (300, (300, 452)), (299, (300, 452)),
                                            (150, (150, 226)), (10, (75, 113))])
def test_a_large_jpeg_is_decoded_smaller_but_never_too_small(tmp_path, min_size, size):
    pixels = photo(904, 600)
    (tmp_path / "a.jpg").write_bytes(jpeg(pixels))
    image = read_lazy_image(tmp_path / "a.jpg", min_size)
    assert image.shape == (*size, 3)
    small = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BOX)).astype(int)
    assert abs(np.asarray(image) - small).mean() < 4


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 200), st.booleans())
@settings(max_examples=60, deadline=None)
def test_draft_mode_never_goes_below_min_size(tmp_path_factory, width, height, min_size, sideways):
    exif = Image.Exif()
    exif[0x0112] = 6 if sideways else 1
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "JPEG", exif=exif)
    path = tmp_path_factory.getbasetemp() / "draft.jpg"
    path.write_bytes(file.getvalue())
    H, W, _ = read_lazy_image(path, min_size).shape
    assert min(H, W) >= min(min_size, width, height)
    full = (width, height) if sideways else (height, width)
    assert (H, W) == full or min(full) >= 2 * min_size


@given(st.binary(max_size=300), st.sampled_from(["", "jpg", "png", "gif", "webp", "tif", "bmp", "ppm"]), st.integers(0, 400))
@settings(max_examples=300, deadline=None)
def test_random_bytes_in_images_raise_nothing_but_data_error(tmp_path_factory, noise, kind, position):
    if kind:                    # in the middle of an image, so that they reach the decoders
        file = io.BytesIO()
        Image.fromarray(photo(20, 12)).save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(kind, kind))
        noise = file.getvalue()[:position] + noise + file.getvalue()[position + len(noise):]
    path = tmp_path_factory.getbasetemp() / "noise.jpg"
    path.write_bytes(noise)
    try:
        image = read_image(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3


# ---- idx

def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.mark.parametrize("images, labels", [("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
                                            ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
                                            ("train-images.idx3-ubyte", "train-labels.idx1-ubyte.gz")])
def test_mnist_compressed_or_not(tmp_path, images, labels):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    for name, array in ((images, pixels), (labels, np.array([7, 0, 9], np.uint8))):
        (tmp_path / name).write_bytes(gzip.compress(idx(array)) if name.endswith(".gz") else idx(array))
    for mnist in (data.MNIST(tmp_path), data.FashionMNIST("train", root=tmp_path)):
        np.testing.assert_array_equal(mnist.images[..., 0], pixels)
        assert list(mnist.labels) == [7, 0, 9]
    assert data.MNIST(tmp_path).classes == list("0123456789")


@pytest.mark.parametrize("content, message", [
    (b"", "not an idx file"), (b"\0\0\x08", "not an idx file"), (b"\0\0\x0d\x01\0\0\0\x01a", "not an idx file"),
    (idx(np.zeros((2, 3, 3), np.uint8))[:-1], "truncated"), (idx(np.zeros((2, 3, 3), np.uint8)) + b"x", "truncated"),
    (idx(np.zeros((2, 9), np.uint8)), "must hold 3 axes"), (idx(np.zeros((0, 3, 3), np.uint8)), "none of length 0"),
    (b"\0\0\x08\x03" + b"\xff" * 12 + b"data", "truncated"), (b"\0\0\x08\xff" + b"\0\0\0\x01" * 255 + b"x", "must hold 3 axes"),
])
def test_a_damaged_idx_file_is_named(tmp_path, content, message):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte: .*{message}"):
        data.MNIST(tmp_path)


# ---- CIFAR

def cifar_values(count, kinds, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), [rng.integers(0, kind, count).tolist() for kind in kinds]


def records(pixels, *labels):
    return b"".join(bytes(numbers) + row.tobytes() for row, *numbers in zip(pixels, *labels, strict=True))


def pickled(protocol=2, **values):
    return pickle.dumps({key.encode(): value for key, value in values.items()}, protocol)


def test_cifar10_is_the_same_from_both_versions(tmp_path):
    for k in range(1, 6):
        pixels, (labels,) = cifar_values(4, [10], k)
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "py").mkdir(exist_ok=True)
        (tmp_path / "bin" / f"data_batch_{k}.bin").write_bytes(records(pixels, labels))
        (tmp_path / "py" / f"data_batch_{k}").write_bytes(pickled(batch_label=b"training batch", labels=labels, data=pixels,
                                                                  filenames=[b"a.png"] * 4))
    binary, python = data.CIFAR10(tmp_path / "bin"), data.CIFAR10(tmp_path / "py")
    assert len(binary) == 20
    np.testing.assert_array_equal(binary.images, python.images)
    np.testing.assert_array_equal(binary.labels, python.labels)
    np.testing.assert_array_equal(binary[19][0], pixels[3].reshape(3, 32, 32).transpose(1, 2, 0))
    with pytest.raises(DataError, match=r"test_batch\.bin: cannot be read"):
        data.CIFAR10(tmp_path / "py", "test")


def test_cifar100_has_fine_and_coarse_labels_from_both_versions(tmp_path):
    pixels, (coarse, fine) = cifar_values(30, [20, 100])
    fine[0], coarse[0] = 99, 19
    (tmp_path / "train.bin").write_bytes(records(pixels, coarse, fine))
    for name, folder in (("bin", tmp_path), ("py", tmp_path / "py")):
        folder.mkdir(exist_ok=True)
        if name == "py":
            (folder / "train").write_bytes(pickled(data=pixels, fine_labels=fine, coarse_labels=coarse))
        one, other = data.CIFAR100(folder), data.CIFAR100(folder, labels="coarse")
        assert list(one.labels) == fine
        assert list(other.labels) == coarse
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one[7][0], pixels[7].reshape(3, 32, 32).transpose(1, 2, 0))
        assert (len(one.classes), len(other.classes)) == (100, 20)
        assert (one.classes[99], other.classes[19]) == ("worm", "vehicles_2")
    with pytest.raises(DataError, match='labels must be "fine" or "coarse", got'):
        data.CIFAR100(tmp_path, labels="both")


@pytest.mark.parametrize("protocol", [1, 2, 3, 4])
def test_pickles_of_every_protocol_are_read(protocol):
    pixels, (labels,) = cifar_values(5, [10])
    values = unpickle.loads(pickled(protocol, labels=labels, data=pixels, transposed=np.asfortranarray(pixels), none=None,
                                    large=[10 ** 6, -5, 2 ** 70]))
    values = {(k if isinstance(k, str) else k.decode()): v for k, v in values.items()}
    assert values["labels"] == labels
    assert values["large"] == [10 ** 6, -5, 2 ** 70]
    assert values["none"] is None
    for name in ("data", "transposed"):
        np.testing.assert_array_equal(values[name], pixels)


def test_a_pickle_of_python_2_is_read():
    """CIFAR-10's own files begin and end like this: protocol 2, byte strings, NumPy's old names."""
    def text(value):
        return b"U" + bytes([len(value)]) + value
    raw, minus_one = bytes(range(256)) * 12, b"J\xff\xff\xff\xff"
    file = (b"\x80\x02}q\x01(" + text(b"batch_label") + b"q\x02" + text(b"testing batch 1 of 1") + b"q\x03"
            + text(b"labels") + b"q\x04]q\x05(K\x03e" + text(b"data") + b"q\x06"
            + b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85" + text(b"b") + b"\x87Rq\x09"
            + b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
            + b"(K\x03" + text(b"|") + b"NNN" + 2 * minus_one + b"K\x00tb\x89T" + len(raw).to_bytes(4, "little") + raw + b"tbu.")
    values = unpickle.loads(file)
    assert values["labels"] == [3]
    np.testing.assert_array_equal(values["data"], np.frombuffer(raw, np.uint8)[None])
    reference = pickle.loads(file, encoding="latin-1")
    np.testing.assert_array_equal(values["data"], reference["data"])


class Attack:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path, method):
        self.path, self.method = path, method

    def __reduce__(self):
        if self.method == "open":
            return open, (str(self.path), "w")
        if self.method == "eval":
            return eval, (f"open({str(self.path)!r}, 'w')",)
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("method", ["open", "eval", "system"])
@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path, method, protocol):
    trace = tmp_path / "trace"
    attack = pickle.dumps({"data": Attack(trace, method), "labels": [1]}, protocol)
    if method != "system":
        pickle.loads(attack)["data"].close()                        # the attack works with pickle
        assert trace.exists()
        trace.unlink()
    (tmp_path / "test_batch").write_bytes(attack)
    with pytest.raises(DataError, match=r"test_batch: this pickle is refused \(it asks for .*, which a file of arrays does not need"):
        data.CIFAR10(tmp_path, "test")
    assert not trace.exists()


@pytest.mark.parametrize("program, message", [
    (b"", "damaged"), (b"\x80\x02}", "before seeing STOP"), (b"\x80\x02].", "must hold a dict, got a list"),
    (b".", "damaged"), (b"}}.", "damaged"), (b"cnumpy\ndtype\n)R.", "must hold a dict, got a NumpyObject"),
    (b"}K\x01K\x02s.", "keys must all be text"), (b"}U\x01aG" + bytes(8) + b"s.", "FLOAT"),
    (b"cnumpy\nload\nU\x04file\x85R.", "asks for numpy.load"), (b"cnumpy\ndtype.__init__\n.", "asks for numpy.dtype.__init__"),
    (b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.", "asks for numpy.load"), (b"}U\x01aK\x01R.", "not a global"),
    (b"K\x01K\x02b.", "not an array"), (b"K\x01K\x02a.", "not a list"), (b"}r\xff\xff\xff\x7f.", None), (b"}B\xff\xff\xff\x7f.", "damaged"),
    (b"c_codecs\nencode\n(U\x01aU\x05utf-7tR.", "must be encoded as latin1, got 'utf-7'"), (b"(" * 100_000, "before seeing STOP"),
    (b"]" + b"2\x85" * 100_000 + b".", "instruction DUP"),
])
def test_malformed_pickles(program, message):
    if message is None:
        assert unpickle.loads(program) == {}                        # a huge memo index costs no memory
        return
    with pytest.raises(unpickle.UnpicklingError, match=message):
        unpickle.loads(program)


def test_an_inconsistent_pickled_array_is_refused(tmp_path):
    pixels, (labels,) = cifar_values(2, [10])
    for wrong, message in ((pixels.astype(np.int64), "arrays must be uint8"), (np.array([{}, []], dtype=object), "arrays must be uint8"),
                           (pixels.astype("V1"), "arrays must be uint8")):
        (tmp_path / "test_batch").write_bytes(pickled(data=wrong, labels=labels))
        with pytest.raises(DataError, match=message):
            data.CIFAR10(tmp_path, "test")
    whole = pickled(data=pixels, labels=labels)
    (tmp_path / "test_batch").write_bytes(whole.replace(b"M\x00\x0c", b"M\x01\x0c"))        # 3073 in place of 3072
    with pytest.raises(DataError, match="shape does not match its size"):
        data.CIFAR10(tmp_path, "test")
    for values in ({"data": pixels}, {"data": pixels, "labels": labels[:1]}, {"data": pixels[:, :3], "labels": labels}, {"labels": labels},
                   {"data": pixels, "labels": ["a", "b"]}, {"data": pixels, "labels": [1, 256]}, {"data": pixels, "labels": [1, -1]}):
        (tmp_path / "test_batch").write_bytes(pickled(**values))
        with pytest.raises(DataError, match="not a file of CIFAR-10's python version"):
            data.CIFAR10(tmp_path, "test")
    (tmp_path / "test_batch").write_bytes(pickled(data=pixels, labels=[1, 10]))
    with pytest.raises(DataError, match="labels must be 0 to 9 for 10 classes, got 10"):
        data.CIFAR10(tmp_path, "test")


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 20))
@settings(max_examples=300, deadline=None)
def test_random_bytes_in_every_reader_raise_nothing_but_data_error(tmp_path_factory, noise, position, cut):
    folder = tmp_path_factory.getbasetemp() / "noise"
    folder.mkdir(exist_ok=True)
    pixels, (labels,) = cifar_values(1, [10])
    whole = pickled(data=pixels, labels=labels)
    damaged = whole[:position] + noise + whole[position + cut:]
    for name, content, read in (
            ("train-images-idx3-ubyte", noise, lambda: data.MNIST(folder)),
            ("train-images-idx3-ubyte", b"\0\0\x08\x03" + noise, lambda: data.MNIST(folder)),
            ("train-images-idx3-ubyte.gz", noise, lambda: data.MNIST(folder)),
            ("train-images-idx3-ubyte.gz", gzip.compress(noise)[:position], lambda: data.MNIST(folder)),
            ("test_batch.bin", noise, lambda: data.CIFAR10(folder, "test")),
            ("test_batch", noise, lambda: data.CIFAR10(folder, "test")),
            ("test_batch", b"\x80\x02}" + noise, lambda: data.CIFAR10(folder, "test")),
            ("test_batch", damaged, lambda: data.CIFAR10(folder, "test")),
            ("test.bin", noise, lambda: data.CIFAR100(folder, "test"))):
        (folder / name).write_bytes(content)
        try:
            read()
        except DataError:
            pass
        except Exception as error:
            raise AssertionError(f"{name} with {content[:99]!r}: {error!r}") from error
        finally:
            (folder / name).unlink()


# ---- ImageNet

WNIDS = ["n01440764", "n02100735", "n02119789"]
TRUTH = [2, 0, 1, 2]                            # the classes of the validation images, by the order of the wnids
DEVKIT_IDS = {"n02119789": 1, "n02100735": 2, "n01440764": 3}          # the devkit's IDs, in another order


@pytest.fixture
def imagenet_tree(tmp_path):
    make_folder(tmp_path / "train", WNIDS, 2)
    (tmp_path / "val").mkdir()
    for k in range(1, 5):
        (tmp_path / "val" / f"ILSVRC2012_val_{k:08d}.JPEG").write_bytes(jpeg(photo(seed=k)))
    return tmp_path


def write_labels(root, kind):
    if kind == "solution":
        lines = [f"ILSVRC2012_val_{k:08d},{WNIDS[c]} 85 1 499 272 {WNIDS[0]} 1 2 3 4" for k, c in enumerate(TRUTH, 1)]
        (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines[::-1]]))
    elif kind == "wnids":
        (root / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(WNIDS[c] for c in TRUTH) + "\n")
    else:
        devkit = root / "ILSVRC2012_devkit_t12" / "data"
        devkit.mkdir(parents=True, exist_ok=True)
        (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(str(DEVKIT_IDS[WNIDS[c]]) for c in TRUTH))
        (devkit / "synsets.txt").write_text("".join(f"{number} {wnid} a word, or two\n" for wnid, number in DEVKIT_IDS.items()))
        return devkit / "synsets.txt"


@pytest.mark.parametrize("kind", ["solution", "wnids", "devkit"])
@pytest.mark.parametrize("train", [True, False])
def test_validation_images_in_a_flat_directory_get_their_labels(imagenet_tree, kind, train):
    write_labels(imagenet_tree, kind)
    if not train:
        (imagenet_tree / "train").rename(imagenet_tree / "elsewhere")
    val = data.ImageNet(imagenet_tree, "val")
    assert val.classes == WNIDS
    assert list(val.labels) == TRUTH
    assert [os.path.basename(val.name(i)) for i in range(4)] == [f"ILSVRC2012_val_{k:08d}.JPEG" for k in range(1, 5)]
    np.testing.assert_array_equal(val[2][0], read_image(imagenet_tree / "val" / "ILSVRC2012_val_00000003.JPEG"))
    if train:
        train, same = data.open_dataset(imagenet_tree)
        assert isinstance(train, data.ImageNet)
        assert train.classes == same.classes == WNIDS
        assert list(train.labels) == [0, 0, 1, 1, 2, 2]
        assert list(same.labels) == TRUTH


def test_a_list_of_classes_without_devkit_ids_is_refused(imagenet_tree):
    synsets = write_labels(imagenet_tree, "devkit")
    synsets.write_text("\n".join(WNIDS))                            # Caffe's synsets.txt
    with pytest.raises(DataError, match=r"synsets\.txt: lines must be .*got 'n01440764'.*another order"):
        data.ImageNet(imagenet_tree, "val")
    synsets.unlink()
    (synsets.parent / "LOC_synset_mapping.txt").write_text("\n".join(f"{wnid} word" for wnid in WNIDS))
    with pytest.raises(DataError, match=r"ground_truth\.txt: holds the devkit's class IDs.*synsets\.txt"):
        data.ImageNet(imagenet_tree, "val")


def test_missing_parts_of_imagenet_are_named(imagenet_tree):
    val = imagenet_tree / "val"
    with pytest.raises(DataError, match=r"val: .*there is no label file.*LOC_val_solution\.csv; .*synset_labels\.txt; .*ground_truth\.txt"):
        data.ImageNet(imagenet_tree, "val")
    write_labels(imagenet_tree, "solution")
    (val / "ILSVRC2012_val_00000009.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match=r"solution\.csv: no label for ILSVRC2012_val_00000009\.JPEG"):
        data.ImageNet(imagenet_tree, "val")
    (val / "ILSVRC2012_val_00000009.JPEG").unlink()
    (imagenet_tree / "train" / WNIDS[1]).rename(imagenet_tree / "gone")
    with pytest.raises(DataError, match="classes that are not in train/: n02100735"):
        data.ImageNet(imagenet_tree, "val")
    with pytest.raises(DataError, match="differ from the given classes .*missing: n02100735; unexpected: none"):
        data.ImageNet(imagenet_tree, "train", classes=WNIDS)
    (imagenet_tree / "train" / WNIDS[1]).mkdir()
    with pytest.raises(DataError, match="no images in n02100735"):
        data.ImageNet(imagenet_tree, "train")
    packed = imagenet_tree / "packed"
    (packed / "train").mkdir(parents=True)
    (packed / "train" / "n01440764.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"got n01440764\.tar\. Unpack the archives:  cd .*tar xf"):
        data.ImageNet(packed, "train")
    with pytest.raises(DataError, match="no such folder"):
        data.ImageNet(packed, "val")
    (packed / "val").mkdir()
    with pytest.raises(DataError, match="must have one folder per class, or images named ILSVRC2012_val_00000001.JPEG.* got nothing"):
        data.ImageNet(packed, "val")
    with pytest.raises(DataError, match='"train" or "val"'):
        data.ImageNet(packed, "test")


@pytest.mark.parametrize("kind, name, text, message", [
    ("solution", "LOC_val_solution.csv", "head\nILSVRC2012_val_1,n1\n", "got 'ILSVRC2012_val_1,n1'"),
    ("solution", "LOC_val_solution.csv", b"\xff\xfe\0", "not a text file"),
    ("wnids", "imagenet_2012_validation_synset_labels.txt", "n01440764\n449\n", "got '449'"),
    ("devkit", "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", "1\n2\n3\n4\n", "got '4'"),
    ("devkit", "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", "1\n2\n", "no label for ILSVRC2012_val_00000003.JPEG"),
])
def test_damaged_label_files_are_named(imagenet_tree, kind, name, text, message):
    write_labels(imagenet_tree, kind)
    (imagenet_tree / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        data.ImageNet(imagenet_tree, "val")


def test_validation_images_sorted_into_class_folders(imagenet_tree):
    for k, c in enumerate(TRUTH, 1):
        folder = imagenet_tree / "val" / WNIDS[c]
        folder.mkdir(exist_ok=True)
        (imagenet_tree / "val" / f"ILSVRC2012_val_{k:08d}.JPEG").rename(folder / f"ILSVRC2012_val_{k:08d}.JPEG")
    for val in (data.ImageNet(imagenet_tree, "val"), data.open_dataset(imagenet_tree)[1]):
        assert val.classes == WNIDS
        assert list(val.labels) == [0, 1, 2, 2]


def test_kaggles_folders(imagenet_tree):
    write_labels(imagenet_tree, "solution")
    inner = imagenet_tree / "ILSVRC" / "Data" / "CLS-LOC"
    inner.mkdir(parents=True)
    for name in ("train", "val"):
        (imagenet_tree / name).rename(inner / name)
    train, val = data.open_dataset(imagenet_tree)
    assert list(train.labels) == [0, 0, 1, 1, 2, 2]
    assert list(val.labels) == TRUTH
    assert imagenet.images_root(imagenet_tree) == str(inner)


# ---- open_dataset

def test_the_built_in_sets_are_opened_by_name():
    train, val = data.open_dataset("fashion-mnist")
    assert (len(train), len(val)) == (8000, 2000)
    train, val = data.open_dataset("photos")
    assert (len(train), len(val)) == (640, 160)


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_folders_of_photographs_are_recognised(tmp_path, name):
    make_folder(tmp_path / "train", count=4)
    make_folder(tmp_path / name, count=1)
    train, val = data.open_dataset(str(tmp_path))
    assert (len(train), len(val)) == (8, 2)
    assert train.classes == val.classes == ["cats", "rockets"]
    (tmp_path / name / "dogs").mkdir()
    with pytest.raises(DataError, match=r"missing: none; unexpected: dogs"):
        data.open_dataset(tmp_path)


def test_cifar_and_mnist_are_recognised_by_their_files(tmp_path):
    pixels, (ten, coarse, fine) = cifar_values(6, [10, 20, 100])
    binary = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]
    contents = {
        "cifar-10-batches-bin": dict.fromkeys(binary, records(pixels, ten)),
        "cifar-10-batches-py": {name.removesuffix(".bin"): pickled(data=pixels, labels=ten) for name in binary},
        "cifar-100-binary": dict.fromkeys(["train.bin", "test.bin"], records(pixels, coarse, fine)),
        "cifar-100-python": dict.fromkeys(["train", "test"], pickled(data=pixels, fine_labels=fine, coarse_labels=coarse)),
        "digits": {f"{s}-{what}-idx{axes}-ubyte": idx(array) for s in ("train", "t10k")
                   for what, axes, array in (("images", 3, pixels[:, :784].reshape(-1, 28, 28)), ("labels", 1, np.array(ten, np.uint8)))},
    }
    contents["Fashion-2017"] = contents["digits"]
    kinds = [data.CIFAR10, data.CIFAR10, data.CIFAR100, data.CIFAR100, data.MNIST, data.FashionMNIST]
    for (folder, files), kind in zip(contents.items(), kinds, strict=True):
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            (tmp_path / folder / name).write_bytes(content)
        train, val = data.open_dataset(tmp_path / folder)
        assert type(train) is type(val) is kind
        assert list(val.labels) == (fine if kind is data.CIFAR100 else ten)


def test_packed_folders_are_recognised(tmp_path):
    from minicnn.data import shards
    source = data.ImageFolder(make_folder(tmp_path / "source"))
    for name in ("train", "val"):
        shards.pack(source, tmp_path / "packed" / name, side=32, progress=False)
    train, val = data.open_dataset(tmp_path / "packed")
    assert isinstance(train, shards.Packed)
    assert list(val.classes) == ["cats", "rockets"]
    assert val[5][1] == 1
    with pytest.raises(DataError, match="a single packed set; give the folder above it"):
        data.open_dataset(tmp_path / "packed" / "train")
    other = data.ImageFolder(tmp_path / "source", classes=["rockets", "cats"])
    shards.pack(other, tmp_path / "other" / "val", side=32, progress=False)
    (tmp_path / "packed" / "train").rename(tmp_path / "other" / "train")
    with pytest.raises(DataError, match=r"other/val: must have the classes of train/, in the same order"):
        data.open_dataset(tmp_path / "other")


def test_an_unknown_data_set_is_described_beside_the_supported_ones(tmp_path):
    def refused(where, *texts):
        with pytest.raises(DataError) as caught:
            data.open_dataset(where)
        for text in (str(where), SUPPORTED, *texts):
            assert text in str(caught.value)

    refused(tmp_path / "missing", "no such folder")
    (tmp_path / "file.zip").write_bytes(b"")
    refused(tmp_path / "file.zip", "a file, not a folder")
    (tmp_path / "notes").mkdir()
    refused(tmp_path, "it contains file.zip, notes/.")
    make_folder(tmp_path / "classes")
    refused(tmp_path / "classes", "cats/, rockets/", "split them into train/ and val/")
    make_folder(tmp_path / "half" / "train")
    refused(tmp_path / "half", "There is train/, but no validation set")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "it contains nothing")
