"""Train AlexNet: one loop, read from top to bottom.

    python examples/train_alexnet.py                                    # mini, on the Fashion-MNIST that comes with minicnn
    python examples/train_alexnet.py --arch one-tower --data DIR        # DIR/train/<class>/*.jpg, DIR/val/<class>/*.jpg, ImageNet, ...
    python examples/train_alexnet.py --resume runs/mini-1               # go on, bit for bit
    python examples/train_alexnet.py --resume runs/mini-1 --eval        # only test it; --views 10: the paper's way
    python examples/train_alexnet.py --device gpu --tf32                # on an NVIDIA GPU, products on its tensor cores

A run leaves in its folder (runs/<arch>-<number>, or --out): checkpoint-<step>.npz, log.jsonl, curves.png, filters.png, and report.html:
every layer's forward and backward, step by step through the training.
What the command line means, and what the network is trained on, is in recipe.py.
"""

import contextlib
import math
import platform
import sys
import time
from typing import Any

import numpy as np
from alexnet import alexnet
from recipe import RECIPE, Data, choose_device, complete, parse
from tqdm import tqdm

import minicnn as mc
from minicnn import gpu
from minicnn.backend import xp_of
from minicnn.data import DataError
from minicnn.data.views import predict
from minicnn.keeper import Keeper, StopRequest, only_run_in
from minicnn.parallel import threads
from minicnn.study import figures, report
from minicnn.study.anomaly import detect_anomaly
from minicnn.study.health import Health
from minicnn.study.log import Diverged, RunLog, read_log
from minicnn.study.run import Run


def train(args, checkpoint):
    mc.seed(args.seed)
    data = Data(args, checkpoint)
    model = alexnet(args.arch, len(data.classes), data.channels, data.side)
    getattr(mc.init, args.init)(model)
    model.to(args.device)
    optimizer = mc.optim.SGD(model.parameters(), args.lr, args.momentum, args.weight_decay)
    steps_per_epoch = len(data.train)
    schedule: Any = (mc.optim.LinearDecay(optimizer, args.epochs * steps_per_epoch) if args.schedule == "linear"
                     else mc.optim.ReduceLROnPlateau(optimizer, patience=3))        # the paper's: / 10 when the error stalls
    keeper = Keeper(args.out, args.save_steps, 60 * args.save_minutes, args.keep)
    step = validated = 0                # how many steps are done, and after how many of them was validated last
    if checkpoint:
        step, validated, keeper.best = checkpoint["step"], checkpoint["validated"], checkpoint["best"]
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        for group in optimizer.groups:                  # what this command line changes holds from here on
            group.update(lr=group["lr"] * (args.lr / checkpoint["arguments"]["lr"]), momentum=args.momentum,
                         weight_decay=args.weight_decay)
        schedule.load_state_dict(checkpoint["schedule"])
        mc.random.set_state(checkpoint["random"])
    if args.eval:
        return test(model, data, args)

    about = {"arguments": {name: getattr(args, name) for name in RECIPE},
             "versions": {"minicnn": mc.__version__, "numpy": np.__version__, "python": platform.python_version(),
                          "device": args.device, "threads": threads()}}

    def save(score=None):
        keeper.save(step, score, model=model.state_dict(), optimizer=optimizer.state_dict(), schedule=schedule.state_dict(),
                    random=mc.random.state(), validated=validated, classes=data.classes, pixels=data.pixels, fingerprint=data.fingerprint,
                    **about)

    last_step = min(args.epochs * steps_per_epoch, args.steps or sys.maxsize)
    if step >= last_step and validated == step:
        print(f"{args.out}: {step} of {last_step} steps are done already; give more --epochs or --steps to go on")
        return evaluate(model, data.val)
    album = report.Album(Run(args.out, model, data, about, [], optimizer)) if args.report else None
    args.out.mkdir(parents=True, exist_ok=True)
    with (only_run_in(args.out), out_of_memory_explained(model, (data.channels, data.side, data.side), args), StopRequest() as stop,
          tqdm(total=last_step * args.batch_size, initial=step * args.batch_size, unit=" images", dynamic_ncols=True) as bar,
          RunLog(args.out / "log.jsonl", bar, args.device, step) as log,
          Health(model, optimizer, len(data.classes)) as health, last_words(health, log, album),
          detect_anomaly(model) if args.detect_anomaly else contextlib.nullcontext()):
        for path in keeper.begin(step):
            log.say(f"of an earlier life of this run, and no part of it any more: {path}")
        if album:
            with pictures():
                album.begin(step)
        while True:
            if step > validated and (step % steps_per_epoch == 0 or step == last_step):
                log.read()
                result = evaluate(model, data.val)
                if args.schedule == "plateau" and step % steps_per_epoch == 0:      # after a whole epoch, not one cut short
                    schedule.step(100 - result["top1"])
                log.val(step, result)
                validated = step
                save(score=result["top1"])
            if step == last_step:
                break

            epoch, done = divmod(step, steps_per_epoch)
            bar.set_description(f"epoch {epoch + 1}/{args.epochs}")
            model.train()
            for images, labels in data.train.epoch(epoch, start=done):
                logits = model(mc.Tensor(images))
                loss = mc.ops.cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                for finding in health.step(step + 1, loss):
                    log.finding(finding)
                optimizer.step()
                if args.schedule == "linear":
                    schedule.step()

                step += 1
                log.train(step, loss.data, right(logits.data, labels).mean(), optimizer.groups[0]["lr"], len(labels))
                if album and (album.due(step) or step == last_step):
                    with pictures():
                        album.take(step)
                if stop.signal or keeper.due(step):
                    log.read()                          # what is no number any more is not worth keeping
                    save()
                if stop.signal:
                    raise Stopped(stop.signal, step)
                if step == last_step:
                    break
    draw(model, args)
    if album:
        with pictures():
            print(f"{album.write(step)}: every layer, forward and backward; open it in a browser")
    for bad in (data.train.bad, data.val.bad):
        for reason in bad.values():
            print(f"left out: {reason}")
    return result


def right(scores, labels):
    """For each row of scores (N, classes), whether the best is the right one; on the device where the scores are."""
    return scores.argmax(axis=1) == xp_of(scores).asarray(labels)


def evaluate(model, loader):
    """What `measured` says of the model's answers to a data set."""
    model.eval()
    with mc.no_grad():
        answers = [(mc.ops.softmax(model(mc.Tensor(images))).numpy(), labels) for images, labels in loader]
    return measured(*map(np.concatenate, zip(*answers, strict=True)))


def measured(probabilities, labels):
    """Mean loss, and top-1 and top-5 accuracy in percent, of probabilities (N, classes)."""
    N = len(labels)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    tiny = np.finfo(probabilities.dtype).tiny
    return {"loss": float(-np.log(np.maximum(probabilities[np.arange(N), labels], tiny)).mean()),
            "top1": 100 * float((best[:, 0] == labels).mean()),
            "top5": 100 * float((best == labels[:, None]).any(axis=1).mean()), "images": N}


def test(model, data, args):
    """The test that the paper does: the errors, averaged over several looks at each image, and for few classes who is taken for whom."""
    probabilities, labels = predict(model, data.validation, data.test_transform, args.views, workers=args.workers)
    result = measured(probabilities, labels)
    print(f"views {args.views}: top-1 error {100 - result['top1']:.2f} %, top-5 error {100 - result['top5']:.2f} %")
    if len(data.classes) <= 20:
        with pictures():
            figures.confusion(probabilities.argmax(axis=1), labels, data.classes, args.out / "confusion.png")
            print(f"who is taken for whom: {args.out / 'confusion.png'}")
    return result


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
        # A fifth is left for what is in between, and for pieces too small to be used.
        fits = min(args.batch_size - 1, int(0.8 * room / (2 * total.saved_bytes + 8 * math.prod(input_shape))))
        advice = f"about {fits} would fit: try --batch-size {fits}" if fits > 0 else "no batch would fit; use a smaller network (--arch)"
        raise MemoryError(f"{what} on the GPU: {now['used'] / 1e9:.2f} GB are in use by arrays, {now['kept'] / 1e9:.2f} GB kept for reuse, "
                          f"{now['free'] / 1e9:.2f} GB free of {now['total'] / 1e9:.2f} GB; {advice}") from error


@contextlib.contextmanager
def last_words(health, log, album):
    """When the run ends because its loss is no number, what `health` sees is said first, and shown."""
    try:
        yield
    except Diverged as error:
        for finding in health.look():
            log.finding(finding)
        if album:
            with pictures():
                album.take(error.args[1])
                log.say(f"{album.write(error.args[1])}: what every layer did before and then; open it in a browser")
        raise


class Stopped(Exception):
    """A signal (first argument) asked for an end, which came after this step (second)."""


@contextlib.contextmanager
def pictures():
    """Inside, pictures are drawn, as far as matplotlib is there and the disk takes them; no run ends for want of a picture."""
    try:
        yield
    except (ImportError, OSError) as error:
        print(f"no picture: {error}", file=sys.stderr)


def draw(model, args):
    """The run's pictures."""
    with pictures():
        figures.training_curves(read_log(args.out / "log.jsonl"), args.out / "curves.png", f"AlexNet {args.arch} on {args.data}")
        figures.filters(model.conv1.weight.numpy(), args.out / "filters.png")
        print(f"see {args.out}/curves.png and {args.out}/filters.png")


def main(argv=None):
    """Exit code 0: done. 1: the loss diverged. 2: something is wrong with the arguments, the data, the checkpoint or the device.
    3: stopped by Ctrl-C or SIGTERM, and saved."""
    args = parse(argv, __doc__.splitlines()[0])
    try:
        checkpoint = complete(args)
        choose_device(args)
        began = time.perf_counter()
        with np.errstate(over="ignore", invalid="ignore"):          # a loss that explodes is noticed by its value
            result = train(args, checkpoint)
    except Diverged as error:
        loss, step = error.args
        print(f"error: the loss is {loss} at step {step}. Try a smaller --lr (it was {args.lr}), or --init he. "
              f"The checkpoints so far, if there are any, are in {args.out}", file=sys.stderr)
        return 1
    except Stopped as error:
        name, step = error.args
        print(f"stopped by {name} after step {step}; go on with --resume {args.out}", file=sys.stderr)
        return 3
    except (DataError, mc.CheckpointError, OSError, ValueError, RuntimeError, MemoryError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"validation: top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} % of {result['images']} images, loss {result['loss']:.4f}")
    if not args.eval:
        print(f"{time.perf_counter() - began:.0f} s; go on with --resume {args.out}, longer with --epochs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
