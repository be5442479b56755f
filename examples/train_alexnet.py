"""Train AlexNet: one loop, read from top to bottom.

    python examples/train_alexnet.py                                    # mini, on the Fashion-MNIST that comes with minicnn
    python examples/train_alexnet.py --arch one-tower --data photos     # photos/train/<class>/*.jpg, photos/val/<class>/*.jpg
    python examples/train_alexnet.py --resume runs/mini-1               # go on, bit for bit
    python examples/train_alexnet.py --resume runs/mini-1 --eval        # only test it
    python examples/train_alexnet.py --device gpu --tf32                # on an NVIDIA GPU, products on its tensor cores

A run leaves in its folder (runs/<arch>-<number>, or --out): checkpoint.npz, log.jsonl, curves.png, filters.png.
"""

import argparse
import contextlib
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
from minicnn import gpu
from minicnn.backend import device_number, gpu_problem, to_device, xp_of
from minicnn.data import DataError, DataLoader, FashionMNIST, ImageFolder, Subset
from minicnn.data.transforms import CenterCrop, Compose, Normalize, RandomCrop, RandomMirror, Resize, channel_statistics
from minicnn.study import figures

# What each network is trained with unless the command line says otherwise. The paper's own values are --init paper --lr 0.01
# --weight-decay 0.0005 --batch-size 128 --epochs 90; the README tells what that init asks for.
DEFAULTS: dict[str, dict] = {
    "mini": {"init": "he", "lr": 0.02, "weight_decay": 0.001, "batch_size": 32, "epochs": 11, "schedule": "linear"},
    "others": {"init": "he", "lr": 0.005, "weight_decay": 0.0005, "batch_size": 128, "epochs": 90, "schedule": "plateau"},
}

# What makes a run what it is; kept in the checkpoint, and taken from there by --resume. And all that a checkpoint has.
RECIPE = ("arch", "data", "epochs", "batch_size", "lr", "schedule", "momentum", "weight_decay", "init", "seed", "limit")
CONTENTS = ("model", "optimizer", "schedule", "random", "step", "classes", "steps_per_epoch", "arguments")


def train(args, checkpoint):
    mc.seed(args.seed)
    train_loader, val_loader, classes, channels, side = load_data(args)
    if checkpoint:
        check_same_data(checkpoint, args, classes, len(train_loader))
    model = alexnet(args.arch, len(classes), channels, side)
    getattr(mc.init, args.init)(model)
    model.to(args.device)
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
        return evaluate(model, val_loader)

    def save():
        mc.save_checkpoint(args.out / "checkpoint.npz", model=model.state_dict(), optimizer=optimizer.state_dict(),
                           schedule=schedule.state_dict(), random=mc.random.state(), step=step,
                           classes=list(classes), steps_per_epoch=len(train_loader),
                           arguments={name: getattr(args, name) for name in RECIPE})

    last_step = min(args.epochs * len(train_loader), args.steps or sys.maxsize)
    if step >= last_step:
        print(f"{args.out}: {step} of {last_step} steps are done already; give more --epochs or --steps to go on")
        return evaluate(model, val_loader)
    args.out.mkdir(parents=True, exist_ok=True)
    with (out_of_memory_explained(model, (channels, side, side), args),
          tqdm(total=last_step * args.batch_size, initial=step * args.batch_size, unit=" images", dynamic_ncols=True) as bar,
          Log(args.out / "log.jsonl", bar, args.device, resumed_at=step if checkpoint else None) as log):
        while step < last_step:
            epoch, done = divmod(step, len(train_loader))
            bar.set_description(f"epoch {epoch + 1}/{args.epochs}")
            model.train()
            for images, labels in train_loader.epoch(epoch, start=done):
                logits = model(mc.Tensor(images))
                loss = mc.ops.cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if args.schedule == "linear":
                    schedule.step()

                step += 1
                log.train(step, loss.data, right(logits.data, labels).mean(), optimizer.groups[0]["lr"], len(labels))
                if step == last_step:
                    break
            log.read()
            result = evaluate(model, val_loader)
            if args.schedule == "plateau" and step % len(train_loader) == 0:        # after a whole epoch, not one cut short
                schedule.step(100 - result["top1"])
            log.val(step, result)
            save()
    draw(model, args)
    return result


def right(scores, labels):
    """For each row of scores (N, classes), whether the best is the right one; on the device where the scores are."""
    return scores.argmax(axis=1) == xp_of(scores).asarray(labels)


def evaluate(model, loader):
    """Mean loss, and top-1 and top-5 accuracy in percent, over a data set."""
    model.eval()
    loss, top1, top5, count = 0.0, 0, 0, 0
    with mc.no_grad():
        for images, labels in loader:
            logits = model(mc.Tensor(images))
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
    if args.limit:
        train, val = Subset(train, args.limit), Subset(val, args.limit)
    mean, std = channel_statistics(train, most=500)
    scale = Normalize(mean, std if args.init == "he" else 1.0)
    train_loader = DataLoader(train, args.batch_size, Compose(*augment, scale), shuffle=True, drop_last=True, device=args.device)
    val_loader = DataLoader(val, 200, Compose(*centre, scale), device=args.device)
    return train_loader, val_loader, train.classes, channels, side


class Log:
    """The run's numbers, as JSON lines in a file and as words beside the progress bar.

    A GPU works behind the back of Python, which goes on to the next step at once; looking at a loss would mean to wait for it. So there
    the losses of 20 steps are left where they are, and read together.
    """

    def __init__(self, path, bar, device, resumed_at):
        if path.exists() and path.read_bytes()[-1:] not in (b"", b"\n"):
            with open(path, "a", encoding="utf-8") as cut_short:       # by a crash: the next record gets a line of its own
                cut_short.write("\n")
        self.file = open(path, "a", encoding="utf-8", buffering=1)      # noqa: SIM115 (a line is written when it is complete)
        self.bar, self.read_every = bar, 1 if device == "cpu" else 20
        self.unread: list = []
        self.loss = self.top1 = None
        self.start = time.perf_counter()
        if resumed_at is not None:
            self.write("resume", resumed_at)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(Exception):        # what ended the run is the news, not that its last losses cannot be read
            self.read()
        self.file.close()

    def write(self, kind, step, **numbers):
        seconds = round(time.perf_counter() - self.start, 3)
        self.file.write(json.dumps({"kind": kind, "step": step, "seconds": seconds, **numbers}) + "\n")

    def train(self, step, loss, top1, lr, images):
        """Note a step; `loss` and `top1` (a fraction) are arrays of one number, on either device."""
        self.unread.append((step, loss, top1, lr, images))
        if len(self.unread) == self.read_every:
            self.read()

    def read(self):
        """Write down the steps noted since the last time; raises Diverged at a loss that is no longer a number."""
        unread, self.unread = self.unread, []
        if not unread:
            return
        xp = xp_of(unread[0][1])
        losses, top1s = (to_device(xp.stack([xp.asarray(row[i]) for row in unread]), "cpu").tolist() for i in (1, 2))
        for (step, _, _, lr, images), loss, top1 in zip(unread, losses, top1s, strict=True):
            self.write("train", step, loss=loss if math.isfinite(loss) else None, top1=100 * top1, lr=lr)
            if not math.isfinite(loss):
                raise Diverged(loss, step)
            self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
            self.top1 = 100 * top1 if self.top1 is None else 0.95 * self.top1 + 0.05 * 100 * top1
            self.bar.set_postfix_str(f"loss {self.loss:.3f}, top-1 {self.top1:.1f} %", refresh=False)
            self.bar.update(images)

    def val(self, step, result):
        self.write("val", step, **result)
        self.bar.write(f"step {step}: validation loss {result['loss']:.4f}, top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} %")


class Diverged(Exception):
    """The loss (first argument) is no longer a number at this step (second)."""


@contextlib.contextmanager
def out_of_memory_explained(model, input_shape, args):
    """An error inside that says there is no memory left becomes one that says what would fit."""
    try:
        yield
    except MemoryError as error:
        what = f"not enough memory for a batch of {args.batch_size} images of {'x'.join(map(str, input_shape))}"
        if not gpu.is_out_of_memory(error):
            raise MemoryError(f"{what}; try --batch-size {max(1, args.batch_size // 2)}") from error
        now, total = gpu.memory(), mc.summary(model.to("cpu"), input_shape).total
        # Weights, gradients and velocities; the workspace; and of each image what forward saves, and as much again in backward.
        fixed = 3 * 4 * total.parameters + gpu.WORKSPACE_BYTES
        room = now["used"] + now["kept"] + now["free"] - fixed
        fits = min(args.batch_size - 1, int(room / (2 * total.saved_bytes + 8 * math.prod(input_shape))))
        advice = f"about {fits} would fit: try --batch-size {fits}" if fits > 0 else "no batch would fit; use a smaller network (--arch)"
        raise MemoryError(f"{what} on the GPU: {now['used'] / 1e9:.2f} GB are in use by arrays, {now['kept'] / 1e9:.2f} GB kept for reuse, "
                          f"{now['free'] / 1e9:.2f} GB free of {now['total'] / 1e9:.2f} GB; {advice}") from error


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
    parser.add_argument("--device", default="auto", type=device, help="cpu, gpu (gpu:1 for the second), or auto: the GPU if there is one")
    parser.add_argument("--tf32", action="store_true", help="on a GPU with tensor cores: products rounded to TF32, several times as fast")
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
    parser.add_argument("--limit", type=positive_int, help="for a quick look: only so many images of each set, evenly spread")
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


def choose_device(args):
    """The device to train on; auto takes the GPU where there is one, and says why not."""
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


def main(argv=None):
    """Exit code 0: done. 1: the loss diverged. 2: something is wrong with the arguments, the data, the checkpoint or the device."""
    args = parse(argv)
    try:
        checkpoint = complete(args)
        choose_device(args)
        began = time.perf_counter()
        with np.errstate(over="ignore", invalid="ignore"):          # a loss that explodes is noticed by its value
            result = train(args, checkpoint)
    except Diverged as error:
        loss, step = error.args
        print(f"error: the loss is {loss} at step {step}. Try a smaller --lr (it was {args.lr}), or --init he. "
              f"The checkpoint of the last whole epoch, if there is one, is in {args.out}", file=sys.stderr)
        return 1
    except (DataError, mc.CheckpointError, OSError, ValueError, RuntimeError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"validation: top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} % of {result['images']} images, loss {result['loss']:.4f}")
    if not args.eval:
        print(f"{time.perf_counter() - began:.0f} s; see {args.out}/curves.png and {args.out}/filters.png; "
              f"go on with --resume {args.out}, longer with --epochs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
