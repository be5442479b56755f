"""Can full-size AlexNet overfit one batch? 16 crops of photographs, 1000 classes; the loss should fall from ln(1000) towards 0.

    python benchmarks/overfit_one_batch.py [--arch paper] [--init kaiming] [--lr 0.01] [--max-steps 60] [--out FILE]

The most common complaint about reimplementations of AlexNet is a loss that stays at 6.9 = ln(1000), or NaN. This is the smallest
experiment that shows whether a network can learn with an init and a learning rate.
"""

import argparse
import json
import math
import platform
import time

import numpy as np

import minicnn as mc
from minicnn.data.transforms import CenterCrop, RandomCrop, Resize
from minicnn.examples.alexnet import INITS, alexnet, input_size


def one_batch(side, seed=0):
    """The batch: two crops of each of minicnn's eight photographs, (16, 3, side, side) float32 of 0 to 255, and 16 of 1000 labels."""
    rng = np.random.default_rng(seed)
    crops = []
    for _, photo in mc.data.photos():
        small = Resize(round(side * 256 / 224))(photo)
        crops += [CenterCrop(side)(small), RandomCrop(side)(small, rng)]
    images = np.stack(crops).astype(np.float32)
    return images.transpose(0, 3, 1, 2), rng.choice(1000, size=16, replace=False)


def scale_pixels(images, init):
    """Subtract the mean; for the Kaiming init also divide by the standard deviation (the others are made for pixels of 0 to 255)."""
    images = images - images.mean(axis=(0, 2, 3), keepdims=True)
    return images / images.std() if init == "kaiming" else images


def overfit(arch, init, lr, steps, seed=0, goal=0.1, dropout=True, momentum=0.9, weight_decay=0.0005, report=print):
    """Train on the one batch until the loss is below `goal` or not finite, at most `steps` steps. Returns the loss of each step."""
    mc.seed(seed)
    images, labels = one_batch(input_size(arch))
    x = mc.Tensor(scale_pixels(images, init))
    model = alexnet(arch)
    INITS[init](model)
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
    parser.add_argument("--init", default="kaiming", choices=list(INITS))
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--max-steps", type=int, default=100)
    parser.add_argument("--no-dropout", action="store_true")
    parser.add_argument("--out", help="append the result to this JSON-lines file")
    args = parser.parse_args()
    print(f"{args.arch}, init {args.init}, lr {args.lr}: the loss starts near ln(1000) = {math.log(1000):.3f}")
    began = time.perf_counter()
    losses = overfit(args.arch, args.init, args.lr, args.max_steps, dropout=not args.no_dropout)
    seconds = time.perf_counter() - began
    print(f"{len(losses)} steps, {seconds:.0f} s: {losses[0]:.3f} -> {losses[-1]:.3f}")
    if args.out:
        with open(args.out, "a", encoding="utf-8") as file:
            record = {"arch": args.arch, "init": args.init, "lr": args.lr, "dropout": not args.no_dropout, "steps": len(losses),
                      "seconds": round(seconds, 1), "losses": [round(v, 4) for v in losses], "numpy": np.__version__,
                      "python": platform.python_version(), "machine": platform.machine(), "threads": mc.backend.threads.num_threads()}
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
