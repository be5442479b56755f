"""Train AlexNet: one loop, read from top to bottom.

    python examples/train_alexnet.py                                    # mini, on the Fashion-MNIST that comes with minicnn
    python examples/train_alexnet.py --arch one-tower --data DIR        # DIR/train/<class>/*.jpg, DIR/val/<class>/*.jpg, ImageNet, ...
    python examples/train_alexnet.py --resume runs/mini-1               # continue, bit for bit
    python examples/train_alexnet.py --resume runs/mini-1 --eval        # only evaluate; --tta 10: the paper's ten crops
    python examples/train_alexnet.py --device gpu --tf32                # on an NVIDIA GPU, matrix products on its tensor cores

An installed minicnn, without this folder, runs the same program as `minicnn train`.

A run writes to its folder (runs/<arch>-<number>, or --out): checkpoint-<step>.npz, log.jsonl, curves.png, filters.png, and report.html,
which shows every layer's forward and backward at several steps of the training.
The command line and the data are in recipe.py; log, checkpoints and signals in bookkeeping.py.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import minicnn as mc
from minicnn.data import DataError
from minicnn.examples.bookkeeping import Bookkeeping, TrainingStopped, best_effort_plots
from minicnn.examples.recipe import Data, build, choose_device, parse, resolve_args, restore
from minicnn.train.evaluation import classification_metrics, correct, evaluate, predict
from minicnn.train.log import DivergenceError
from minicnn.visualize import figures


def train(args: argparse.Namespace, checkpoint: dict[str, Any] | None) -> dict[str, float]:
    """Train a network from the start or from a checkpoint; with --eval, only evaluate it. Returns the metrics of the last validation."""
    mc.seed(args.seed)
    data = Data(args, checkpoint)
    model, optimizer, schedule = build(args, data)
    if checkpoint:
        restore(checkpoint, args, model, optimizer, schedule)
    if args.eval:
        return test(model, data, args)

    steps_per_epoch = len(data.train)
    last_step = min(args.epochs * steps_per_epoch, args.max_steps or sys.maxsize)
    run = Bookkeeping(args, data, model, optimizer, schedule, checkpoint, last_step)
    if run.step >= last_step and run.validated == run.step:
        print(f"{args.out}: {run.step} of {last_step} steps are done already; give more --epochs or --max-steps to continue")
        return evaluate(model, data.val)

    with run:
        while True:
            if run.validation_due():
                run.log.flush()                         # raises DivergenceError: a network of NaN is not worth a validation
                metrics = evaluate(model, data.val)
                if args.schedule == "plateau" and run.step % steps_per_epoch == 0:      # after a whole epoch, not one cut short
                    schedule.step(100 - metrics["top1"])
                run.after_validation(metrics)
            if run.step >= last_step:
                break

            epoch, batches_done = divmod(run.step, steps_per_epoch)
            run.bar.set_description(f"epoch {epoch + 1}/{args.epochs}")
            model.train()
            for images, labels in data.train.epoch(epoch, start=batches_done):
                logits = model(mc.Tensor(images))
                loss = mc.ops.cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                run.check_gradients(loss)
                optimizer.step()
                if args.schedule == "linear":
                    schedule.step()
                run.after_step(loss, correct(logits.data, labels))
                if run.step >= last_step:
                    break
    run.draw()
    return metrics


def test(model: mc.nn.Module, data: Data, args: argparse.Namespace) -> dict[str, float]:
    """Evaluate as the paper does: errors with test-time augmentation (--tta); and for few classes draw the confusion matrix."""
    probabilities, labels = predict(model, data.validation, data.test_transform, args.tta, workers=args.workers)
    metrics = classification_metrics(probabilities, labels)
    print(f"tta {args.tta}: top-1 error {100 - metrics['top1']:.2f} %, top-5 error {100 - metrics['top5']:.2f} %")
    if len(data.classes) <= 20:
        with best_effort_plots():
            figures.confusion_matrix(probabilities.argmax(axis=1), labels, data.classes, args.out / "confusion.png")
            print(f"confusion matrix: {args.out / 'confusion.png'}")
    return metrics


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Exit code 0: done. 1: the loss diverged. 2: the arguments, the data, the checkpoint or the device cannot be used.
    3: stopped by Ctrl-C or SIGTERM, and saved."""
    args = parse(argv, (__doc__ or "").partition("\n")[0], prog)
    try:
        checkpoint = resolve_args(args)
        choose_device(args)
        began = time.perf_counter()
        with np.errstate(over="ignore", invalid="ignore"):          # a loss that overflows is detected by its value
            metrics = train(args, checkpoint)
    except DivergenceError as error:
        loss, step = error.args
        print(f"error: the loss is {loss} at step {step}. Try a smaller --lr (it was {args.lr}), or --init kaiming. "
              f"The checkpoints before that, if any, are in {args.out}", file=sys.stderr)
        return 1
    except TrainingStopped as error:
        name, step = error.args
        print(f"stopped by {name} after step {step}; continue with --resume {args.out}", file=sys.stderr)
        return 3
    except (DataError, mc.CheckpointError, OSError, ValueError, RuntimeError, MemoryError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"validation: top-1 {metrics['top1']:.2f} %, top-5 {metrics['top5']:.2f} % of {metrics['images']} images, "
          f"loss {metrics['loss']:.4f}")
    if not args.eval:
        print(f"{time.perf_counter() - began:.0f} s; continue with --resume {args.out}, longer with --epochs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
