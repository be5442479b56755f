"""The time of an AlexNet training step, compared with other frameworks on the same CPU.

    python benchmarks/alexnet_step.py --arch one-tower --batch 128 [--forward] [--peers torch,jax] [--rounds 5]
    python benchmarks/alexnet_step.py --peers chainer,dezero --python chainer=OTHER_ENVIRONMENT/bin/python

Timed: forward with LRN and dropout, loss, backward, momentum SGD with weight decay. Not timed: creating the images and copying
them to the device. (DeZero has neither LRN nor groups; JAX runs without dropout.) Every contender runs in its own process, in its
own environment where one is given, and builds the network from the same description. Rounds alternate between the contenders, so
that other load on the machine affects all alike. Reported are medians, and ratios of medians. Results are written to
benchmarks/results/ as JSON, with machine and versions.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent


def describe(arch):
    """The network as plain data, readable without minicnn: {"arch": name, "side": pixels, "layers": [[kind, arguments], ...]}."""
    from minicnn.examples.alexnet import alexnet, input_size
    layers = []
    for layer in alexnet(arch):
        kind, w = type(layer).__name__, getattr(layer, "weight", None)
        numbers = {}
        if kind == "Conv2d":
            numbers = {"inputs": w.shape[1] * layer.groups, "outputs": w.shape[0], "kernel": w.shape[2], "stride": layer.stride[0],
                       "padding": layer.padding[0], "groups": layer.groups}
        elif kind == "Linear":
            numbers = {"inputs": w.shape[1], "outputs": w.shape[0]}
        elif kind == "LocalResponseNorm":
            numbers = {"size": layer.size, "alpha": layer.alpha, "beta": layer.beta, "k": layer.k}
        elif kind == "MaxPool2d":
            numbers = {"kernel": layer.kernel_size, "stride": layer.stride}
        elif kind == "AdaptiveAvgPool2d":
            numbers = {"size": layer.output_size}
        layers.append([kind, numbers])
    return {"arch": arch, "side": input_size(arch), "layers": layers}


def random_batch(network, batch):
    """Random images (batch, 3, side, side) and labels (batch,), as NumPy arrays."""
    import numpy as np
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, 3, network["side"], network["side"]), dtype=np.float32), rng.integers(0, 1000, batch)


def minicnn_step(network, batch, forward_only, device="cpu"):
    """A function that runs one step (or one forward pass) of minicnn, and the versions of the libraries.

    The step optionally takes images and labels, as arrays; the labels stay on the CPU, as in training.
    """
    import numpy as np

    import minicnn as mc
    from minicnn.examples.alexnet import alexnet
    mc.seed(0)
    net = alexnet(network["arch"]).to(device)
    images, labels = random_batch(network, batch)
    x = mc.Tensor(np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), device=device)
    optimizer = mc.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    if forward_only:
        net.eval()

        def step():
            with mc.no_grad():
                net(x)
    else:
        def step(images=None, labels=labels):
            loss = mc.ops.cross_entropy(net(x if images is None else mc.Tensor(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return step, {"minicnn": mc.__version__, "numpy": np.__version__, "threads": mc.backend.threads.num_threads()}


def torch_step(network, batch, forward_only, channels_last=False, compiled=False, device="cpu"):
    """The same in PyTorch, with its own layers; PyTorch divides the alpha of LRN by the size, so it is multiplied by it here."""
    import torch
    from torch import nn
    torch.manual_seed(0)
    build = {
        "Conv2d": lambda inputs, outputs, kernel, stride, padding, groups: nn.Conv2d(inputs, outputs, kernel, stride, padding,
                                                                                     groups=groups),
        "Linear": lambda inputs, outputs: nn.Linear(inputs, outputs),
        "LocalResponseNorm": lambda size, alpha, beta, k: nn.LocalResponseNorm(size, alpha * size, beta, k),
        "MaxPool2d": lambda kernel, stride: nn.MaxPool2d(kernel, stride),
        "AdaptiveAvgPool2d": lambda size: nn.AdaptiveAvgPool2d(size),
        "ReLU": nn.ReLU, "Dropout": nn.Dropout, "Flatten": nn.Flatten,
    }
    net = nn.Sequential(*(build[kind](**numbers) for kind, numbers in network["layers"])).to(device)
    x, labels = (torch.from_numpy(array).to(device) for array in random_batch(network, batch))
    if channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    call = torch.compile(net) if compiled else net
    if forward_only:
        net.eval()

        def step():
            with torch.no_grad():
                call(x)
    else:
        def step():
            loss = nn.functional.cross_entropy(call(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return step, {"torch": torch.__version__, "threads": torch.get_num_threads()}


def jax_step(network, batch, forward_only):
    """The same in JAX, compiled; without dropout, so that its random number generator is not timed."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    rng = np.random.default_rng(0)

    def init(kind, numbers):
        if kind == "Conv2d":
            shape = (numbers["outputs"], numbers["inputs"] // numbers["groups"], numbers["kernel"], numbers["kernel"])
        elif kind == "Linear":
            shape = (numbers["outputs"], numbers["inputs"])
        else:
            return None
        return jnp.asarray(0.01 * rng.standard_normal(shape, dtype=np.float32)), jnp.zeros(shape[0], jnp.float32)

    parameters = [init(*layer) for layer in network["layers"]]
    x, labels = map(jnp.asarray, random_batch(network, batch))

    def forward(parameters, x):
        for (kind, numbers), p in zip(network["layers"], parameters):       # noqa: B905 (other environments may be older)
            if kind == "Conv2d":
                padding = [(numbers["padding"],) * 2] * 2
                x = jax.lax.conv_general_dilated(x, p[0], (numbers["stride"],) * 2, padding, feature_group_count=numbers["groups"])
                x = x + p[1][:, None, None]
            elif kind == "Linear":
                x = x @ p[0].T + p[1]
            elif kind == "ReLU":
                x = jnp.maximum(x, 0)
            elif kind == "LocalResponseNorm":
                n, r = numbers["size"], numbers["size"] // 2
                s = jax.lax.reduce_window(x * x, 0.0, jax.lax.add, (1, n, 1, 1), (1, 1, 1, 1), [(0, 0), (r, r), (0, 0), (0, 0)])
                x = x * (numbers["k"] + numbers["alpha"] * s) ** -numbers["beta"]
            elif kind == "MaxPool2d":
                k, s = numbers["kernel"], numbers["stride"]
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, k, k), (1, 1, s, s), "VALID")
            elif kind == "Flatten":
                x = x.reshape(len(x), -1)
        return x

    def loss(parameters, x, labels):
        return -jax.nn.log_softmax(forward(parameters, x))[jnp.arange(len(labels)), labels].mean()

    def update(parameters, velocities, x, labels):
        gradients = jax.grad(loss)(parameters, x, labels)
        velocities = jax.tree.map(lambda v, g, w: 0.9 * v - 1e-3 * (5e-4 * w + g), velocities, gradients, parameters)
        return jax.tree.map(jnp.add, parameters, velocities), velocities

    run_forward, run_update = jax.jit(forward), jax.jit(update, donate_argnums=(0, 1))
    state = [parameters, jax.tree.map(jnp.zeros_like, parameters)]

    def step():
        if forward_only:
            run_forward(parameters, x).block_until_ready()
        else:
            state[:] = run_update(*state, x, labels)
            jax.block_until_ready(state[0])
    return step, {"jax": jax.__version__}


def chainer_step(network, batch, forward_only):
    """The same in Chainer."""
    import chainer
    import numpy as np
    from chainer import functions as F
    from chainer import links as L
    build = {
        "Conv2d": lambda inputs, outputs, kernel, stride, padding, groups: L.Convolution2D(inputs, outputs, kernel, stride, padding,
                                                                                           groups=groups),
        "Linear": lambda inputs, outputs: L.Linear(inputs, outputs),
        "LocalResponseNorm": lambda size, alpha, beta, k: lambda x: F.local_response_normalization(x, size, k, alpha, beta),
        "MaxPool2d": lambda kernel, stride: lambda x: F.max_pooling_2d(x, kernel, stride, cover_all=False),
        "AdaptiveAvgPool2d": lambda size: lambda x: x,          # 6 x 6 to 6 x 6 at the sizes measured here
        "ReLU": lambda: F.relu, "Dropout": lambda: F.dropout, "Flatten": lambda: lambda x: F.reshape(x, (len(x), -1)),
    }
    net = chainer.Sequential(*(build[kind](**numbers) for kind, numbers in network["layers"]))
    images, labels = random_batch(network, batch)
    labels = labels.astype(np.int32)
    optimizer = chainer.optimizers.MomentumSGD(1e-3, 0.9).setup(net)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))

    def step():
        if forward_only:
            with chainer.using_config("train", False), chainer.no_backprop_mode():
                net(images)
            return
        loss = F.softmax_cross_entropy(net(images), labels)
        net.cleargrads()
        loss.backward()
        optimizer.update()
    return step, {"chainer": chainer.__version__, "numpy": np.__version__}


def dezero_step(network, batch, forward_only):
    """The same in DeZero, which has neither LRN nor groups: without LRN."""
    import dezero
    import numpy as np
    from dezero import functions as F
    from dezero import layers as L
    from dezero.optimizers import MomentumSGD, WeightDecay
    if any(numbers.get("groups", 1) > 1 for _, numbers in network["layers"]):
        raise SystemExit("DeZero has no groups")
    build = {
        "Conv2d": lambda inputs, outputs, kernel, stride, padding, groups: L.Conv2d(outputs, kernel, stride, padding, in_channels=inputs),
        "Linear": lambda inputs, outputs: L.Linear(outputs, in_size=inputs),
        "LocalResponseNorm": lambda size, alpha, beta, k: lambda x: x,
        "MaxPool2d": lambda kernel, stride: lambda x: F.pooling(x, kernel, stride, 0),
        "AdaptiveAvgPool2d": lambda size: lambda x: x,
        "ReLU": lambda: F.relu, "Dropout": lambda: F.dropout, "Flatten": lambda: lambda x: F.reshape(x, (x.shape[0], -1)),
    }

    class Net(dezero.Model):
        def __init__(self):
            super().__init__()
            self.modules = [build[kind](**numbers) for kind, numbers in network["layers"]]
            for i, module in enumerate(self.modules):
                setattr(self, f"module{i}", module)

        def forward(self, x):
            for module in self.modules:
                x = module(x)
            return x

    net = Net()
    images, labels = random_batch(network, batch)
    optimizer = MomentumSGD(1e-3, 0.9).setup(net)
    optimizer.add_hook(WeightDecay(5e-4))

    def step():
        if forward_only:
            with dezero.test_mode(), dezero.no_grad():
                net(images)
            return
        loss = F.softmax_cross_entropy(net(images), labels)
        net.cleargrads()
        loss.backward()
        optimizer.update()
    return step, {"dezero": importlib.metadata.version("dezero"), "numpy": np.__version__}


CONTENDERS = {
    "minicnn": minicnn_step,
    "torch": torch_step,
    "torch-channels-last": lambda *a: torch_step(*a, channels_last=True),
    "torch-compile": lambda *a: torch_step(*a, compiled=True),
    "jax": jax_step,
    "chainer": chainer_step,
    "dezero": dezero_step,
}


def contend(name, batch, forward_only, threads):
    """In its own process: read the network, warm up, then for each line on standard input run one step and print [seconds, bytes]."""
    network = json.loads(sys.stdin.readline())
    if threads:
        os.environ["MINICNN_THREADS"] = str(threads)
        if name.startswith("torch"):
            import torch
            torch.set_num_threads(threads)
    step, versions = CONTENDERS[name](network, batch, forward_only)
    for _ in range(2):
        step()                          # compile, allocate, warm up
    print(json.dumps(versions), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        step()
        seconds = time.perf_counter() - began
        print(json.dumps([seconds, peak_memory()]), flush=True)


def peak_memory():
    """The peak resident memory of this process, in bytes."""
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def compare(arch, batch, forward_only, names, rounds, threads=None, pythons=None):
    """Alternate between the contenders. Returns {name: {"seconds": [...], "peak_memory": bytes, "versions": {...}}}."""
    command = [__file__, "--batch", str(batch), *(["--forward"] if forward_only else []), *(["--threads", str(threads)] if threads else [])]
    network = json.dumps(describe(arch))
    running, results = {}, {}
    with contextlib.ExitStack() as files:
        for name in names:
            # standard error goes to a file: a full pipe that is not read would block the process
            errors = files.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen([(pythons or {}).get(name, sys.executable), *command, "--contender", name],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
            with contextlib.suppress(BrokenPipeError):          # it may have exited already; then the reason is in `errors`
                process.stdin.write(network + "\n")
                process.stdin.flush()
            ready = process.stdout.readline()
            if not ready:
                process.communicate()
                errors.seek(0)
                print(f"{name}: skipped ({(errors.read().splitlines() or ['it exited without an error message'])[-1]})")
                continue
            running[name], results[name] = process, {"seconds": [], "versions": json.loads(ready)}
        for _ in range(rounds):
            for name, process in running.items():
                process.stdin.write("go\n")
                process.stdin.flush()
                seconds, memory = json.loads(process.stdout.readline())
                results[name]["seconds"].append(seconds)
                results[name]["peak_memory"] = memory
        for process in running.values():
            process.communicate()           # closes its input, so it exits
    return results


@functools.cache
def multiply_adds(arch):
    """The multiply-adds of one image, forward: of the network, and of its first layer."""
    import minicnn as mc
    from minicnn.examples.alexnet import alexnet, input_size
    layers = mc.summary(alexnet(arch), (3, input_size(arch), input_size(arch)))
    return layers.total.multiply_adds, layers[0].multiply_adds


def table(results, arch, batch, forward_only, decimals=0):
    """The comparison as lines of a Markdown table, with this many decimals of a millisecond."""
    total, first = multiply_adds(arch)
    operations = 2 * batch * total
    if not forward_only:            # backward has two products for each of forward, but the first layer needs no input gradient
        operations = 3 * operations - 2 * batch * first
    base = statistics.median(results["torch"]["seconds"]) if "torch" in results else None
    lines = ["| | ms | images/s | effective GFLOP/s | peak memory, GB | times PyTorch's speed |", "|---|---|---|---|---|---|"]
    for name, r in results.items():
        seconds = statistics.median(r["seconds"])
        r.update(median_ms=round(1e3 * seconds, 1 + decimals), images_per_s=round(batch / seconds, 1),
                 gflops=round(operations / seconds / 1e9, 1), ratio=round(base / seconds, 2) if base else None)
        lines.append(f"| {name} | {r['median_ms']:,.{decimals}f} | {r['images_per_s']} | {r['gflops']:.0f} | {r['peak_memory'] / 1e9:.2f} "
                     f"| {r['ratio'] or '-'} |")
    return lines


def machine():
    """The machine, for the results."""
    name = platform.processor() or platform.machine()
    if pathlib.Path("/proc/cpuinfo").exists():
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return {"cpu": name, "cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version(),
            "date": time.strftime("%Y-%m-%d")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="one-tower")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--forward", action="store_true", help="only the forward pass, without gradients")
    parser.add_argument("--peers", default="torch,torch-channels-last", help=f"comma-separated, of {', '.join(list(CONTENDERS)[1:])}")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="the interpreter that has this peer installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="for all contenders (default: all cores)")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "cpu-step.json")
    args = parser.parse_args()
    if args.contender:
        return contend(args.contender, args.batch, args.forward, args.threads)
    names = ["minicnn", *filter(None, args.peers.split(","))]
    results = compare(args.arch, args.batch, args.forward, names, args.rounds, args.threads,
                      dict(item.split("=", 1) for item in args.python))
    what = f"{args.arch}, batch {args.batch}, {'forward only' if args.forward else 'training step'}" + (
        f", {args.threads} thread(s)" if args.threads else "")
    print(what, *table(results, args.arch, args.batch, args.forward), sep="\n")
    everything = json.loads(args.out.read_text()) if args.out.exists() else {}
    everything[what] = {"machine": machine(), "results": results}
    args.out.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
