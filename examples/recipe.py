"""What a network is trained with, and on what: from the command line, or from the checkpoint of the run to go on with.

The loop that uses it is train_alexnet.py.
"""

import argparse
import math
import os
import pathlib
import re

from alexnet import VARIANTS, input_size

import minicnn as mc
from minicnn import gpu
from minicnn.backend import device_number, gpu_problem
from minicnn.data import DataError, DataLoader, Subset, open_dataset
from minicnn.data.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    PCAColour,
    RandomCrop,
    RandomMirror,
    Resize,
    channel_statistics,
    shorter_side,
)
from minicnn.keeper import checkpoints, load_newest

# What each network is trained with unless the command line says otherwise. The paper's own values are --init paper --lr 0.01
# --weight-decay 0.0005 --batch-size 128 --epochs 90; the README tells what that init asks for.
DEFAULTS: dict[str, dict] = {
    "mini": {"init": "he", "lr": 0.02, "weight_decay": 0.001, "batch_size": 32, "epochs": 11, "schedule": "linear"},
    "others": {"init": "he", "lr": 0.005, "weight_decay": 0.0005, "batch_size": 128, "epochs": 90, "schedule": "plateau"},
}
ALWAYS = {"data": "fashion-mnist", "momentum": 0.9, "seed": 0, "colour": 0.1}

# What makes a run what it is; kept in the checkpoint, and taken from there by --resume. And all that a checkpoint has.
RECIPE = ("arch", "data", "epochs", "batch_size", "lr", "schedule", "momentum", "weight_decay", "init", "seed", "limit", "colour")
CONTENTS = ("model", "optimizer", "schedule", "random", "step", "validated", "best", "classes", "pixels", "fingerprint",
            "arguments", "versions")


def parse(argv, description):
    """The command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="auto", type=device, help="cpu, gpu (gpu:1 for the second), or auto: the GPU if there is one")
    parser.add_argument("--tf32", action="store_true", help="on a GPU with tensor cores: products rounded to TF32, several times as fast")
    parser.add_argument("--arch", choices=list(VARIANTS), help="which network (default: mini)")
    parser.add_argument("--data", help="fashion-mnist (the default), photos, or a folder: photographs in train/<class>/* and val/<class>/*"
                        ", ImageNet, CIFAR, MNIST, or a packed set")
    parser.add_argument("--epochs", type=positive_int, help="default: 11 for mini, else 90")
    parser.add_argument("--steps", type=positive_int, help="stop after this many steps in all")
    parser.add_argument("--batch-size", type=positive_int, help="default: 32 for mini, else 128")
    parser.add_argument("--lr", type=positive_float, help="learning rate (default: 0.02 for mini, else 0.005)")
    parser.add_argument("--schedule", choices=["linear", "plateau"], help="how the rate falls: in a straight line to 0 (default for mini), "
                        "or to a tenth when validation stalls, the paper's way (default for the others)")
    parser.add_argument("--momentum", type=float, help="default: 0.9")
    parser.add_argument("--weight-decay", type=float, help="default: 0.001 for mini, else 0.0005")
    parser.add_argument("--init", choices=["he", "paper", "caffe"], help="first weights (default: he)")
    parser.add_argument("--colour", type=float, metavar="SIGMA", help="of the shift of photographs' colours (default: the paper's 0.1; "
                        "0: none)")
    parser.add_argument("--seed", type=int, help="of weights, order, crops and dropout (default: 0)")
    parser.add_argument("--limit", type=positive_int, help="for a quick look: only so many images of each set, evenly spread")
    parser.add_argument("--workers", type=int, help="processes that read images (default: one for each core; 0 for what is in memory)")
    parser.add_argument("--on-bad", choices=["raise", "skip", "report"], default="raise", help="an image file that cannot be read: "
                        "stop (default), leave it out, or leave it out and say so")
    parser.add_argument("--bad-limit", type=int, default=100, metavar="N", help="with more unreadable files than this, stop (default: 100)")
    parser.add_argument("--resume", help="a run's folder, or one of its checkpoints: go on with it; auto: with the newest run in runs/")
    parser.add_argument("--out", type=pathlib.Path, help="folder for what the run writes (default: runs/<arch>-<number>)")
    parser.add_argument("--save-steps", type=positive_int, metavar="N", help="a checkpoint after every N steps too")
    parser.add_argument("--save-minutes", type=positive_float, metavar="M", default=10,
                        help="and whenever M minutes have gone by (default: 10)")
    parser.add_argument("--keep", type=positive_int, default=3, help="how many of the last checkpoints stay, beside the best (default: 3)")
    parser.add_argument("--report", action=argparse.BooleanOptionalAction, default=True, help="pictures of every layer as it learns, and "
                        "at the end a page that shows them (default: yes)")
    parser.add_argument("--detect-anomaly", action="store_true", help="stop at the op that makes the first NaN or infinity, and show it")
    parser.add_argument("--eval", action="store_true", help="only test the network of --resume")
    parser.add_argument("--views", choices=["1", "10", "multi"], default="1", help="with --eval: looks at each image: its centre; the "
                        "paper's ten crops; ten crops at each of five scales")
    return parser.parse_args(argv)


def complete(args):
    """Fill in what the command line left open: from the checkpoint of --resume, else from DEFAULTS. Returns the checkpoint or None."""
    checkpoint = None
    if args.resume:
        path, checkpoint = find_checkpoint(args)
        check_contents(path, checkpoint)
        for name, value in checkpoint["arguments"].items():
            given = getattr(args, name)
            if given is not None and given != value and name in ("arch", "init", "seed", "batch_size", "schedule", "limit"):
                raise mc.CheckpointError(f"{path}: a run with {name} {value!r} cannot go on with {given!r}; "
                                         "start a new run, without --resume")
            setattr(args, name, value if given is None else given)
        args.out = args.out or path.parent
    elif args.eval:
        raise mc.CheckpointError("--eval tests a trained network: name it with --resume RUN")
    if args.views != "1" and not args.eval:
        raise mc.CheckpointError("--views is for tests: give --eval --resume RUN with it")
    args.arch = args.arch or "mini"
    for name, value in {**ALWAYS, **DEFAULTS.get(args.arch, DEFAULTS["others"])}.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.out is None:
        args.out = next(p for p in (pathlib.Path("runs") / f"{args.arch}-{i}" for i in range(1, 100000)) if not p.exists())
    going_on = checkpoint is not None and args.out.resolve() == path.parent.resolve()
    if not going_on and not args.eval and args.out.is_dir() and checkpoints(args.out):
        raise FileExistsError(f"{args.out} holds a run already; go on with it (--resume {args.out}), or name another folder with --out")
    return checkpoint


def check_contents(path, checkpoint):
    """This is a checkpoint that train_alexnet.py wrote, or CheckpointError."""
    if not {*CONTENTS} <= set(checkpoint) or set(checkpoint["arguments"]) != {*RECIPE}:
        raise mc.CheckpointError(f"{path}: a checkpoint, but not one that this program wrote")


def find_checkpoint(args):
    """(path, contents) of the checkpoint that --resume names: a file, the newest whole one of a run, or of the newest run."""
    where = pathlib.Path(args.resume)
    if args.resume == "auto":
        where = args.out or newest_run(pathlib.Path("runs"), args.arch)
    if not where.is_dir():
        return where, mc.load_checkpoint(where)
    path, checkpoint, damaged = load_newest(where)
    for reason in damaged:
        print(f"passed over: {reason}")
    print(f"going on from {path}")
    return path, checkpoint


def newest_run(folder, arch):
    """The run in `folder` that was begun last: <arch>-<number> with the largest number. CheckpointError if there is none."""
    names = os.listdir(folder) if folder.is_dir() else []
    numbered = [(int(match[2]), match[0]) for match in (re.fullmatch(r"(.+)-(\d+)", name) for name in names)
                if match and match[1] == (arch or match[1]) and checkpoints(folder / match[0])]
    if not numbered:
        raise mc.CheckpointError(f"--resume auto: no run with a checkpoint in {folder}/; name one, or start one without --resume")
    if len({name.rpartition("-")[0] for _, name in numbered}) > 1:
        raise mc.CheckpointError(f"--resume auto: runs of several networks are in {folder}/; say which with --arch, or name the run")
    return folder / max(numbered)[1]


def choose_device(args):
    """Set the device to train on; auto takes the GPU where there is one, and says why not."""
    problem = gpu_problem() if args.device != "cpu" else None
    if args.device == "auto":
        if problem:
            print(f"training on the CPU ({problem.rpartition('. ')[0]})")
        args.device = "cpu" if problem else "gpu"
    elif problem:
        raise RuntimeError(problem)
    if args.tf32 and args.device == "cpu":
        raise RuntimeError("--tf32 is for a GPU; leave it out to train on the CPU")
    gpu.tf32(args.tf32)
    if device_number(args.device):          # not the first: what is made in between belongs there too
        import cupy
        cupy.cuda.Device(device_number(args.device)).use()


class Data:
    """What a network is trained and tested with.

    Attributes: train, val, the DataLoaders; classes, their names; channels and side of the network's input; validation, the data set
    behind `val`, and test_transform; pixels, the training set's mean, spread and covariance; fingerprint, of its files.

    Pixels are centred on the mean of the training set. He's init also wants unit variance; the Gaussians of the paper and of
    Caffe are made for pixels as they are, 0 to 255. Photographs are augmented as in the paper: random crops, mirrored, recoloured.
    """

    def __init__(self, args, checkpoint):
        training, self.validation = open_dataset(args.data)
        if args.limit:
            training, self.validation = Subset(training, args.limit), Subset(self.validation, args.limit)
        self.classes = list(training.classes)
        self.fingerprint = training.fingerprint()
        readable = training if args.on_bad == "raise" else Readable(training)
        height, width, self.channels = readable[0][0].shape
        if checkpoint:
            check_same_data(checkpoint, args, self.classes, self.fingerprint)

        augment: list = []              # digits and clothes all face one way: no augmentation
        centre: list = []
        small = training.in_memory and max(height, width) <= 64
        if small and args.arch != "mini":
            raise DataError(f"--arch {args.arch} is for photographs of {input_size(args.arch)} pixels, and {args.data} has {height}; "
                            "give --data DIR")
        if small:
            self.side = height
            if self.channels == 3:
                augment = [RandomCrop(self.side, padding=4), RandomMirror()]
        else:
            self.side = 64 if args.arch == "mini" else input_size(args.arch)
            shorter = shorter_side(self.side)           # the paper cuts its crops out of images of 256
            augment = [Resize(shorter), RandomCrop(self.side, within=shorter), RandomMirror()]
            centre = [Resize(shorter), CenterCrop(self.side)]
        self.pixels = checkpoint["pixels"] if checkpoint else pixel_statistics(readable, covariance=not small)
        if not small and args.colour:
            augment.append(PCAColour(self.pixels["covariance"], args.colour))
        scale = Normalize(self.pixels["mean"], self.pixels["std"] if args.init == "he" else 1.0)
        self.test_transform = Compose(*centre, scale)
        how = {"device": args.device, "workers": args.workers, "on_bad": args.on_bad, "bad_limit": args.bad_limit}
        self.train = DataLoader(training, args.batch_size, Compose(*augment, scale), shuffle=True, drop_last=True, **how)
        self.val = DataLoader(self.validation, args.batch_size, self.test_transform, **how)


class Readable:
    """A data set where the next image that can be read stands in the place of one that cannot: statistics do not mind."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        for j in range(i, i + len(self)):
            try:
                return self.dataset[j % len(self)]
            except DataError as error:
                last = error
        raise last


def pixel_statistics(dataset, covariance, most=500):
    """What the pixels of a data set are like, from `most` of its images."""
    mean, std = channel_statistics(dataset, most)
    return {"mean": mean, "std": std, "covariance": PCAColour.fit(dataset, most).covariance if covariance else None}


def check_same_data(checkpoint, args, classes, fingerprint):
    """The data of this command line are those of the run to go on with, as far as it shows without reading every image."""
    if checkpoint["classes"] != classes:
        raise mc.CheckpointError(f"the run to go on with knows the classes {shown(checkpoint['classes'])}, "
                                 f"but {args.data} has {shown(classes)}")
    if not args.eval and checkpoint["fingerprint"] != fingerprint:
        raise mc.CheckpointError(f"since the run to go on with was begun, images of {args.data} came, went, or changed; put them back as "
                                 "they were, or start a new run, without --resume")


def shown(classes):
    """The first few names of a list of classes."""
    return ", ".join(classes[:4]) + (f", ... ({len(classes)})" if len(classes) > 4 else "")


def device(text):
    try:
        if text != "auto":
            device_number(text)
        return text
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"auto, or a device: {error}") from None


def positive_int(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return int(text)


def positive_float(text):
    if not (float(text) > 0 and math.isfinite(float(text))):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return float(text)
