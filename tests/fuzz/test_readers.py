"""Whatever bytes are in a file, its reader gives what was written, or the error that its docstring promises; and does nothing else.

Nothing else: no other exception, no hang, no file anywhere, no memory beyond a bound. Half of the damage is done behind the checksums:
members are packed again, checksums made anew, so that it reaches the code that trusts them.
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
from minicnn.data.datasets import ArrayDataset, DataError, read_image, read_picture
from minicnn.data.packed import Packed, pack, verify
from minicnn.data.packed.files import END, MAGIC, ROW
from minicnn.study.log import read_log

MEMORY = 400 << 20          # bytes that a reader of these small files may take (Pillow and threads have reserves)
SECONDS = 10
PROFILE: dict = {"derandomize": True, "database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
RNG = np.random.default_rng(0)


# ---- files that are right

def image_bytes(kind, mode="RGB", size=(9, 7), **how):
    file = io.BytesIO()
    image = Image.fromarray(RNG.integers(0, 256, (*size[::-1], 3), np.uint8))
    (image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)).save(file, kind, **how)
    return file.getvalue()


IMAGES = {"JPEG": image_bytes("JPEG"), "progressive": image_bytes("JPEG", progressive=True), "CMYK": image_bytes("JPEG", "CMYK"),
          "turned": image_bytes("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
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
    """The files, by name, that write(folder) makes."""
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
HEAP = {f"val/{name}.JPEG": IMAGES["JPEG"] for name in NUMBERS}
LOG = [{"kind": "train", "step": 1, "seconds": 0.1, "loss": 2.5, "top1": 10.0, "lr": 0.1}, {"kind": "val", "step": 1, "loss": 2.0},
       {"kind": "train", "step": 2, "loss": None}, {"kind": "resume", "step": 1}, {"kind": "train", "step": 2, "loss": 1.5}]


def whole(dataset):
    """Everything that can be asked of a data set. Only DataErrors are let pass, one by one."""
    dataset.fingerprint()
    for i in range(len(dataset)):
        dataset.name(i)
        with contextlib.suppress(DataError):
            image, label = dataset[i]
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert type(label) is int
        with contextlib.suppress(DataError):
            dataset.picture(i, 4)


def whole_packed(root):
    assert all(isinstance(problem, str) for problem in verify(root, workers=1, progress=False))
    whole(Packed(root))


def whole_image(root):
    for read in (read_image, lambda path: np.asarray(read_picture(path, 4))):
        pixels = read(os.path.join(root, "image"))
        assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)


def cifar(python, *names):
    """Files of either version of CIFAR, with as many labels as there are names."""
    if python:
        return pickle.dumps({"data": COLOURS, **{name: [1, 0] for name in names}}, 2)
    return b"".join(bytes([1] * len(names)) + row.tobytes() for row in COLOURS)


# For each reader: valid files, by name; what reads all of it, given the folder; and the errors that are promised.
READERS = {
    "checkpoint": (written(lambda folder: save_checkpoint(f"{folder}/c.npz", **CHECKPOINT)), lambda root: load_checkpoint(f"{root}/c.npz"),
                   CheckpointError),
    "idx": ({"t10k-images-idx3-ubyte": idx(DIGITS), "t10k-labels-idx1-ubyte": idx(LABELS)},
            lambda root: whole(data.MNIST(root, "test")), DataError),
    "idx.gz": ({"t10k-images-idx3-ubyte.gz": gzip.compress(idx(DIGITS)), "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(LABELS))},
               lambda root: whole(data.FashionMNIST("test", root)), DataError),
    "CIFAR-10 binary": ({"test_batch.bin": cifar(False, "labels")}, lambda root: whole(data.CIFAR10(root, "test")), DataError),
    "CIFAR-10 python": ({"test_batch": cifar(True, "labels")}, lambda root: whole(data.CIFAR10(root, "test")), DataError),
    "CIFAR-100 binary": ({"test.bin": cifar(False, "coarse", "fine")},
                         lambda root: whole(data.CIFAR100(root, "test", "coarse")), DataError),
    "CIFAR-100 python": ({"test": cifar(True, "coarse_labels", "fine_labels")}, lambda root: whole(data.CIFAR100(root, "test")), DataError),
    "packed jpeg": (packed_files("jpeg"), whole_packed, DataError),
    "packed raw": (packed_files("raw"), whole_packed, DataError),
    "log": ({"log.jsonl": "".join(json.dumps(record) + "\n" for record in LOG).encode()}, lambda root: read_log(f"{root}/log.jsonl"), ()),
    "Kaggle's table": ({"LOC_val_solution.csv": ("ImageId,PredictionString\n" + "".join(
        f"{name},n0000000{i} 1 2 3 4\n" for i, name in enumerate(NUMBERS))).encode(),
                        **HEAP}, lambda root: whole(data.ILSVRC2012(root, "val")), DataError),
    "list of wnids": ({"imagenet_2012_validation_synset_labels.txt": b"n00000001\nn00000002\nn00000001\n", **HEAP},
                      lambda root: whole(data.ILSVRC2012(root, "val")), DataError),
    "devkit": ({"ILSVRC2012_validation_ground_truth.txt": b"2\n1\n2\n",
                "synsets.txt": b"1 n00000002 kit fox\n2 n00000001 setter\n", **HEAP},
               lambda root: whole(data.ILSVRC2012(root, "val")), DataError),
    **{f"image {kind}": ({"image": content}, whole_image, DataError) for kind, content in IMAGES.items()},
}


# ---- damage

ODD = [b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 8, b"\x80", b"[" * 5000, b"{}",
       b"1e999", b"NaN",
       b"-1", b"9" * 30, b"9" * 5000, b"\n", b"\r\n", b"\xe2\x80\xa8", b"\xd9\xa1", b"null", b'"', b"\\ud800", b"__reduce__", b"/../../x"]


@st.composite
def damaged(draw, content):
    """The content with one to three mistakes."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        count = draw(st.sampled_from([1, 1, 2, 4, 8, 50]))
        kind = draw(st.sampled_from(["bit", "odd", "odd inserted", "random", "cut", "without", "twice", "nothing left"]))
        rubbish = draw(st.sampled_from(ODD)) if kind.startswith("odd") else b""
        content = {
            "bit": content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))] if at < len(content) else []) + content[at + 1:],
            "odd": content[:at] + rubbish + content[at + len(rubbish):], "odd inserted": content[:at] + rubbish + content[at:],
            "random": content[:at] + draw(st.binary(max_size=20)) + content[at + count:], "cut": content[:at],
            "without": content[:at] + content[at + count:], "twice": content[:at + count] + content[at:],
            "nothing left": draw(st.binary(max_size=40)),
        }[kind]
    return content


def behind_checksums(draw, name, content):
    """Damage that no checksum tells of, where the file has some."""
    if name.endswith(".gz"):
        return gzip.compress(draw(damaged(gzip.decompress(content))))
    if name.endswith(".npz"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {member: archive.read(member) for member in archive.namelist()}
        chosen = draw(st.sampled_from(sorted(members)))
        return zipped({**members, chosen: draw(damaged(members[chosen]))})
    if name.startswith("shard"):
        return mended(draw(damaged(content[:-END.size])) + content[-END.size:])
    return draw(damaged(content))


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return file.getvalue()


def mended(shard):
    """A shard with right checksums again, where there still is a table."""
    _, table, length, _ = END.unpack(shard[-END.size:])
    body, end = bytearray(shard[:-END.size]), len(shard) - END.size
    rows = np.frombuffer(body, ROW, max(0, (end - table - length) // ROW.itemsize), table) if table < end else np.zeros(0, ROW)
    for row in rows:
        record = bytes(body[row["offset"]:row["offset"] + int(row["length"]) + int(row["name"])]) if row["offset"] >= 0 else b""
        row["crc"] = zlib.crc32(record, zlib.crc32(row.tobytes()[:-4]))
    return bytes(body) + END.pack(MAGIC, table, length, zlib.crc32(body[table:]))


# ---- nothing else happens

@contextlib.contextmanager
def bounded():
    """Inside, there is little memory and little time."""
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


def everything(folder):
    return {os.path.join(here, name): os.lstat(os.path.join(here, name)).st_mtime_ns
            for here, folders, names in os.walk(folder) for name in folders + names}


def ask(place, files, read, promised):
    """Whether the reader accepts these files, put into a folder at `place`. Anything but the promised error comes through."""
    folder = tempfile.mkdtemp(dir=place)
    for name, content in files.items():
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
    before = everything(place)
    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")             # decoders warn of what they pass over
            read(folder)
    except promised or () as error:         # noqa: B030 (a class, a tuple of them, or nothing)
        str(error).encode()                             # it can be printed
        return False
    finally:
        assert everything(place) == before
        for name in files:
            os.unlink(os.path.join(folder, name))
    return True


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder, which is the current one too, and where temporary files would be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return str(tmp_path)


linux = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no count of this process's memory here")
EXAMPLES = {"checkpoint": 500, "log": 300, "packed jpeg": 200, "packed raw": 150}


@linux
@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_file_is_read_or_refused_with_the_promised_error(kind, place):
    files, read, promised = READERS[kind]
    heap = {name for name in files if name.startswith("val/")}
    accepted = kind == "image EPS" or ask(place, files, read, promised)
    assert accepted or kind == "image TIFF float"
    answers = []

    @settings(max_examples=EXAMPLES.get(kind, 120 if kind.startswith("image") else 150), **PROFILE)
    @given(st.data())
    def damage(draws):
        draw = draws.draw
        name = draw(st.sampled_from(sorted(set(files) - heap)))
        content = behind_checksums(draw, name, files[name]) if draw(st.booleans()) else draw(damaged(files[name]))
        answers.append(ask(place, {**files, name: content}, read, promised))

    damage()
    assert promised == () or (False in answers and len(answers) > 100)
    assert True in answers or kind in ("image EPS", "image TIFF float", "image WEBP")


NAME = st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")) \
    | st.sampled_from([b"a.jpg", "猫.JPG".encode(), b"\xff.png", b"a b.jpg", b"-rf.jpg",
                       b"a\nb.gif", b".hidden.jpg", b"x.jpg.txt", b"%s.jpg", "\u202e.png".encode()])


@linux
def test_folders_with_any_names_in_them_are_data_sets_or_refused(place):
    found = []

    @settings(max_examples=400, **PROFILE)
    @given(st.dictionaries(NAME, st.dictionaries(NAME, st.sampled_from(["image", "rubbish", "folder", "nowhere", "up", "itself", "empty",
                                                                       "pipe"]), max_size=5),
                           max_size=4))
    def look(tree):
        root = os.fsencode(tempfile.mkdtemp(dir=place))
        for folder, names in tree.items():
            os.mkdir(os.path.join(root, folder))
            for name, kind in names.items():
                path = os.path.join(root, folder, name)
                if kind == "folder":
                    os.mkdir(path)
                elif kind == "pipe":
                    os.mkfifo(path)
                elif kind in ("nowhere", "up", "itself"):
                    os.symlink({"nowhere": b"no such thing", "up": b"..", "itself": name}[kind], path)
                else:
                    with open(path, "wb") as file:
                        file.write({"image": IMAGES["PNG"], "rubbish": b"rubbish", "empty": b""}[kind])
        before = everything(place)
        try:
            with bounded():
                whole(pickle.loads(pickle.dumps(data.ImageFolder(os.fsdecode(root)))))
            found.append(True)
        except DataError as error:
            str(error).encode()
            found.append(False)
        assert everything(place) == before

    look()
    assert min(found.count(True), found.count(False)) >= 5
