"""The configuration of a run: command line, checkpoint to resume, data, network, optimiser and schedule.

The loop that uses it is in train_alexnet.py.
"""

import argparse
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import minicnn as mc
from minicnn.backend import cuda
from minicnn.backend.arrays import device_number, gpu_unavailable_reason
from minicnn.data import DataError, DataLoader, EvenSample, open_dataset
from minicnn.data.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    PCAColorJitter,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    channel_statistics,
    shorter_side,
)
from minicnn.examples.alexnet import INITS, VARIANTS, alexnet, input_size
from minicnn.examples.arguments import device_or_auto, non_negative_float, positive_float, positive_int
from minicnn.text import format_list
from minicnn.train.checkpoint_manager import list_checkpoints, load_latest
from minicnn.train.log import read_log
from minicnn.train.run import Run

# The default hyperparameters of each network. The paper's own values are --init paper --lr 0.01
# --weight-decay 0.0005 --batch-size 128 --epochs 90; docs/stuck_loss.md says which learning rates that init needs.
DEFAULTS: dict[str, dict[str, Any]] = {
    "mini": {"init": "kaiming", "lr": 0.02, "weight_decay": 0.001, "batch_size": 32, "epochs": 11, "schedule": "linear"},
    "others": {"init": "kaiming", "lr": 0.005, "weight_decay": 0.0005, "batch_size": 128, "epochs": 90, "schedule": "plateau"},
}
COMMON_DEFAULTS: dict[str, Any] = {"data": "fashion-mnist", "momentum": 0.9, "seed": 0, "pca_std": 0.1}

# The arguments that define a run: saved in its checkpoints, and restored by --resume.
CONFIG_KEYS = ("arch", "data", "epochs", "batch_size", "lr", "schedule", "momentum", "weight_decay", "init", "seed", "max_images",
               "pca_std")
# The contents of a checkpoint of this program.
CHECKPOINT_KEYS = ("model", "optimizer", "schedule", "random", "step", "validated", "best", "classes", "pixels", "fingerprint",
                   "arguments", "versions")


def parse(argv: Sequence[str] | None, description: str, prog: str | None = None) -> argparse.Namespace:
    """Parse the command line. Arguments that are in CONFIG_KEYS are None where it does not set them: `resolve_args` fills them in."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--device", default="auto", type=device_or_auto, help="cpu, gpu, gpu:1 (the second), or auto: a GPU if any")
    parser.add_argument("--tf32", action="store_true", help="on a GPU with tensor cores: matrix products in TF32, several times as fast")
    parser.add_argument("--arch", choices=list(VARIANTS), help="the network (default: mini)")
    parser.add_argument("--data", help="fashion-mnist (the default), photos, or a folder: photographs in train/<class>/* and val/<class>/*"
                        ", ImageNet, CIFAR, MNIST, or a packed data set")
    parser.add_argument("--epochs", type=positive_int, help="default: 11 for mini, else 90")
    parser.add_argument("--max-steps", type=positive_int, help="stop after this many steps in all; not restored by --resume")
    parser.add_argument("--batch-size", type=positive_int, help="default: 32 for mini, else 128")
    parser.add_argument("--lr", type=positive_float, help="learning rate (default: 0.02 for mini, else 0.005)")
    parser.add_argument("--schedule", choices=["linear", "plateau"], help="learning rate schedule: linear decay to 0 (default for mini), "
                        "or a tenth when the validation error stops improving, as in the paper (default for the others)")
    parser.add_argument("--momentum", type=float, help="default: 0.9")
    parser.add_argument("--weight-decay", type=float, help="default: 0.001 for mini, else 0.0005")
    parser.add_argument("--init", choices=list(INITS), help="initialisation of the weights (default: kaiming)")
    parser.add_argument("--pca-std", type=non_negative_float, metavar="STD", help="standard deviation of the PCA colour augmentation of "
                        "photographs (default: the paper's 0.1; 0: none)")
    parser.add_argument("--seed", type=int, help="for weights, order, augmentation and dropout (default: 0)")
    parser.add_argument("--max-images", type=positive_int, help="use at most this many images of each set, evenly spaced")
    parser.add_argument("--workers", type=int, help="processes that load images (default: one for each core; 0 for a data set in memory)")
    parser.add_argument("--on-error", choices=["raise", "skip", "warn"], default="raise", help="an image that cannot be read: "
                        "stop (default), skip it, or skip it with a warning")
    parser.add_argument("--max-errors", type=int, default=100, metavar="N", help="stop after more than N unreadable images "
                        "(default: 100)")
    parser.add_argument("--resume", help="a run's folder, or one of its checkpoints: continue it; auto: the newest run in runs/")
    parser.add_argument("--out", type=pathlib.Path, help="output folder of the run (default: runs/<arch>-<number>)")
    parser.add_argument("--checkpoint-steps", type=positive_int, metavar="N", help="also write a checkpoint every N steps")
    parser.add_argument("--checkpoint-minutes", type=positive_float, metavar="M", default=10,
                        help="write a checkpoint every M minutes (default: 10)")
    parser.add_argument("--keep-last", type=positive_int, default=3, help="how many of the last checkpoints to keep, beside the "
                        "best one (default: 3)")
    parser.add_argument("--report", action=argparse.BooleanOptionalAction, default=True, help="take snapshots of every layer during "
                        "the training, and write a page that shows them (default: yes)")
    parser.add_argument("--detect-anomaly", action="store_true", help="stop at the op that produces the first NaN or infinity, and show it")
    parser.add_argument("--eval", action="store_true", help="only evaluate the network of --resume")
    parser.add_argument("--tta", choices=["1", "10", "multi"], default="1", help="with --eval, test-time augmentation: the central crop; "
                        "the paper's ten crops; ten crops at each of five scales")
    return parser.parse_args(argv)


def resolve_args(args: argparse.Namespace) -> dict[str, Any] | None:
    """Fill in what the command line does not set: from the checkpoint of --resume, else from DEFAULTS. Returns the checkpoint or None.

    Raises CheckpointError, FileNotFoundError or FileExistsError for a checkpoint or a folder that cannot be used.
    """
    checkpoint = None
    if args.resume:
        path, checkpoint = find_checkpoint(args)
        check_keys(path, checkpoint)
        for name, value in checkpoint["arguments"].items():
            given = getattr(args, name)
            if given is not None and given != value and name in ("arch", "init", "seed", "batch_size", "schedule", "max_images"):
                raise mc.CheckpointError(f"{path}: a run with {name} {value!r} cannot be resumed with {given!r}; "
                                         "start a new run, without --resume")
            setattr(args, name, value if given is None else given)
        args.out = args.out or path.parent
    elif args.eval:
        raise mc.CheckpointError("--eval evaluates a trained network: name it with --resume RUN")
    if args.tta != "1" and not args.eval:
        raise mc.CheckpointError("--tta is for evaluation: add --eval --resume RUN")
    args.arch = args.arch or "mini"
    for name, value in {**COMMON_DEFAULTS, **DEFAULTS.get(args.arch, DEFAULTS["others"])}.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.out is None:
        args.out = next(p for p in (pathlib.Path("runs") / f"{args.arch}-{i}" for i in range(1, 100000)) if not p.exists())
    resumes_here = checkpoint is not None and args.out.resolve() == path.parent.resolve()
    if not resumes_here and not args.eval and args.out.is_dir() and list_checkpoints(args.out):
        raise FileExistsError(f"{args.out} already holds a run; resume it (--resume {args.out}), or name another folder with --out")
    return checkpoint


def check_keys(path: pathlib.Path, checkpoint: dict[str, Any]) -> None:
    """Raise CheckpointError if this program did not write this checkpoint."""
    if not {*CHECKPOINT_KEYS} <= set(checkpoint) or set(checkpoint["arguments"]) != {*CONFIG_KEYS}:
        raise mc.CheckpointError(f"{path}: a checkpoint, but this program did not write it, or an older version of it did")


def find_checkpoint(args: argparse.Namespace) -> tuple[pathlib.Path, dict[str, Any]]:
    """(path, contents) of the checkpoint that --resume names: a file, the newest undamaged one of a run, or of the newest run."""
    path = pathlib.Path(args.resume)
    if args.resume == "auto":
        path = args.out or newest_run(pathlib.Path("runs"), args.arch)
    if not path.is_dir():
        return path, mc.load_checkpoint(path)
    path, checkpoint, damaged = load_latest(path)
    for reason in damaged:
        print(f"skipped: {reason}")
    print(f"resuming from {path}")
    return path, checkpoint


def newest_run(folder: pathlib.Path, arch: str | None) -> pathlib.Path:
    """The newest run in `folder`: <arch>-<number> with the largest number. CheckpointError if there is none."""
    names = os.listdir(folder) if folder.is_dir() else []
    numbered = [(int(match[2]), match[0]) for match in (re.fullmatch(r"(.+)-(\d+)", name) for name in names)
                if match and match[1] == (arch or match[1]) and list_checkpoints(folder / match[0])]
    if not numbered:
        raise mc.CheckpointError(f"--resume auto: no run with a checkpoint in {folder}/; name one, or start one without --resume")
    if len({name.rpartition("-")[0] for _, name in numbered}) > 1:
        raise mc.CheckpointError(f"--resume auto: runs of several networks are in {folder}/; choose one with --arch, or name the run")
    return folder / max(numbered)[1]


def choose_device(args: argparse.Namespace) -> None:
    """Set args.device, and the arithmetic of --tf32. "auto" chooses the GPU if there is one, else prints why there is none.

    Raises RuntimeError if the command line asks for a GPU and there is none.
    """
    reason = gpu_unavailable_reason() if args.device != "cpu" else None
    if args.device == "auto":
        if reason:
            print(f"training on the CPU ({reason.rpartition('. ')[0]})")
        args.device = "cpu" if reason else "gpu"
    elif reason:
        raise RuntimeError(reason)
    if args.tf32 and args.device == "cpu":
        raise RuntimeError("--tf32 is for a GPU; remove it to train on the CPU")
    cuda.allow_tf32(args.tf32)
    if device_number(args.device):          # a GPU that is not CuPy's default: temporary arrays must be allocated there too
        import cupy
        cupy.cuda.Device(device_number(args.device)).use()


class Data:
    """The images that a network is trained and validated with: data sets, transforms and loaders.

    Attributes:
        train, val: DataLoaders.
        validation, test_transform: the data set and the transform behind `val`.
        classes: their names.
        channels, side: of the network's input.
        pixels: {"mean", "std", "covariance"} of the training set.
        fingerprint: of the training set's files.

    The mean of the training set is subtracted from the pixels. The Kaiming init also needs unit variance; the Gaussians of the paper
    and of Caffe are made for pixels of 0 to 255. Photographs are augmented as in the paper: random crops, flips, PCA colour.
    """

    def __init__(self, args: argparse.Namespace, checkpoint: dict[str, Any] | None) -> None:
        training, self.validation = open_dataset(args.data)
        if args.max_images:
            training, self.validation = EvenSample(training, args.max_images), EvenSample(self.validation, args.max_images)
        self.classes = list(training.classes)
        self.fingerprint = training.fingerprint()
        readable = training if args.on_error == "raise" else SkipUnreadable(training)
        height, width, self.channels = readable[0][0].shape
        if checkpoint:
            check_same_data(checkpoint, args, self.classes, self.fingerprint)

        augmentation: list[Any] = []        # none for small grey images: digits and clothes all face one way
        crop: list[Any] = []
        small = training.in_memory and max(height, width) <= 64
        if small and args.arch != "mini":
            raise DataError(f"--arch {args.arch} needs photographs of at least {input_size(args.arch)} pixels, but the images of "
                            f"{args.data} have {height}; give --data DIR, or --arch mini")
        if small:
            self.side = height
            if self.channels == 3:
                augmentation = [RandomCrop(self.side, padding=4), RandomHorizontalFlip()]
        else:
            self.side = 64 if args.arch == "mini" else input_size(args.arch)
            shorter = shorter_side(self.side)           # the paper takes its crops of 224 from images of 256
            augmentation = [Resize(shorter), RandomCrop(self.side, within=shorter), RandomHorizontalFlip()]
            crop = [Resize(shorter), CenterCrop(self.side)]
        self.pixels = checkpoint["pixels"] if checkpoint else pixel_statistics(readable, covariance=not small)
        if not small and args.pca_std:
            augmentation.append(PCAColorJitter(self.pixels["covariance"], args.pca_std))
        normalize = Normalize(self.pixels["mean"], self.pixels["std"] if args.init == "kaiming" else 1.0)
        self.test_transform = Compose(*crop, normalize)
        options = {"device": args.device, "workers": args.workers, "on_error": args.on_error, "max_errors": args.max_errors}
        self.train = DataLoader(training, args.batch_size, Compose(*augmentation, normalize), shuffle=True, drop_last=True, **options)
        self.val = DataLoader(self.validation, args.batch_size, self.test_transform, **options)


class SkipUnreadable:
    """A data set in which an unreadable image is replaced by the next readable one: good enough for statistics."""

    def __init__(self, dataset: Any) -> None:
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


def pixel_statistics(dataset: Any, covariance: bool, max_images: int = 500) -> dict[str, Any]:
    """Mean, standard deviation and, for PCA colour, covariance of the pixels' channels, from at most `max_images` images."""
    mean, std = channel_statistics(dataset, max_images)
    return {"mean": mean, "std": std, "covariance": PCAColorJitter.fit(dataset, max_images).covariance if covariance else None}


def check_same_data(checkpoint: dict[str, Any], args: argparse.Namespace, classes: list[str], fingerprint: Any) -> None:
    """Raise CheckpointError if the data of --data are not those of the run to resume, by their classes and files (not by every pixel)."""
    if checkpoint["classes"] != classes:
        raise mc.CheckpointError(f"the run to resume has the classes {format_list(checkpoint['classes'], 4)}, "
                                 f"but {args.data} has {format_list(classes, 4)}")
    if not args.eval and checkpoint["fingerprint"] != fingerprint:
        raise mc.CheckpointError(f"images of {args.data} were added, removed or changed since the run to resume began; restore them, "
                                 "or start a new run, without --resume")


def build(args: argparse.Namespace, data: Data) -> tuple[mc.nn.Sequential, mc.optim.SGD, Any]:
    """The network, initialised and on its device, its optimiser and its learning rate schedule."""
    model = alexnet(args.arch, len(data.classes), data.channels, data.side)
    INITS[args.init](model)
    model.to(args.device)
    optimizer = mc.optim.SGD(model.parameters(), args.lr, args.momentum, args.weight_decay)
    if args.schedule == "linear":
        return model, optimizer, mc.optim.LinearLR(optimizer, args.epochs * len(data.train))
    # The paper's: a tenth when the validation error stops improving. The error is in percent, so its threshold is absolute.
    return model, optimizer, mc.optim.ReduceLROnPlateau(optimizer, patience=3, threshold_mode="abs")


def restore(checkpoint: dict[str, Any], args: argparse.Namespace, model: mc.nn.Module, optimizer: mc.optim.SGD, schedule: Any) -> None:
    """Load the state of network, optimiser, schedule and random numbers; then apply the settings that the command line changes."""
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    for group in optimizer.param_groups:
        group.update(lr=group["lr"] * (args.lr / checkpoint["arguments"]["lr"]), momentum=args.momentum, weight_decay=args.weight_decay)
    schedule.load_state_dict(checkpoint["schedule"])
    mc.random.set_state(checkpoint["random"])


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Open the run in this folder: a minicnn.train.Run with its network, on the CPU, data, log and newest undamaged checkpoint.

    Raises FileNotFoundError if there is no such folder, CheckpointError if it has no undamaged checkpoint or one of another program,
    and DataError if its data were moved.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; name the folder of a run, for instance runs/mini-1")
    path, checkpoint, damaged = load_latest(folder)
    for reason in damaged:
        print(f"skipped: {reason}")
    check_keys(path, checkpoint)
    args = argparse.Namespace(**checkpoint["arguments"], device="cpu", workers=0, on_error="skip", max_errors=10 ** 9, eval=True)
    data = Data(args, checkpoint)
    model = alexnet(args.arch, len(data.classes), data.channels, data.side)
    model.load_state_dict(checkpoint["model"])
    optimizer = mc.optim.SGD(model.parameters(), args.lr, args.momentum, args.weight_decay)
    optimizer.load_state_dict(checkpoint["optimizer"])
    log = folder / "log.jsonl"
    return Run(folder, model.eval(), data, checkpoint, read_log(log) if log.exists() else [], optimizer)


# ---- types of arguments
