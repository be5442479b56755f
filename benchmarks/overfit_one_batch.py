"""Does full-size AlexNet learn at all? One batch of 16 crops of photographs, 1000 classes, from ln(1000) towards 0.

    python benchmarks/overfit_one_batch.py [--arch paper] [--init he] [--lr 0.01] [--steps 60] [--out FILE]

The commonest complaint about replicas of AlexNet is a loss that stands at 6.9 = ln(1000), or NaN. Here is the smallest
experiment that tells whether a network, an init and a learning rate can learn: a batch it should be able to know by heart.
"""

import argparse
import json
import math
import pathlib
import platform
import sys
import time

import numpy as np

import minicnn as mc
from minicnn.data.transforms import CenterCrop, RandomCrop, Resize

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "examples"))
from alexnet import alexnet, input_size


def one_batch(side, seed=0):
    """16 crops of the eight photographs that come with minicnn, two of each, (16, 3, side, side); 16 labels out of 1000."""
    rng = np.random.default_rng(seed)
    crops = []
    for _, photo in mc.data.photos():
        small = Resize(round(side * 256 / 224))(photo)
        crops += [CenterCrop(side)(small), RandomCrop(side)(small, rng)]
    images = np.stack(crops).astype(np.float32)
    return images.transpose(0, 3, 1, 2), rng.choice(1000, size=16, replace=False)


def scaled(images, init):
    """Minus the mean; for He's init also divided by the standard deviation (Gaussian 0.01 is made for 0 to 255)."""
    images = images - images.mean(axis=(0, 2, 3), keepdims=True)
    return images / images.std() if init == "he" else images


def overfit(arch, init, lr, steps, seed=0, goal=0.1, dropout=True, momentum=0.9, weight_decay=0.0005, report=print):
    """Train on the one batch until the loss is below `goal` or the steps are over; the losses, one a step."""
    mc.seed(seed)
    images, labels = one_batch(input_size(arch))
    x = mc.Tensor(scaled(images, init))
    model = alexnet(arch)
    getattr(mc.init, init)(model)
    model.train(dropout)
    optimizer = mc.optim.SGD(model.parameters(), lr, momentum, weight_decay)
    losses = []
    for step in range(steps):
        loss = mc.ops.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        done = losses[-1] < goal or not math.isfinite(losses[-1]) or step == steps - 1
        if step % 5 == 0 or done:
            report(f"step {step:4d}   loss {losses[-1]:.4f}")
        if done:
            break
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="one-tower")
    parser.add_argument("--init", default="he", choices=["he", "paper", "caffe"])
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--no-dropout", action="store_true")
    parser.add_argument("--out", help="add the result to this JSON-lines file")
    args = parser.parse_args()
    print(f"{args.arch}, init {args.init}, lr {args.lr}: the loss starts near ln(1000) = {math.log(1000):.3f}")
    began = time.perf_counter()
    losses = overfit(args.arch, args.init, args.lr, args.steps, dropout=not args.no_dropout)
    seconds = time.perf_counter() - began
    print(f"{len(losses)} steps, {seconds:.0f} s: {losses[0]:.3f} -> {losses[-1]:.3f}")
    if args.out:
        with open(args.out, "a", encoding="utf-8") as file:
            record = {"arch": args.arch, "init": args.init, "lr": args.lr, "dropout": not args.no_dropout, "steps": len(losses),
                      "seconds": round(seconds, 1), "losses": [round(v, 4) for v in losses], "numpy": np.__version__,
                      "python": platform.python_version(), "machine": platform.machine(), "threads": mc.parallel.threads()}
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
