"""A thousand damaged or malicious checkpoints; each is (name, bytes).

Some damage comes from disks (truncation, flipped bits, lost blocks), some from people: archives with correct checksums and false contents.
"""

import io
import json
import struct
import warnings
import zipfile
import zlib

import numpy as np

import minicnn as mc


def original(step):
    """The contents of a checkpoint like those of a run, only smaller."""
    rng = np.random.default_rng(step)

    def weights():
        return {"conv1.weight": rng.standard_normal((5, 3, 3, 4)).astype(np.float32).transpose(0, 3, 1, 2),
                "conv1.bias": rng.standard_normal(5).astype(np.float32), "fc.weight": rng.standard_normal((10, 60)).astype(np.float32),
                "fc.bias": rng.standard_normal(10)}

    return {"model": weights(), "optimizer": {"velocities": list(weights().values()), "groups": [{"lr": 0.1 / step, "momentum": 0.9}]},
            "random": {"seed": 0, "parameters": 4, "dropout": step}, "step": step, "best": None, "classes": ["Ångström", "b"], "none": []}


def written(path, step):
    mc.save_checkpoint(path, **original(step))
    return path.read_bytes()


# ---- what disks do ----

def cuts(whole, older):
    """100 truncated files: near the start, near the end, and anywhere."""
    rng = np.random.default_rng(1)
    ends = [*range(20), *range(len(whole) - 30, len(whole)), *rng.choice(np.arange(20, len(whole) - 30), 50, replace=False)]
    return [(f"cut at {end}", whole[:end]) for end in ends]


def flips(whole, older):
    """300 files with one changed bit or byte."""
    rng = np.random.default_rng(2)
    damages = []
    for i, position in enumerate(rng.choice(len(whole), 300, replace=False)):
        other = whole[position] ^ (1 << int(rng.integers(8)) if i % 2 else int(rng.integers(1, 256)))
        damages.append((f"byte {position} is {other}", whole[:position] + bytes([other]) + whole[position + 1:]))
    return damages


def blocks(whole, older):
    """400 files in which blocks are lost, exchanged, repeated, or from an older file."""
    rng = np.random.default_rng(3)
    end = len(whole)
    damages = []

    def stretch(longest):
        a = int(rng.integers(0, end - 1))
        return a, min(end, a + int(rng.integers(1, longest)))

    for i in range(80):
        a, b = stretch(4096 if i % 2 else 64)
        damages.append((f"zeros from {a} to {b}", whole[:a] + bytes(b - a) + whole[b:]))
    for _ in range(40):
        a, b = stretch(512)
        damages.append((f"noise from {a} to {b}", whole[:a] + rng.bytes(b - a) + whole[b:]))
    for _ in range(40):
        a = int(rng.integers(0, end))
        damages.append((f"zeros from {a} on", whole[:a] + bytes(end - a)))
    for _ in range(60):
        size = int(rng.integers(1, 700))
        a, b = sorted(int(x) for x in rng.integers(0, end - size, 2))
        b = max(b, a + size)
        swapped = whole[:a] + whole[b:b + size] + whole[a + size:b] + whole[a:a + size] + whole[b + size:]
        damages.append((f"{size} bytes at {a} and {b} exchanged", swapped))
    for _ in range(40):
        a, b = stretch(600)
        damages.append((f"without {a} to {b}", whole[:a] + whole[b:]))
        damages.append((f"{a} to {b} twice", whole[:b] + whole[a:]))
    for i in range(40):
        rubbish = rng.bytes(int(rng.integers(1, 3000))) if i % 2 else bytes(int(rng.integers(1, 100000)))
        damages.append((f"{len(rubbish)} bytes of rubbish behind", whole + rubbish))
    for _ in range(10):
        rubbish = rng.bytes(int(rng.integers(1, 3000)))
        damages.append((f"{len(rubbish)} bytes of rubbish before", rubbish + whole))
    first = next(i for i in range(39, end) if whole[i] != older[i])     # before it there is only a header
    for _ in range(48):
        a = int(rng.integers(first + 1, end))
        damages.append((f"torn at {a}: the older one from there on", whole[:a] + older[a:]))
    damages.append(("an older one behind it", whole + older))
    damages.append(("an older one before it", older + whole))
    return damages


# ---- what people do ----

def members(whole):
    """{name: bytes} of the archive."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archived(files, method=zipfile.ZIP_STORED, **attributes):
    """An archive of [(name, bytes)] with correct checksums."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            for key, value in attributes.items():
                setattr(info, key, value)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")         # duplicate names are intended
                archive.writestr(info, data)
    return out.getvalue()


def npy(shape, dtype, data, order=False, version=(1, 0)):
    """A .npy file with this header."""
    return raw_npy(repr({"descr": dtype, "fortran_order": order, "shape": shape}), data, version)


def raw_npy(header, data=b"", version=(1, 0)):
    text = (header + "\n").encode("latin1")
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version[0] == 1 else "<I", len(text)) + text + data


def nested(depth):
    """JSON of this many nested dicts."""
    return '{"dict": {"a": ' * depth + '{"value": 1}' + "}}" * depth


def lies(whole, older):
    """229 valid zip archives that are not a checkpoint, or not this one."""
    files = members(whole)
    tree = json.loads(files["tree.json"])
    arrays = [name for name in files if name != "tree.json"]
    damages = []

    def add(name, changed=None, more=(), text=None, **how):
        """The archive with some members changed (None: without it), the tree replaced by `text`, and more members behind."""
        new = {**files, **(changed or {})}
        if text is not None:
            new["tree.json"] = text if isinstance(text, bytes) else (text if isinstance(text, str) else json.dumps(text)).encode()
        damages.append((name, archived([*((n, d) for n, d in new.items() if d is not None), *more], **how)))

    def with_node(name, **changes):
        """The tree with changes to the entry of this array."""
        def walk(node):
            if isinstance(node, dict) and node.get("array") == name[:-4]:
                return {**node, **changes}
            if isinstance(node, dict):
                return {k: walk(v) for k, v in node.items()}
            return [walk(v) for v in node] if isinstance(node, list) else node
        return walk(tree)

    for name in arrays:                                                  # 8 arrays, 19 lies about each
        array = np.load(io.BytesIO(files[name]))
        data, shape, dtype = array.tobytes("A"), array.shape, array.dtype.str
        flat = (array.size,) if array.ndim > 1 else (array.size, 1)
        add(f"{name}: the tree has another shape", text=with_node(name, shape=list(flat)))
        add(f"{name}: the tree has another dtype", text=with_node(name, dtype="<i4"))
        add(f"{name}: the tree names another array", text=with_node(name, array="nobody"))
        add(f"{name}: the tree's shape is enormous", text=with_node(name, shape=[10 ** 12]))
        add(f"{name}: both shapes are enormous", {name: npy((10 ** 12,), dtype, data)}, text=with_node(name, shape=[10 ** 12]))
        add(f"{name}: more bytes than there are on earth", {name: npy((10 ** 30,), dtype, data)}, text=with_node(name, shape=[10 ** 30]))
        add(f"{name}: a shape that overflows to its size", {name: npy((2 ** 32, 2 ** 32, *shape), dtype, data)})
        add(f"{name}: a negative shape", {name: npy((-1, *shape), dtype, data)}, text=with_node(name, shape=[-1, *shape]))
        add(f"{name}: the array has another shape", {name: npy(flat, dtype, data)})
        add(f"{name}: the array has another dtype", {name: npy(shape, ">" + dtype[1:], data)})
        add(f"{name}: too few bytes", {name: files[name][:-1]})
        add(f"{name}: is not there", {name: None})
        add(f"{name}: is empty", {name: b""})
        add(f"{name}: a pickle", {name: pickled(shape)}, text=with_node(name, dtype="|O"))
        add(f"{name}: text", {name: npy(shape, "<U1", bytes(4 * array.size))}, text=with_node(name, dtype="<U1"))
        add(f"{name}: twice, and once zeros", more=[(name, npy(shape, dtype, bytes(len(data))))])
        add(f"{name}: a number in its place", text=with_node(name, array=7))
        add(f"{name}: a list in its place", text=with_node(name, array=["a"]))
        add(f"{name}: a newer .npy format", {name: b"\x93NUMPY\x09\x00" + files[name][8:]})
    one = arrays[0]
    for header in ("{'descr': '<f4'", "{'descr': '<f4', 'fortran_order': False, 'shape': (2L,)}", "(" * 300, "'" * 9, "\x00", "[1, 2]",
                   "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", "x" * 9999, "-" * 3000 + "1",
                   "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}", "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}"):
        add(f"{one}: a header that is no header: {header[:40]}", {one: raw_npy(header, bytes(64))})
    for what, contents in (("a value", {"value": 3}), ("a list", {"list": []}), ("nothing", {}), ("not a node", [1]), ("null", None),
                           ("text", "dict"), ("a dict of no nodes", {"dict": {"a": 1}}), ("a dict that is a list", {"dict": [1]}),
                           ("one that hides a tree", {"dict": {"a": {"value": {"dict": {}}}}})):
        add(f"the contents are {what}", text={**tree, "contents": contents})
    for version in (2, 99, 1.5, "1", None, [1], 0, -1):
        add(f"the format's version is {version!r}", text={**tree, "version": version})
    for what, text in (("empty", b""), ("null", "null"), ("a list", "[]"), ("a number", "1" * 5000), ("no JSON", "{"),
                       ("no UTF-8", b"\xff\xfe{"),
                       ("of another program", {**tree, "format": "other"}), ("without contents", {"format": tree["format"], "version": 1}),
                       ("without version", {"format": tree["format"], "contents": tree["contents"]})):
        add(f"the tree is {what}", text=text)
    for depth in (900, 20000, 100000):
        add(f"{depth} dicts in another", text=f'{{"format": "{tree["format"]}", "version": 1, "contents": {nested(depth)}}}')
    weight = tree["contents"]["dict"]["model"]["dict"]["fc.weight"]
    add("one array ten thousand times", text={**tree, "contents": {"dict": {"a": {"list": 10000 * [weight]}}}})
    add("no tree", {"tree.json": None})
    add("the tree twice, and once an older one", more=[("tree.json", members(older)["tree.json"])])
    damages.extend(archives(whole, older, files))
    return damages


def pickled(shape):
    """An array of objects; loading it would execute code."""
    out = io.BytesIO()
    np.lib.format.write_array(out, np.full(shape, print, dtype=object), allow_pickle=True)
    return out.getvalue()


def archives(whole, older, files):
    """Archives that are unusual as archives."""
    pairs = list(files.items())
    zeros = npy((1 << 27,), "|u1", b"")
    bomb = archived([*pairs, ("bomb.npy", zeros + bytes(1 << 27))], zipfile.ZIP_DEFLATED)
    directory = whole.rindex(b"PK\x05\x06")
    first = whole.index(b"PK\x01\x02")
    damages = [("a bomb of zeros", bomb), ("compressed", archived(pairs, zipfile.ZIP_DEFLATED)), ("an empty archive", archived([])),
               ("members that share their bytes", overlapping(files, 300)), ("said to be encrypted", set_bits(whole, 8, 1)),
               ("said to be patched", set_bits(whole, 8, 0x20)), ("packed by an unknown method", set_bits(whole, 10, 0x63)),
               ("needs zip 9.9", set_bits(whole, 6, 99))]
    for what, at, fmt, value in (("count of members", 10, "<H", 0), ("count of members", 10, "<H", 65535),
                                 ("directory's size", 12, "<I", 0), ("directory's size", 12, "<I", 0xFFFFFFFF),
                                 ("directory's offset", 16, "<I", 0),
                                 ("directory's offset", 16, "<I", 0xFFFFFFFF), ("comment's length", 20, "<H", 999)):
        damaged = bytearray(whole)
        struct.pack_into(fmt, damaged, directory + at, value)
        damages.append((f"the {what} is {value}", bytes(damaged)))
    for what, at, fmt, value in (("offset", 42, "<I", 0xFFFFFFF0), ("size", 24, "<I", 0xFFFFFFF0), ("packed size", 20, "<I", 0xFFFFFFF0),
                                 ("name's length", 28, "<H", 65535), ("extra field's length", 30, "<H", 65535), ("checksum", 16, "<I", 1)):
        damaged = bytearray(whole)
        struct.pack_into(fmt, damaged, first + at, value)
        damages.append((f"the first member's {what} is {value}", bytes(damaged)))
    for name in ("../outside.npy", "/tmp/minicnn-outside.npy", "C:\\outside.npy", "..\\outside.npy", "a/../../outside.npy",
                 "~/outside.npy"):
        damages.append((f"a member called {name}", archived([*pairs, (name, files["model/fc.bias.npy"])])))
        tree = files["tree.json"].replace(b'"model/fc.bias"', json.dumps(name[:-4]).encode())
        moved = [("tree.json", tree), *((name if n == "model/fc.bias.npy" else n, d) for n, d in pairs if n != "tree.json")]
        damages.append((f"an array called {name}", archived(moved)))
    damages.append(("a member that is a link", archived([*pairs, ("link.npy", b"/etc/passwd")], external_attr=0o120777 << 16)))
    return damages


def set_bits(whole, local, bits):
    """`bits` set at this offset of every local header, and two bytes later in the directory's entry."""
    damaged = bytearray(whole)
    for mark, at in ((b"PK\x03\x04", local - 2), (b"PK\x01\x02", local)):
        start = damaged.find(mark)
        while start >= 0:
            damaged[start + at] |= bits
            start = damaged.find(mark, start + 4)
    return bytes(damaged)


def overlapping(files, count):
    """A megabyte that `count` members share, and a tree that names them all."""
    data = npy((1 << 20,), "|u1", bytes(1 << 20))
    arrays = {f"a{i}": {"array": f"a{i:06}", "shape": [1 << 20], "dtype": "|u1"} for i in range(count)}
    text = json.dumps({"format": "minicnn checkpoint", "version": 1, "contents": {"dict": arrays}}).encode()
    out = bytearray(archived([("tree.json", text), ("a000000.npy", data)]))
    entry_at = out.rindex(b"PK\x01\x02")
    end_at = out.rindex(b"PK\x05\x06")
    entry = bytes(out[entry_at:end_at])
    entries = b"".join(entry.replace(b"a000000", f"a{i:06}".encode()) for i in range(1, count))
    end = bytearray(out[end_at:])
    number, size = struct.unpack_from("<H", end, 10)[0] + count - 1, struct.unpack_from("<I", end, 12)[0] + len(entries)
    struct.pack_into("<HHI", end, 8, number, number, size)
    assert zlib.crc32(data) == struct.unpack_from("<I", entry, 16)[0]
    return bytes(out[:end_at]) + entries + bytes(end)
