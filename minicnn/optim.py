"""Steps downhill: momentum SGD by the paper's rule, and what lowers its learning rate.

    v <- m*v - lr*(d*w + g)         m momentum, d weight decay, g gradient        (AlexNet, section 5)
    w <- w + v

The learning rate is inside v, so when it drops, the steps already under way keep their size. (PyTorch keeps it
outside, w <- w - lr*v, and a drop shrinks those too; at a constant rate the two are the same.)
"""

import functools
import math

import numpy as np

from minicnn import gpu
from minicnn.backend import by_device, device_of, device_scope, memory_order, to_device, xp_of
from minicnn.parallel import run
from minicnn.tensor import Tensor

BLOCK = 1 << 16         # elements a core updates at a time: gradient, velocity, weight and a scratch fit in its cache


class SGD:
    """Stochastic gradient descent with momentum and weight decay.

    Args:
        params: tensors, or groups: dicts with "params" and, where it differs, "lr", "momentum" or "weight_decay".
            Caffe's recipe (biases learn twice as fast and do not decay) is two groups.
        lr: learning rate.   momentum: 0 <= m < 1.   weight_decay: d above, >= 0.

    Attributes: groups, a list of dicts; change group["lr"] to change the rate.
    Raises ValueError for a rate that is not a positive finite number, and for no or repeated parameters.
    """

    def __init__(self, params, lr, momentum=0.9, weight_decay=0.0):
        if isinstance(params, Tensor):
            raise TypeError("SGD: a list of parameters is wanted, not one Tensor; write [p]")
        params = list(params)
        groups = params if params and isinstance(params[0], dict) else [{"params": params}]
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        self.groups = [{**defaults, **group, "params": list(group["params"])} for group in groups]
        self.params = [p for group in self.groups for p in group["params"]]
        if not self.params:
            raise ValueError("SGD: no parameters were given")
        if len({id(p) for p in self.params}) < len(self.params):
            raise ValueError("SGD: a parameter was given twice; it would be updated twice in each step")
        for p in self.params:
            if not (isinstance(p, Tensor) and p.requires_grad and p.node is None):
                raise TypeError(f"SGD: a parameter is a leaf Tensor with requires_grad=True, not {p!r:.80}")
        for group in self.groups:
            unknown = set(group) - {"params", *defaults}
            if unknown:
                raise ValueError(f"SGD: a group has no {sorted(unknown)[0]!r}; it has params, lr, momentum and weight_decay")
            check_group(group)
        self.velocities = [xp_of(p.data).zeros_like(p.data) for p in self.params]

    def step(self):
        """Update every parameter that has a gradient."""
        numbers = iter(range(len(self.params)))
        for group in self.groups:
            check_group(group)
            for p, i in zip(group["params"], numbers, strict=False):
                if p.grad is None:
                    continue
                if device_of(self.velocities[i]) != p.device:           # the network was moved; its velocities follow
                    self.velocities[i] = to_device(self.velocities[i], p.device)
                with device_scope(p.data):
                    update(p.data, self.velocities[i], p.grad, float(group["lr"]), group["momentum"], group["weight_decay"])

    def zero_grad(self):
        """Forget all gradients; call it before each backward."""
        for p in self.params:
            p.grad = None

    def state_dict(self):
        """Velocities (not copies) and each group's numbers."""
        return {"velocities": list(self.velocities),
                "groups": [{k: v for k, v in group.items() if k != "params"} for group in self.groups]}

    def load_state_dict(self, state):
        """Go on from a `state_dict()`; ValueError if it belongs to other parameters, and then nothing was changed."""
        shapes = [v.shape for v in self.velocities]
        if [tuple(v.shape) for v in state["velocities"]] != shapes or len(state["groups"]) != len(self.groups):
            raise ValueError(f"SGD.load_state_dict: this state is of other parameters: it has {len(state['velocities'])} velocities in "
                             f"{len(state['groups'])} groups, here are {len(shapes)} in {len(self.groups)}, or their shapes differ")
        for own, v in zip(self.velocities, state["velocities"], strict=True):
            own[...] = to_device(v, device_of(own))
        for own_group, group in zip(self.groups, state["groups"], strict=True):
            own_group.update(group)


def check_group(group):
    """The numbers of a group make sense, or an error that names the one that does not."""
    if not (isinstance(group["lr"], (int, float, np.floating)) and math.isfinite(group["lr"]) and group["lr"] > 0):
        raise ValueError(f"SGD: lr is a positive finite number, not {group['lr']!r}")
    if not 0 <= group["momentum"] < 1:
        raise ValueError(f"SGD: momentum is at least 0 and less than 1, not {group['momentum']!r}")
    if not (math.isfinite(group["weight_decay"]) and group["weight_decay"] >= 0):
        raise ValueError(f"SGD: weight_decay is a finite number, at least 0, not {group['weight_decay']!r}")


def update_cpu(w, v, g, lr, momentum, weight_decay):
    """One step for one parameter, in place: three arrays of the same shape, a block of elements at a time."""
    w, v, g = (a.transpose(memory_order(w)) for a in (w, v, g))
    if w.flags.c_contiguous and v.flags.c_contiguous:       # one long row: channels-last filters are, in this order of axes
        w, v, g = w.reshape(-1), v.reshape(-1), g.reshape(-1)

    def block(n):
        step = w[n] * weight_decay
        step += g[n]
        step *= lr
        v[n] *= momentum
        v[n] -= step
        w[n] += v[n]

    if w.ndim == 1:
        run([functools.partial(block, slice(a, a + BLOCK)) for a in range(0, w.size, BLOCK)])
    else:
        block(...)


def update_gpu(w, v, g, lr, momentum, weight_decay):
    """The same in one pass: each weight is read once and written once, and so is its velocity."""
    gpu.elementwise("T g, T lr, T momentum, T weight_decay", "T w, T v", "v = momentum * v - lr * (weight_decay * w + g); w += v",
                    "momentum_sgd")(g, lr, momentum, weight_decay, w, v)


update = by_device(update_cpu, update_gpu)


class StepLR:
    """Multiply every group's learning rate by `gamma` each `step_size` calls of `step()` (one call an epoch, say)."""

    def __init__(self, optimizer, step_size, gamma=0.1):
        if step_size < 1:
            raise ValueError(f"StepLR: step_size is at least 1, not {step_size!r}")
        self.optimizer, self.step_size, self.gamma, self.count = optimizer, step_size, gamma, 0

    def step(self):
        """Count one; lower the rates if it is time."""
        self.count += 1
        if self.count % self.step_size == 0:
            scale_rates(self.optimizer, self.gamma)

    def state_dict(self):
        """The count (the rates themselves are in the optimiser's state)."""
        return {"count": self.count}

    def load_state_dict(self, state):
        """Go on from a `state_dict()`."""
        self.count = state["count"]


class LinearDecay:
    """Let every group's rate fall in a straight line, to 0 after `steps` calls of `step()` (one call a batch).

    Short trainings do better with it than with a few drops: the rate is high for long, and low at the end.
    """

    def __init__(self, optimizer, steps):
        if steps < 1:
            raise ValueError(f"LinearDecay: steps is at least 1, not {steps!r}")
        self.optimizer, self.steps, self.count = optimizer, steps, 0
        self.first_rates = [group["lr"] for group in optimizer.groups]

    def step(self):
        """Count one; lower the rates. After the last, they stay as low as they were in the last step."""
        self.count += 1
        self.set_rates()

    def set_rates(self):
        """The rates are a function of the count alone."""
        left = max(self.steps - self.count, 1) / self.steps
        for group, rate in zip(self.optimizer.groups, self.first_rates, strict=True):
            group["lr"] = rate * left

    def state_dict(self):
        """The count; the first rates are those the optimiser was made with."""
        return {"count": self.count}

    def load_state_dict(self, state):
        """Go on from a `state_dict()`, after the optimiser's: the rates become what the count says, also for another total."""
        self.count = state["count"]
        self.set_rates()


class ReduceLROnPlateau:
    """Multiply the rates by `factor` when the watched number (an error or a loss) has not improved for more than `patience` calls.

    The paper's schedule, done by hand there: divide by 10 when the validation error stops improving. An improvement
    is a fall below the best so far by more than `threshold`; no rate goes below `min_lr`.
    """

    def __init__(self, optimizer, factor=0.1, patience=10, threshold=1e-4, min_lr=0.0):
        if not 0 < factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor is between 0 and 1, not {factor!r}")
        self.optimizer, self.factor, self.patience, self.threshold, self.min_lr = optimizer, factor, patience, threshold, min_lr
        self.best, self.bad = None, 0

    def step(self, metric):
        """Look at the newest number; lower the rates if it is time. NaN counts as no improvement."""
        if not math.isnan(metric) and (self.best is None or metric < self.best - self.threshold):
            self.best, self.bad = float(metric), 0
            return
        self.bad += 1
        if self.bad > self.patience:
            scale_rates(self.optimizer, self.factor, self.min_lr)
            self.bad = 0

    def state_dict(self):
        """The best so far, and for how many calls nothing was better."""
        return {"best": self.best, "bad": self.bad}

    def load_state_dict(self, state):
        """Go on from a `state_dict()`."""
        self.best, self.bad = state["best"], state["bad"]


def scale_rates(optimizer, factor, min_lr=0.0):
    """Multiply every group's learning rate, down to `min_lr`."""
    for group in optimizer.groups:
        group["lr"] = max(group["lr"] * factor, min_lr)
