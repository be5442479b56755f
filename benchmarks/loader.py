"""Benchmark of the input pipeline: images per second, compared with torchvision on the same files and cores.

    python benchmarks/loader.py [--images 1000] [--workers 2] [--rounds 5] [--peers torchvision] [--python torchvision=OTHER/bin/python]

The files are JPEGs of about 500 x 375 pixels in four class folders, cropped from the photographs that come with minicnn. Every
contender decodes each file, resizes its shorter side to 256, takes a random crop of 227 x 227 pixels, flips it at random, subtracts
a mean, and collates batches of 128 as float32; minicnn also applies PCA colour augmentation, which torchvision does not have. "packed"
reads a set that was packed beforehand (minicnn data pack). Timed: an epoch, from the request for the first batch to the arrival of the
last, with worker processes that are already running. Rounds alternate between the contenders; medians are reported. Also measured: the
memory after reading 100,000 packed images.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
SIDE, SHORTER, BATCH = 227, 256, 128


def make_folder(root, count):
    """Write `count` JPEGs to root/<class>/, random crops of the photographs; the same ones at every call."""
    import numpy as np
    from PIL import Image

    from minicnn.data import photos
    rng, sources = np.random.default_rng(0), [Image.fromarray(array) for _, array in photos()]
    for i in range(count):
        source, scale = sources[int(rng.integers(len(sources)))], rng.uniform(0.5, 1)
        width, height = (500, 375) if i % 4 else (375, 500)
        w, h = scale * source.width, scale * source.height
        x, y = rng.uniform(0, source.width - w), rng.uniform(0, source.height - h)
        path = root / f"class{i % 4}" / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        source.resize((width, height), box=(x, y, x + w, y + h)).save(path, quality=90)


def minicnn_epochs(folder, workers):
    """(a function that reads epoch e of the files and returns the number of images, the versions of the libraries)."""
    import numpy as np
    import PIL

    from minicnn.data import DataLoader, ImageFolder, shards, transforms
    dataset = shards.Packed(folder) if (pathlib.Path(folder) / "minicnn-pack.json").exists() else ImageFolder(folder)
    color = transforms.PCAColorJitter([[5000, 4500, 4000], [4500, 4800, 4400], [4000, 4400, 5000]])
    loader = DataLoader(dataset, BATCH, transforms.alexnet_train(SIDE, mean=120.0, color=color), shuffle=True, seed=0, workers=workers)
    return lambda e: sum(len(labels) for _, labels in loader.epoch(e)), {"numpy": np.__version__, "pillow": PIL.__version__}


def torchvision_epochs(folder, workers):
    """The same with torchvision's ImageFolder and PyTorch's DataLoader, used as documented."""
    import PIL
    import torch
    without_compiled_ops(torch)
    import torchvision
    from torchvision import transforms as T
    transform = T.Compose([T.Resize(SHORTER), T.RandomCrop(SIDE), T.RandomHorizontalFlip(), T.ToTensor(),
                           T.Normalize([0.47] * 3, [1.0] * 3)])
    loader = torch.utils.data.DataLoader(torchvision.datasets.ImageFolder(folder, transform), BATCH, shuffle=True, num_workers=workers,
                                         persistent_workers=workers > 0)
    return lambda e: sum(len(labels) for _, labels in loader), {"torch": torch.__version__, "torchvision": torchvision.__version__,
                                                               "pillow": PIL.__version__}


def without_compiled_ops(torch):
    """Make torchvision importable beside a CPU build of PyTorch: its compiled detection ops, which are not used here, need CUDA."""
    register = torch.library.register_fake
    torch.library.register_fake = lambda name, *args, **kwargs: ((lambda f: f) if str(name).startswith("torchvision::")
                                                                 else register(name, *args, **kwargs))


CONTENDERS = {"minicnn": minicnn_epochs, "minicnn, packed as JPEG": minicnn_epochs, "minicnn, packed raw": minicnn_epochs,
              "torchvision": torchvision_epochs}


def contend(name, folder, workers):
    """The main function of a contender's process: read an epoch for each line on stdin."""
    epoch, versions = CONTENDERS[name](folder, workers)
    epoch(0)                                # from here on, workers are running and the files are in the page cache
    print(json.dumps(versions), flush=True)
    for number, _ in enumerate(sys.stdin, 1):
        start = time.perf_counter()
        images = epoch(number)
        print(json.dumps([images / (time.perf_counter() - start), resident()]), flush=True)


def resident():
    """The resident memory of this process in bytes, without file mappings."""
    status = pathlib.Path("/proc/self/status")
    return int(status.read_text().partition("RssAnon:")[2].split()[0]) * 1024 if status.exists() else None


def memory_of_a_long_epoch(folder, images, workers):
    """Resident memory while a packed set is read repeatedly: after a tenth of `images`, and at the end."""
    epoch, _ = minicnn_epochs(folder, workers)
    seen, early, number = 0, None, 0
    while seen < images:
        seen, number = seen + epoch(number), number + 1
        if early is None and seen >= images / 10:
            early = resident()
    return {"images": seen, "after a tenth": early, "at the end": resident()}


def main():
    sys.path.insert(0, str(HERE))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--workers", type=int, help="worker processes (default: one per core)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="torchvision")
    parser.add_argument("--long", type=int, default=100_000, help="number of images to read in the measurement of memory; 0: skip it")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="the interpreter that has this peer installed")
    parser.add_argument("--contender", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "loader.json")
    args = parser.parse_args()
    if args.contender:
        return contend(*args.contender, args.workers)

    from alexnet_step import machine

    from minicnn.backend import threads
    from minicnn.data import ImageFolder, shards
    workers = threads.available_cores() if args.workers is None else args.workers
    pythons = dict(item.split("=", 1) for item in args.python)
    with tempfile.TemporaryDirectory() as temporary:
        files = pathlib.Path(temporary) / "files"
        make_folder(files, args.images)
        folders = {"minicnn, packed as JPEG": pathlib.Path(temporary) / "jpeg", "minicnn, packed raw": pathlib.Path(temporary) / "raw"}
        packing = {}
        for kind in ("jpeg", "raw"):
            start = time.perf_counter()
            shards.pack(ImageFolder(files), pathlib.Path(temporary) / kind, format=kind, progress=False)
            packing[kind] = round(args.images / (time.perf_counter() - start))
        names = [name for name in CONTENDERS if name.startswith("minicnn") or name in args.peers.split(",")]
        running, results = {}, {}
        for name in names:
            process = subprocess.Popen([pythons.get(name, sys.executable), __file__, "--workers", str(workers), "--contender", name,
                                        str(folders.get(name, files))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            ready = process.stdout.readline()
            if ready:
                running[name], results[name] = process, {"images_per_s": [], "versions": json.loads(ready)}
            else:
                print(f"{name}: not available")
        for _ in range(args.rounds):
            for name, process in running.items():
                process.stdin.write("go\n")
                process.stdin.flush()
                speed, _ = json.loads(process.stdout.readline())
                results[name]["images_per_s"].append(round(speed, 1))
        for process in running.values():
            process.communicate()
        long = memory_of_a_long_epoch(folders["minicnn, packed raw"], args.long, workers) if args.long else None

    base = statistics.median(results["torchvision"]["images_per_s"]) if "torchvision" in results else None
    print("| | images/s | times torchvision's |", "|---|---|---|", sep="\n")
    for name, r in results.items():
        r["median"] = statistics.median(r["images_per_s"])
        r["ratio"] = round(r["median"] / base, 2) if base else None
        print(f"| {name} | {r['median']:,.0f} | {r['ratio'] or '-'} |")
    print(f"packing: {packing} images/s; memory of a long epoch: {long}")
    args.out.write_text(json.dumps({"machine": machine(), "workers": workers, "images": args.images, "results": results,
                                    "packing_images_per_s": packing, "long_epoch": long}, indent=1) + "\n")


if __name__ == "__main__":
    main()
