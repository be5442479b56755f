"""Train AlexNet: one loop, read from top to bottom.

    python examples/train_alexnet.py                                    # mini, on the Fashion-MNIST that comes with minicnn
    python examples/train_alexnet.py --arch one-tower --data photos     # photos/train/<class>/*.jpg, photos/val/<class>/*.jpg
    python examples/train_alexnet.py --resume runs/mini-1               # go on, bit for bit
    python examples/train_alexnet.py --resume runs/mini-1 --eval        # only test it

A run leaves in its folder (runs/<arch>-<number>, or --out): checkpoint.npz, log.jsonl, curves.png, filters.png.
"""

import argparse
import json
import math
import pathlib
import sys
import time
from typing import Any

import numpy as np
from alexnet import VARIANTS, alexnet, input_size
from tqdm import tqdm

import minicnn as mc
from minicnn.backend import gpu_problem
from minicnn.data import DataError, DataLoader, FashionMNIST, ImageFolder
from minicnn.data.transforms import CenterCrop, Compose, Normalize, RandomCrop, RandomMirror, Resize, channel_statistics
from minicnn.study import figures

# What each network is trained with unless the command line says otherwise. The paper's own values are --init paper --lr 0.01
# --weight-decay 0.0005 --batch-size 128 --epochs 90; the README tells what that init asks for.
DEFAULTS: dict[str, dict] = {
    "mini": {"init": "he", "lr": 0.02, "weight_decay": 0.001, "batch_size": 32, "epochs": 11, "schedule": "linear"},
    "others": {"init": "he", "lr": 0.005, "weight_decay": 0.0005, "batch_size": 128, "epochs": 90, "schedule": "plateau"},
}

# What makes a run what it is; kept in the checkpoint, and taken from there by --resume. And all that a checkpoint has.
RECIPE = ("arch", "data", "epochs", "batch_size", "lr", "schedule", "momentum", "weight_decay", "init", "seed")
CONTENTS = ("model", "optimizer", "schedule", "random", "step", "classes", "steps_per_epoch", "arguments")


def train(args, checkpoint):
    mc.seed(args.seed)
    device = args.device
    train_loader, val_loader, classes, channels, side = load_data(args)
    if checkpoint:
        check_same_data(checkpoint, args, classes, len(train_loader))
    model = alexnet(args.arch, len(classes), channels, side)
    getattr(mc.init, args.init)(model)
    model.to(device)
    optimizer = mc.optim.SGD(model.parameters(), args.lr, args.momentum, args.weight_decay)
    schedule: Any = (mc.optim.LinearDecay(optimizer, args.epochs * len(train_loader)) if args.schedule == "linear"
                     else mc.optim.ReduceLROnPlateau(optimizer, patience=3))        # the paper's: / 10 when the error stalls
    step = 0
    if checkpoint:
        step = checkpoint["step"]
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        for group in optimizer.groups:                  # what this command line changes holds from here on
            group.update(lr=group["lr"] * (args.lr / checkpoint["arguments"]["lr"]), momentum=args.momentum,
                         weight_decay=args.weight_decay)
        schedule.load_state_dict(checkpoint["schedule"])
        mc.random.set_state(checkpoint["random"])
    if args.eval:
        return evaluate(model, val_loader, device)

    def save():
        mc.save_checkpoint(args.out / "checkpoint.npz", model=model.state_dict(), optimizer=optimizer.state_dict(),
                           schedule=schedule.state_dict(), random=mc.random.state(), step=step,
                           classes=list(classes), steps_per_epoch=len(train_loader),
                           arguments={name: getattr(args, name) for name in RECIPE})

    last_step = min(args.epochs * len(train_loader), args.steps or sys.maxsize)
    if step >= last_step:
        print(f"{args.out}: {step} of {last_step} steps are done already; give more --epochs or --steps to go on")
        return evaluate(model, val_loader, device)
    args.out.mkdir(parents=True, exist_ok=True)
    with (Log(args.out / "log.jsonl", resumed_at=step if checkpoint else None) as log,
          tqdm(total=last_step * args.batch_size, initial=step * args.batch_size, unit=" images", dynamic_ncols=True) as bar):
        while step < last_step:
            epoch, done = divmod(step, len(train_loader))
            bar.set_description(f"epoch {epoch + 1}/{args.epochs}")
            model.train()
            for images, labels in train_loader.epoch(epoch, start=done):
                logits = model(mc.Tensor(images, device=device))
                loss = mc.ops.cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if args.schedule == "linear":
                    schedule.step()

                step += 1
                top1 = 100 * np.mean(logits.numpy().argmax(axis=1) == labels)
                log.train(step, loss.item(), top1, optimizer.groups[0]["lr"], len(labels), bar)
                if not math.isfinite(loss.item()):
                    raise Diverged(f"the loss is {loss.item()} at step {step}. Try a smaller --lr (it was {args.lr}), or --init he. "
                                   f"The checkpoint of the last whole epoch, if there is one, is in {args.out}")
                if step == last_step:
                    break
            result = evaluate(model, val_loader, device)
            if args.schedule == "plateau" and step % len(train_loader) == 0:        # after a whole epoch, not one cut short
                schedule.step(100 - result["top1"])
            log.val(step, result, bar)
            save()
    draw(model, args)
    return result


def evaluate(model, loader, device):
    """Mean loss, and top-1 and top-5 accuracy in percent, over a data set."""
    model.eval()
    loss, top1, top5, count = 0.0, 0, 0, 0
    with mc.no_grad():
        for images, labels in loader:
            logits = model(mc.Tensor(images, device=device))
            loss += mc.ops.cross_entropy(logits, labels).item() * len(labels)
            best = np.argsort(-logits.numpy(), axis=1, kind="stable")[:, :5]
            top1 += int((best[:, 0] == labels).sum())
            top5 += int((best == labels[:, None]).sum())
            count += len(labels)
    return {"loss": loss / count, "top1": 100 * top1 / count, "top5": 100 * top5 / count, "images": count}


def load_data(args):
    """Loaders for training and validation, the class names, the channels and the side of the input.

    Pixels are centred on the mean of the training set. He's init also wants unit variance; the Gaussians of the paper and of
    Caffe are made for pixels as they are, 0 to 255.
    """
    if args.data == "fashion-mnist":
        if args.arch != "mini":
            raise DataError(f"--arch {args.arch} is for photographs of {input_size(args.arch)} pixels, and Fashion-MNIST has 28; "
                            "give --data DIR")
        train: Any = FashionMNIST("train")
        val: Any = FashionMNIST("test")
        side, channels = 28, 1
        augment: list = []           # mirrored shoes point the wrong way here: no augmentation
        centre: list = []
    else:
        train = ImageFolder(pathlib.Path(args.data) / "train")
        val = ImageFolder(pathlib.Path(args.data) / "val", classes=train.classes)
        side, channels = (64 if args.arch == "mini" else input_size(args.arch)), 3
        shorter = round(side * 256 / 224)               # the paper cuts its crops out of images of 256
        augment, centre = [Resize(shorter), RandomCrop(side), RandomMirror()], [Resize(shorter), CenterCrop(side)]
    mean, std = channel_statistics(train, most=500)
    scale = Normalize(mean, std if args.init == "he" else 1.0)
    train_loader = DataLoader(train, args.batch_size, Compose(*augment, scale), shuffle=True, drop_last=True)
    return train_loader, DataLoader(val, 200, Compose(*centre, scale)), train.classes, channels, side


class Log:
    """The run's numbers, as JSON lines in a file and as words beside the progress bar."""

    def __init__(self, path, resumed_at):
        if path.exists() and path.read_bytes()[-1:] not in (b"", b"\n"):
            with open(path, "a", encoding="utf-8") as cut_short:       # by a crash: the next record gets a line of its own
                cut_short.write("\n")
        self.file = open(path, "a", encoding="utf-8", buffering=1)      # noqa: SIM115 (a line is written when it is complete)
        self.loss = self.top1 = None
        self.start = time.perf_counter()
        if resumed_at is not None:
            self.write("resume", resumed_at)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()

    def write(self, kind, step, **numbers):
        seconds = round(time.perf_counter() - self.start, 3)
        self.file.write(json.dumps({"kind": kind, "step": step, "seconds": seconds, **numbers}) + "\n")

    def train(self, step, loss, top1, lr, images, bar):
        self.write("train", step, loss=loss if math.isfinite(loss) else None, top1=top1, lr=lr)
        self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        self.top1 = top1 if self.top1 is None else 0.95 * self.top1 + 0.05 * top1
        bar.set_postfix_str(f"loss {self.loss:.3f}, top-1 {self.top1:.1f} %", refresh=False)
        bar.update(images)

    def val(self, step, result, bar):
        self.write("val", step, **result)
        bar.write(f"step {step}: validation loss {result['loss']:.4f}, top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} %")


class Diverged(Exception):
    """The loss is no longer a number."""


def draw(model, args):
    """The run's pictures, if matplotlib is there."""
    try:
        figures.training_curves(figures.read_log(args.out / "log.jsonl"), args.out / "curves.png", f"AlexNet {args.arch} on {args.data}")
        figures.filters(model.conv1.weight.numpy(), args.out / "filters.png")
    except ImportError as error:
        print(error, file=sys.stderr)


def check_same_data(checkpoint, args, classes, steps_per_epoch):
    """The data of this command line are those of the run to go on with, as far as it shows."""
    if checkpoint["classes"] != list(classes):
        raise mc.CheckpointError(f"the run to go on with knows the classes {shown(checkpoint['classes'])}, "
                                 f"but {args.data} has {shown(classes)}")
    if not args.eval and checkpoint["steps_per_epoch"] != steps_per_epoch:
        raise mc.CheckpointError(f"the run to go on with had {checkpoint['steps_per_epoch']} steps in an epoch, but {args.data} now "
                                 f"gives {steps_per_epoch}; images came or went. Start a new run, without --resume")


def shown(classes):
    """The first few names of a list of classes."""
    return ", ".join(classes[:4]) + (f", ... ({len(classes)})" if len(classes) > 4 else "")


def parse(argv):
    parser = argparse.ArgumentParser(description="Train AlexNet with minicnn.")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "gpu"], help="auto: the GPU if there is one")
    parser.add_argument("--arch", choices=list(VARIANTS), help="which network (default: mini)")
    parser.add_argument("--data", help="fashion-mnist (the default), or a folder with train/<class>/* and val/<class>/*")
    parser.add_argument("--epochs", type=positive_int, help="default: 11 for mini, else 90")
    parser.add_argument("--steps", type=positive_int, help="stop after this many steps in all")
    parser.add_argument("--batch-size", type=positive_int, help="default: 32 for mini, else 128")
    parser.add_argument("--lr", type=positive_float, help="learning rate (default: 0.02 for mini, else 0.005)")
    parser.add_argument("--schedule", choices=["linear", "plateau"], help="how the rate falls: in a straight line to 0 (default for mini), "
                        "or to a tenth when validation stalls, the paper's way (default for the others)")
    parser.add_argument("--momentum", type=float, help="default: 0.9")
    parser.add_argument("--weight-decay", type=float, help="default: 0.001 for mini, else 0.0005")
    parser.add_argument("--init", choices=["he", "paper", "caffe"], help="first weights (default: he)")
    parser.add_argument("--seed", type=int, help="of weights, order, crops and dropout (default: 0)")
    parser.add_argument("--resume", type=pathlib.Path, help="a run's folder, or its checkpoint: go on with it")
    parser.add_argument("--out", type=pathlib.Path, help="folder for what the run writes (default: runs/<arch>-<number>)")
    parser.add_argument("--eval", action="store_true", help="only test the network of --resume")
    return parser.parse_args(argv)


def complete(args):
    """Fill in what the command line left open: from the checkpoint of --resume, else from DEFAULTS. Returns the checkpoint or None."""
    checkpoint = None
    if args.resume:
        path = args.resume / "checkpoint.npz" if args.resume.is_dir() else args.resume
        checkpoint = mc.load_checkpoint(path)
        if not {*CONTENTS} <= set(checkpoint) or set(checkpoint["arguments"]) != {*RECIPE}:
            raise mc.CheckpointError(f"{path}: a checkpoint, but not one that this program wrote")
        for name, value in checkpoint["arguments"].items():
            given = getattr(args, name)
            if given is not None and given != value and name in ("arch", "init", "seed", "batch_size", "schedule"):
                raise mc.CheckpointError(f"{path}: a run with {name} {value!r} cannot go on with {given!r}; "
                                         "start a new run, without --resume")
            setattr(args, name, value if given is None else given)
        args.out = args.out or path.parent
    elif args.eval:
        raise mc.CheckpointError("--eval tests a trained network: name it with --resume RUN")
    args.arch = args.arch or "mini"
    defaults = {"data": "fashion-mnist", "momentum": 0.9, "seed": 0,
                **DEFAULTS.get(args.arch, DEFAULTS["others"])}
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.out is None:
        args.out = next(p for p in (pathlib.Path("runs") / f"{args.arch}-{i}" for i in range(1, 100000)) if not p.exists())
    going_on = checkpoint is not None and args.out.resolve() == path.parent.resolve()
    if not going_on and not args.eval and any((args.out / name).exists() for name in ("log.jsonl", "checkpoint.npz")):
        raise FileExistsError(f"{args.out} holds a run already; go on with it (--resume {args.out}), or name another folder with --out")
    return checkpoint


def choose_device(name):
    """"cpu" or "gpu"; auto takes the GPU where there is one, and says why not."""
    problem = gpu_problem()
    if name == "gpu" and problem:
        raise RuntimeError(problem)
    if name == "auto" and problem:
        print(f"training on the CPU ({problem.partition('.')[0]})")
    return "cpu" if name == "cpu" or problem else "gpu"


def positive_int(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return int(text)


def positive_float(text):
    if not (float(text) > 0 and math.isfinite(float(text))):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return float(text)


def main(argv=None):
    """Exit code 0: done. 1: the loss diverged. 2: something is wrong with the arguments, the data, the checkpoint or the device."""
    args = parse(argv)
    try:
        checkpoint = complete(args)
        args.device = choose_device(args.device)
        began = time.perf_counter()
        with np.errstate(over="ignore", invalid="ignore"):          # a loss that explodes is noticed by its value
            result = train(args, checkpoint)
    except Diverged as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (DataError, mc.CheckpointError, OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"validation: top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} % of {result['images']} images, loss {result['loss']:.4f}")
    if not args.eval:
        print(f"{time.perf_counter() - began:.0f} s; see {args.out}/curves.png and {args.out}/filters.png; "
              f"go on with --resume {args.out}, longer with --epochs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
