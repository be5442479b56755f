"""How many photographs a second reach the network, beside torchvision on the same files and the same cores?

    python benchmarks/loader.py [--images 1000] [--workers 2] [--rounds 5] [--peers torchvision] [--python torchvision=OTHER/bin/python]

The files are JPEGs of about 500 x 375 pixels in four class folders, cut out of the photographs that come with minicnn. All
contenders decode each file, scale its shorter side to 256, cut 227 x 227 pixels out of it anywhere, mirror every other one, take off
a mean, and put batches of 128 together as float32; minicnn also shifts the colours by PCA, which torchvision cannot. "packed" reads
a set that was packed beforehand (minicnn data pack). Timed: an epoch, from the first batch asked for to the last one there, with
worker processes that are running already. Rounds alternate between the contenders; told are medians. Also told: how much memory
reading 100,000 packed images takes.
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
    """`count` JPEGs in root/<class>/, each another piece of one of the photographs; the same ones at each call."""
    import numpy as np
    from PIL import Image

    from minicnn.data import photos
    rng, pictures = np.random.default_rng(0), [Image.fromarray(array) for _, array in photos()]
    for i in range(count):
        picture, part = pictures[int(rng.integers(len(pictures)))], rng.uniform(0.5, 1)
        width, height = (500, 375) if i % 4 else (375, 500)
        w, h = part * picture.width, part * picture.height
        x, y = rng.uniform(0, picture.width - w), rng.uniform(0, picture.height - h)
        path = root / f"class{i % 4}" / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.resize((width, height), box=(x, y, x + w, y + h)).save(path, quality=90)


def minicnn_epochs(folder, workers):
    """A function that reads epoch e of the files and returns how many images there were; and the versions that matter."""
    import numpy as np
    import PIL

    from minicnn.data import DataLoader, ImageFolder, packed, transforms
    dataset = packed.Packed(folder) if (pathlib.Path(folder) / "minicnn-pack.json").exists() else ImageFolder(folder)
    colour = transforms.PCAColour([[5000, 4500, 4000], [4500, 4800, 4400], [4000, 4400, 5000]])
    loader = DataLoader(dataset, BATCH, transforms.paper_train(SIDE, mean=120.0, colour=colour), shuffle=True, seed=0, workers=workers)
    return lambda e: sum(len(labels) for _, labels in loader.epoch(e)), {"numpy": np.__version__, "pillow": PIL.__version__}


def torchvision_epochs(folder, workers):
    """The same with torchvision's ImageFolder and PyTorch's DataLoader, as their documentation says."""
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
    """Let torchvision be imported beside a CPU build of PyTorch: its compiled detection ops, which nothing here uses, want CUDA."""
    register = torch.library.register_fake
    torch.library.register_fake = lambda name, *args, **kwargs: ((lambda f: f) if str(name).startswith("torchvision::")
                                                                 else register(name, *args, **kwargs))


CONTENDERS = {"minicnn": minicnn_epochs, "minicnn, packed as JPEG": minicnn_epochs, "minicnn, packed raw": minicnn_epochs,
              "torchvision": torchvision_epochs}


def contend(name, folder, workers):
    """What a contender's process does: an epoch for each line on its input."""
    epoch, versions = CONTENDERS[name](folder, workers)
    epoch(0)                                # workers are running from here on, and the files are in the system's cache
    print(json.dumps(versions), flush=True)
    for number, _ in enumerate(sys.stdin, 1):
        start = time.perf_counter()
        images = epoch(number)
        print(json.dumps([images / (time.perf_counter() - start), resident()]), flush=True)


def resident():
    """Bytes of memory this process occupies now, without what it shares with files."""
    status = pathlib.Path("/proc/self/status")
    return int(status.read_text().partition("RssAnon:")[2].split()[0]) * 1024 if status.exists() else None


def memory_of_a_long_epoch(folder, images, workers):
    """Bytes occupied after a tenth of `images`, and at the end, of reading a packed set over and over."""
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
    parser.add_argument("--workers", type=int, help="default: one for each core")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="torchvision")
    parser.add_argument("--long", type=int, default=100_000, help="images of the epoch whose memory is watched; 0: leave it out")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="the interpreter that has this peer installed")
    parser.add_argument("--contender", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "loader.json")
    args = parser.parse_args()
    if args.contender:
        return contend(*args.contender, args.workers)

    from alexnet_step import machine

    from minicnn import parallel
    from minicnn.data import ImageFolder, packed
    workers = parallel.cores() if args.workers is None else args.workers
    pythons = dict(item.split("=", 1) for item in args.python)
    with tempfile.TemporaryDirectory() as temporary:
        files = pathlib.Path(temporary) / "files"
        make_folder(files, args.images)
        folders = {"minicnn, packed as JPEG": pathlib.Path(temporary) / "jpeg", "minicnn, packed raw": pathlib.Path(temporary) / "raw"}
        packing = {}
        for kind in ("jpeg", "raw"):
            start = time.perf_counter()
            packed.pack(ImageFolder(files), pathlib.Path(temporary) / kind, format=kind, progress=False)
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
                print(f"{name}: not here")
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
