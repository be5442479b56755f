"""Fuzzing of the readers: whatever bytes are in a file, a reader returns its content or raises the error that its docstring documents.

There is no other exception, no hang, no file written anywhere, and no memory beyond a bound. Half of the damage is done behind the
checksums: archives are zipped again and checksums recomputed, so that it reaches the code that trusts them.
"""

import contextlib
import gzip
import io
import json
import os
import pathlib
import pickle
import resource
import signal
import struct
import tempfile
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from minicnn import data, load_checkpoint, save_checkpoint
from minicnn.checkpoint import CheckpointError
from minicnn.data.datasets import ArrayDataset, DataError, read_image, read_lazy_image
from minicnn.data.shards import Packed, pack, verify
from minicnn.data.shards.format import FOOTER, INDEX_DTYPE, MAGIC
from minicnn.train.log import read_log

MEMORY = 400 << 20          # bytes that a reader of these small files may allocate (Pillow and threads have reserves)
SECONDS = 10
PROFILE: dict = {"derandomize": True, "database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
RNG = np.random.default_rng(0)


# ---- valid files

def image_bytes(kind, mode="RGB", size=(9, 7), **options):
    file = io.BytesIO()
    image = Image.fromarray(RNG.integers(0, 256, (*size[::-1], 3), np.uint8))
    (image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)).save(file, kind, **options)
    return file.getvalue()


IMAGES = {"JPEG": image_bytes("JPEG"), "progressive": image_bytes("JPEG", progressive=True), "CMYK": image_bytes("JPEG", "CMYK"),
          "rotated": image_bytes("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
          "PNG": image_bytes("PNG"), "PNG palette": image_bytes("PNG", "P", transparency=3), "PNG alpha": image_bytes("PNG", "LA"),
          "PNG 16": image_bytes("PNG", "I;16"), "PNG 1": image_bytes("PNG", "1"), "GIF": image_bytes("GIF"),
          "BMP": image_bytes("BMP"), "WEBP": image_bytes("WEBP"), "WEBP exact": image_bytes("WEBP", lossless=True),
          "PPM": image_bytes("PPM"),
          "PGM": image_bytes("PPM", "L"), "TIFF": image_bytes("TIFF"), "TIFF lzw": image_bytes("TIFF", compression="tiff_lzw"),
          "TIFF deflate": image_bytes("TIFF", "L", compression="tiff_adobe_deflate"), "TIFF float": image_bytes("TIFF", "F"),
          "PCX": image_bytes("PCX"), "ICO": image_bytes("ICO"), "TGA": image_bytes("TGA"), "EPS": image_bytes("EPS")}


def idx(array):
    return struct.pack(f">I{array.ndim}I", 0x800 | array.ndim, *array.shape) + array.tobytes()


def written(write):
    """{name: content} of the files that write(folder) creates."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder)
        return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def packed_files(kind):
    images = RNG.integers(0, 256, (5, 8, 9, 3), np.uint8)
    return written(lambda folder: pack(ArrayDataset(images, [0, 1, 1, 0, 1], "ab"), folder, kind, side=8, shard_bytes=900, progress=False))


DIGITS, COLOURS = RNG.integers(0, 256, (3, 4, 5), np.uint8), RNG.integers(0, 256, (2, 3072), np.uint8)
LABELS = np.array([1, 0, 9], np.uint8)
CHECKPOINT = {"model": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0)}, "list": [1, 2.5, None, True, "ä"], "step": 3}
NUMBERS = [f"ILSVRC2012_val_{k:08}" for k in (1, 2, 3)]
FLAT_VAL = {f"val/{name}.JPEG": IMAGES["JPEG"] for name in NUMBERS}
LOG = [{"kind": "train", "step": 1, "seconds": 0.1, "loss": 2.5, "top1": 10.0, "lr": 0.1}, {"kind": "val", "step": 1, "loss": 2.0},
       {"kind": "train", "step": 2, "loss": None}, {"kind": "resume", "step": 1}, {"kind": "train", "step": 2, "loss": 1.5}]


def read_all(dataset):
    """Call every method of a data set for every item. Only DataErrors are suppressed, one by one."""
    dataset.fingerprint()
    for i in range(len(dataset)):
        dataset.name(i)
        with contextlib.suppress(DataError):
            image, label = dataset[i]
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert type(label) is int
        with contextlib.suppress(DataError):
            dataset.load(i, 4)


def read_packed(root):
    assert all(isinstance(problem, str) for problem in verify(root, workers=1, progress=False))
    read_all(Packed(root))


def read_both_ways(root):
    for read in (read_image, lambda path: np.asarray(read_lazy_image(path, 4))):
        pixels = read(os.path.join(root, "image"))
        assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)


def cifar(python, *names):
    """A file of either version of CIFAR, with as many labels per image as there are names."""
    if python:
        return pickle.dumps({"data": COLOURS, **{name: [1, 0] for name in names}}, 2)
    return b"".join(bytes([1] * len(names)) + row.tobytes() for row in COLOURS)


# For each reader: valid files, by name; a function that reads everything, given the folder; and the errors that are documented.
READERS = {
    "checkpoint": (written(lambda folder: save_checkpoint(f"{folder}/c.npz", **CHECKPOINT)), lambda root: load_checkpoint(f"{root}/c.npz"),
                   CheckpointError),
    "idx": ({"t10k-images-idx3-ubyte": idx(DIGITS), "t10k-labels-idx1-ubyte": idx(LABELS)},
            lambda root: read_all(data.MNIST(root, "test")), DataError),
    "idx.gz": ({"t10k-images-idx3-ubyte.gz": gzip.compress(idx(DIGITS)), "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(LABELS))},
               lambda root: read_all(data.FashionMNIST("test", root)), DataError),
    "CIFAR-10 binary": ({"test_batch.bin": cifar(False, "labels")}, lambda root: read_all(data.CIFAR10(root, "test")), DataError),
    "CIFAR-10 python": ({"test_batch": cifar(True, "labels")}, lambda root: read_all(data.CIFAR10(root, "test")), DataError),
    "CIFAR-100 binary": ({"test.bin": cifar(False, "coarse", "fine")},
                         lambda root: read_all(data.CIFAR100(root, "test", "coarse")), DataError),
    "CIFAR-100 python": ({"test": cifar(True, "coarse_labels", "fine_labels")},
                         lambda root: read_all(data.CIFAR100(root, "test")), DataError),
    "packed jpeg": (packed_files("jpeg"), read_packed, DataError),
    "packed raw": (packed_files("raw"), read_packed, DataError),
    "log": ({"log.jsonl": "".join(json.dumps(record) + "\n" for record in LOG).encode()}, lambda root: read_log(f"{root}/log.jsonl"), ()),
    "Kaggle's table": ({"LOC_val_solution.csv": ("ImageId,PredictionString\n" + "".join(
        f"{name},n0000000{i} 1 2 3 4\n" for i, name in enumerate(NUMBERS))).encode(),
                        **FLAT_VAL}, lambda root: read_all(data.ImageNet(root, "val")), DataError),
    "list of wnids": ({"imagenet_2012_validation_synset_labels.txt": b"n00000001\nn00000002\nn00000001\n", **FLAT_VAL},
                      lambda root: read_all(data.ImageNet(root, "val")), DataError),
    "devkit": ({"ILSVRC2012_validation_ground_truth.txt": b"2\n1\n2\n",
                "synsets.txt": b"1 n00000002 kit fox\n2 n00000001 setter\n", **FLAT_VAL},
               lambda root: read_all(data.ImageNet(root, "val")), DataError),
    **{f"image {kind}": ({"image": content}, read_both_ways, DataError) for kind, content in IMAGES.items()},
}


# ---- damage

ODD = [b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 8, b"\x80", b"[" * 5000, b"{}",
       b"1e999", b"NaN",
       b"-1", b"9" * 30, b"9" * 5000, b"\n", b"\r\n", b"\xe2\x80\xa8", b"\xd9\xa1", b"null", b'"', b"\\ud800", b"__reduce__", b"/../../x"]


@st.composite
def damaged(draw, content):
    """The content with one to three changes."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        count = draw(st.sampled_from([1, 1, 2, 4, 8, 50]))
        kind = draw(st.sampled_from(["bit", "odd", "odd inserted", "random", "truncated", "deleted", "repeated", "replaced"]))
        odd = draw(st.sampled_from(ODD)) if kind.startswith("odd") else b""
        content = {
            "bit": content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))] if at < len(content) else []) + content[at + 1:],
            "odd": content[:at] + odd + content[at + len(odd):], "odd inserted": content[:at] + odd + content[at:],
            "random": content[:at] + draw(st.binary(max_size=20)) + content[at + count:], "truncated": content[:at],
            "deleted": content[:at] + content[at + count:], "repeated": content[:at + count] + content[at:],
            "replaced": draw(st.binary(max_size=40)),
        }[kind]
    return content


def behind_checksums(draw, name, content):
    """Damage that no checksum detects, in files that have checksums."""
    if name.endswith(".gz"):
        return gzip.compress(draw(damaged(gzip.decompress(content))))
    if name.endswith(".npz"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {member: archive.read(member) for member in archive.namelist()}
        chosen = draw(st.sampled_from(sorted(members)))
        return zipped({**members, chosen: draw(damaged(members[chosen]))})
    if name.startswith("shard"):
        return with_checksums(draw(damaged(content[:-FOOTER.size])) + content[-FOOTER.size:])
    return draw(damaged(content))


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return file.getvalue()


def with_checksums(shard):
    """The shard with its checksums recomputed, if it still has a table."""
    _, table, length, _ = FOOTER.unpack(shard[-FOOTER.size:])
    body, end = bytearray(shard[:-FOOTER.size]), len(shard) - FOOTER.size
    count = max(0, (end - table - length) // INDEX_DTYPE.itemsize)
    rows = np.frombuffer(body, INDEX_DTYPE, count, table) if table < end else np.zeros(0, INDEX_DTYPE)
    for row in rows:
        record = bytes(body[row["offset"]:row["offset"] + int(row["length"]) + int(row["name"])]) if row["offset"] >= 0 else b""
        row["crc"] = zlib.crc32(record, zlib.crc32(row.tobytes()[:-4]))
    return bytes(body) + FOOTER.pack(MAGIC, table, length, zlib.crc32(body[table:]))


# ---- no side effects

@contextlib.contextmanager
def bounded():
    """Limits the memory and the time of its body."""
    def too_long(*_):
        raise AssertionError(f"it takes more than {SECONDS} seconds")

    before, limits = signal.signal(signal.SIGALRM, too_long), resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def snapshot(folder):
    """{path: time of modification} of everything below a folder."""
    return {os.path.join(here, name): os.lstat(os.path.join(here, name)).st_mtime_ns
            for here, folders, names in os.walk(folder) for name in folders + names}


def accepts(workdir, files, read, documented):
    """Whether the reader accepts these files, in a new folder in `workdir`. Any exception but the documented ones is passed on."""
    folder = tempfile.mkdtemp(dir=workdir)
    for name, content in files.items():
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
    before = snapshot(workdir)
    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")             # decoders warn about what they ignore
            read(folder)
    except documented as error:
        str(error).encode()                             # it can be printed
        return False
    finally:
        assert snapshot(workdir) == before
        for name in files:
            os.unlink(os.path.join(folder, name))
    return True


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """An empty folder: the current one, and the one for temporary files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return str(tmp_path)


linux = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no count of this process's memory here")
EXAMPLES = {"checkpoint": 500, "log": 300, "packed jpeg": 200, "packed raw": 150}


@linux
@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_file_is_read_or_raises_the_documented_error(kind, workdir):
    files, read, documented = READERS[kind]
    flat = {name for name in files if name.startswith("val/")}
    accepted = kind == "image EPS" or accepts(workdir, files, read, documented)
    assert accepted or kind == "image TIFF float"
    outcomes = []

    @settings(max_examples=EXAMPLES.get(kind, 120 if kind.startswith("image") else 150), **PROFILE)
    @given(st.data())
    def damage(draws):
        draw = draws.draw
        name = draw(st.sampled_from(sorted(set(files) - flat)))
        content = behind_checksums(draw, name, files[name]) if draw(st.booleans()) else draw(damaged(files[name]))
        outcomes.append(accepts(workdir, {**files, name: content}, read, documented))

    damage()
    assert documented == () or (False in outcomes and len(outcomes) > 100)
    assert True in outcomes or kind in ("image EPS", "image TIFF float", "image WEBP")


NAME = st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")) \
    | st.sampled_from([b"a.jpg", "猫.JPG".encode(), b"\xff.png", b"a b.jpg", b"-rf.jpg",
                       b"a\nb.gif", b".hidden.jpg", b"x.jpg.txt", b"%s.jpg", "\u202e.png".encode()])


@linux
def test_folders_with_any_names_in_them_are_data_sets_or_refused(workdir):
    found = []

    @settings(max_examples=400, **PROFILE)
    @given(st.dictionaries(NAME, st.dictionaries(NAME, st.sampled_from(["image", "garbage", "folder", "broken", "up", "itself", "empty",
                                                                       "pipe"]), max_size=5),
                           max_size=4))
    def open_tree(tree):
        root = os.fsencode(tempfile.mkdtemp(dir=workdir))
        for folder, names in tree.items():
            os.mkdir(os.path.join(root, folder))
            for name, kind in names.items():
                path = os.path.join(root, folder, name)
                if kind == "folder":
                    os.mkdir(path)
                elif kind == "pipe":
                    os.mkfifo(path)
                elif kind in ("broken", "up", "itself"):
                    os.symlink({"broken": b"no such file", "up": b"..", "itself": name}[kind], path)
                else:
                    with open(path, "wb") as file:
                        file.write({"image": IMAGES["PNG"], "garbage": b"garbage", "empty": b""}[kind])
        before = snapshot(workdir)
        try:
            with bounded():
                read_all(pickle.loads(pickle.dumps(data.ImageFolder(os.fsdecode(root)))))
            found.append(True)
        except DataError as error:
            str(error).encode()
            found.append(False)
        assert snapshot(workdir) == before

    open_tree()
    assert min(found.count(True), found.count(False)) >= 5
