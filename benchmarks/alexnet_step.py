"""How long does a training step take, beside the big frameworks on the same CPU?

    python benchmarks/alexnet_step.py --arch one-tower --batch 128 [--forward] [--peers torch,torch-channels-last] [--rounds 5]

Inside the timing of a step: forward with LRN and dropout, loss, backward, momentum SGD with weight decay. Outside: making
the images, and moving them anywhere. Every contender runs in a process of its own, the same network on the same sizes;
rounds alternate between them, so that whatever else the machine does falls on all alike. Told are medians, and ratios of
medians. Results go to benchmarks/results/ as JSON, with machine and versions.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))


def minicnn_step(arch, batch, forward_only):
    """A function that runs one step (or one forward pass) of minicnn."""
    import numpy as np
    from alexnet import alexnet, input_size

    import minicnn as mc
    mc.seed(0)
    net = alexnet(arch)
    side = input_size(arch)
    rng = np.random.default_rng(0)
    x = mc.Tensor(rng.standard_normal((batch, side, side, 3), dtype=np.float32).transpose(0, 3, 1, 2))
    labels = rng.integers(0, 1000, batch)
    optimizer = mc.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    if forward_only:
        net.eval()

        def step():
            with mc.no_grad():
                net(x)
    else:
        def step():
            loss = mc.ops.cross_entropy(net(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return step, {"minicnn": mc.__version__, "numpy": np.__version__, "threads": mc.parallel.threads()}


def torch_step(arch, batch, forward_only, channels_last=False, compiled=False):
    """The same in PyTorch: its own layers, and LRN with the paper's constants (alpha times the size, as PyTorch divides by it)."""
    import torch
    from alexnet import VARIANTS, alexnet, input_size
    from torch import nn
    torch.manual_seed(0)

    def counterpart(layer):
        kind, w = type(layer).__name__, getattr(layer, "weight", None)
        if kind == "Conv2d":
            return nn.Conv2d(w.shape[1] * layer.groups, w.shape[0], w.shape[2:], layer.stride, layer.padding, groups=layer.groups)
        if kind == "Linear":
            return nn.Linear(w.shape[1], w.shape[0])
        if kind == "LocalResponseNorm":
            return nn.LocalResponseNorm(layer.size, layer.alpha * layer.size, layer.beta, layer.k)
        if kind == "MaxPool2d":
            return nn.MaxPool2d(layer.kernel_size, layer.stride)
        return {"ReLU": nn.ReLU, "Dropout": nn.Dropout, "Flatten": nn.Flatten,
                "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(layer.output_size)}[kind]()

    assert arch in VARIANTS
    net = nn.Sequential(*map(counterpart, alexnet(arch)))
    side = input_size(arch)
    x, labels = torch.randn(batch, 3, side, side), torch.randint(0, 1000, (batch,))
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


def jax_step(arch, batch, forward_only):
    """The same in JAX, compiled; without dropout (its random numbers would be counted against it)."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from alexnet import alexnet, input_size
    layers = list(alexnet(arch))
    parameters = [(jnp.asarray(layer.weight.data), jnp.asarray(layer.bias.data)) if hasattr(layer, "weight") else None for layer in layers]
    side = input_size(arch)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, 3, side, side), dtype=np.float32))
    labels = jnp.asarray(rng.integers(0, 1000, batch))

    def forward(parameters, x):
        for layer, p in zip(layers, parameters, strict=True):
            kind = type(layer).__name__
            if kind == "Conv2d":
                x = jax.lax.conv_general_dilated(x, p[0], layer.stride, [(q, q) for q in layer.padding], feature_group_count=layer.groups)
                x = x + p[1][:, None, None]
            elif kind == "Linear":
                x = x @ p[0].T + p[1]
            elif kind == "ReLU":
                x = jnp.maximum(x, 0)
            elif kind == "LocalResponseNorm":
                r = layer.size // 2
                s = jax.lax.reduce_window(x * x, 0.0, jax.lax.add, (1, layer.size, 1, 1), (1, 1, 1, 1), [(0, 0), (r, r), (0, 0), (0, 0)])
                x = x * (layer.k + layer.alpha * s) ** -layer.beta
            elif kind == "MaxPool2d":
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 3, 3), (1, 1, 2, 2), "VALID")
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


CONTENDERS = {
    "minicnn": minicnn_step,
    "torch": torch_step,
    "torch-channels-last": lambda *a: torch_step(*a, channels_last=True),
    "torch-compile": lambda *a: torch_step(*a, compiled=True),
    "jax": jax_step,
}


def contend(name, arch, batch, forward_only, threads):
    """In a process of its own: get ready, then for each line on standard input run one step and say how long it took."""
    if threads:
        os.environ["MINICNN_THREADS"] = str(threads)
        if name.startswith("torch"):
            import torch
            torch.set_num_threads(threads)
    step, versions = CONTENDERS[name](arch, batch, forward_only)
    for _ in range(2):
        step()                          # compile, allocate, warm up
    print(json.dumps(versions), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        step()
        seconds = time.perf_counter() - began
        print(json.dumps([seconds, peak_memory()]), flush=True)


def peak_memory():
    """The most memory this process has held, in bytes."""
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def compare(arch, batch, forward_only, names, rounds, threads=None):
    """Alternate between the contenders; name -> {"seconds": [...], "peak_memory": ..., "versions": ...}."""
    command = [sys.executable, __file__, "--arch", arch, "--batch", str(batch), *(["--forward"] if forward_only else []),
               *(["--threads", str(threads)] if threads else [])]
    running, results = {}, {}
    for name in names:
        process = subprocess.Popen([*command, "--contender", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                   stderr=subprocess.PIPE if name != "minicnn" else None)
        ready = process.stdout.readline()
        if not ready:
            process.wait()
            print(f"{name}: not here ({(process.stderr.read().splitlines() or ['it ended without a word'])[-1]})")
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
        process.stdin.close()
        process.wait()
    return results


def table(results, arch, batch, forward_only):
    """The comparison as Markdown lines."""
    from alexnet import alexnet, input_size

    import minicnn as mc
    operations = 2 * batch * mc.summary(alexnet(arch), (3, input_size(arch), input_size(arch))).total.multiply_adds
    if not forward_only:            # backward does each product twice, except the input gradient of the first layer
        first = mc.summary(alexnet(arch), (3, input_size(arch), input_size(arch)))[0].multiply_adds
        operations = 3 * operations - 2 * batch * first
    base = statistics.median(results["torch"]["seconds"]) if "torch" in results else None
    lines = ["| | ms | images/s | effective GFLOP/s | peak memory, GB | times PyTorch's speed |", "|---|---|---|---|---|---|"]
    for name, r in results.items():
        seconds = statistics.median(r["seconds"])
        r.update(median_ms=round(1e3 * seconds, 1), images_per_s=round(batch / seconds, 1), gflops=round(operations / seconds / 1e9, 1),
                 ratio=round(base / seconds, 2) if base else None)
        lines.append(f"| {name} | {r['median_ms']:,.0f} | {r['images_per_s']} | {r['gflops']:.0f} | {r['peak_memory'] / 1e9:.2f} "
                     f"| {r['ratio'] or '-'} |")
    return lines


def machine():
    """What this was measured on."""
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
    parser.add_argument("--peers", default="torch,torch-channels-last", help=f"of {', '.join(list(CONTENDERS)[1:])}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="for all contenders; default: every core")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "cpu-step.json")
    args = parser.parse_args()
    if args.contender:
        return contend(args.contender, args.arch, args.batch, args.forward, args.threads)
    names = ["minicnn", *filter(None, args.peers.split(","))]
    results = compare(args.arch, args.batch, args.forward, names, args.rounds, args.threads)
    what = f"{args.arch}, batch {args.batch}, {'forward only' if args.forward else 'training step'}" + (
        f", {args.threads} thread(s)" if args.threads else "")
    print(what, *table(results, args.arch, args.batch, args.forward), sep="\n")
    everything = json.loads(args.out.read_text()) if args.out.exists() else {}
    everything[what] = {"machine": machine(), "results": results}
    args.out.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
