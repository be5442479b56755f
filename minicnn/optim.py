"""Optimisers and learning rate schedules: momentum SGD by the paper's rule, and schedules that lower its learning rate.

    v <- m*v - lr*(d*w + g)         m momentum, d weight decay, g gradient        (AlexNet, section 5)
    w <- w + v

The learning rate is inside v, so when it drops, earlier gradients keep their weight in v. (PyTorch keeps it
outside, w <- w - lr*v, and a drop scales those down too; at a constant rate the two are the same.)
"""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.backend import cuda
from minicnn.backend.arrays import axes_by_stride, by_device, device_of, device_scope, to_device, xp_of
from minicnn.backend.threads import run_tasks
from minicnn.tensor import Tensor

BLOCK = 1 << 16         # elements a core updates at a time: gradient, velocity, weight and a temporary fit in its cache


class Optimizer:
    """The base class of optimisers: parameters in groups, each group with its own settings. Subclass it and write `step`.

    Args:
        params: tensors, or groups: dicts with "params" and, where they differ from the defaults, the group's own settings.
        defaults: the default settings by name, "lr" among them.

    Attributes:
        param_groups: a list of dicts with "params" and the settings; assign to group["lr"] to change the learning rate.
        params: every parameter, in order.

    Raises ValueError for no or repeated parameters and for unknown settings, TypeError for an object that is not a parameter.
    """

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        name = type(self).__name__
        if isinstance(params, Tensor):
            raise TypeError(f"{name}: params must be a list of parameters, got one Tensor; write [p]")
        params = list(params)
        groups = params if params and isinstance(params[0], dict) else [{"params": params}]
        self.param_groups: list[dict[str, Any]] = [{**defaults, **group, "params": list(group["params"])} for group in groups]
        self.params: list[Tensor] = [p for group in self.param_groups for p in group["params"]]
        if not self.params:
            raise ValueError(f"{name}: params is empty")
        if len({id(p) for p in self.params}) < len(self.params):
            raise ValueError(f"{name}: a parameter occurs twice in params; it would be updated twice in each step")
        for p in self.params:
            if not (isinstance(p, Tensor) and p.requires_grad and p.node is None):
                raise TypeError(f"{name}: a parameter must be a leaf Tensor with requires_grad=True, got {p!r:.80}")
        for group in self.param_groups:
            unknown = sorted(set(group) - {"params", *defaults})
            if unknown:
                raise ValueError(f"{name}: unknown setting {unknown[0]!r} in a parameter group; the settings are {', '.join(defaults)}")

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def zero_grad(self) -> None:
        """Set every gradient to None; call it before each backward."""
        for p in self.params:
            p.grad = None

    def last_update(self, i: int) -> Any:
        """The array that the last step added to `params[i]`; None if this optimiser does not store it.

        The training monitor, the figures and the report read update sizes from here, and skip them where it is None.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """The settings of each group, for a checkpoint."""
        return {"groups": [{k: v for k, v in group.items() if k != "params"} for group in self.param_groups]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict()`; ValueError, with nothing changed, if it has another number of groups."""
        if len(state["groups"]) != len(self.param_groups):
            raise ValueError(f"{type(self).__name__}.load_state_dict: state must have {len(self.param_groups)} groups as this optimiser, "
                             f"got {len(state['groups'])}")
        for own_group, group in zip(self.param_groups, state["groups"], strict=True):
            own_group.update(group)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum and weight decay.

    Args:
        params: tensors, or groups: dicts with "params" and, where they differ, "lr", "momentum" or "weight_decay".
            Caffe's recipe (biases learn twice as fast and do not decay) is two groups.
        lr: learning rate, > 0.   momentum: 0 <= m < 1 (PyTorch's default is 0).   weight_decay: d above, >= 0.

    Attributes: velocities, an array v for each parameter, in the order of `params`.
    Raises ValueError for a setting out of its range, and what Optimizer raises. Source: AlexNet, section 5.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            check_group(group)
        self.velocities: list[Any] = [xp_of(p.data).zeros_like(p.data) for p in self.params]

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        i = -1                                      # index of the parameter, counted over all groups
        for group in self.param_groups:
            check_group(group)
            for p in group["params"]:
                i += 1
                if p.grad is None:
                    continue
                if device_of(self.velocities[i]) != p.device:           # the network was moved, so its velocities are too
                    self.velocities[i] = to_device(self.velocities[i], p.device)
                with device_scope(p.data):
                    update(p.data, self.velocities[i], p.grad, float(group["lr"]), group["momentum"], group["weight_decay"])

    def last_update(self, i: int) -> Any:
        """The velocity of `params[i]`, which is the array that the last step added."""
        return self.velocities[i]

    def state_dict(self) -> dict[str, Any]:
        """Velocities (not copies) and the settings of each group."""
        return {"velocities": list(self.velocities), **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict()`; ValueError, with nothing changed, if it belongs to other parameters."""
        shapes = [v.shape for v in self.velocities]
        if [tuple(v.shape) for v in state["velocities"]] != shapes or len(state["groups"]) != len(self.param_groups):
            raise ValueError("SGD.load_state_dict: this state belongs to other parameters: it must have this optimiser's "
                             f"{len(shapes)} velocities in {len(self.param_groups)} groups, of the same shapes, got "
                             f"{len(state['velocities'])} in {len(state['groups'])}")
        for own, v in zip(self.velocities, state["velocities"], strict=True):
            own[...] = to_device(v, device_of(own))
        super().load_state_dict(state)


def check_group(group: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the setting if one of this group is invalid."""
    if not (isinstance(group["lr"], (int, float, np.floating)) and math.isfinite(group["lr"]) and group["lr"] > 0):
        raise ValueError(f"SGD: lr must be a positive finite number, got {group['lr']!r}")
    if not 0 <= group["momentum"] < 1:
        raise ValueError(f"SGD: momentum must be at least 0 and less than 1, got {group['momentum']!r}")
    if not (math.isfinite(group["weight_decay"]) and group["weight_decay"] >= 0):
        raise ValueError(f"SGD: weight_decay must be a finite number, at least 0, got {group['weight_decay']!r}")


def update_cpu(w: Any, v: Any, g: Any, lr: float, momentum: float, weight_decay: float) -> None:
    """One SGD step for one parameter, in place: weight, velocity and gradient have the same shape. Blocks of elements run in parallel."""
    w, v, g = (a.transpose(axes_by_stride(w)) for a in (w, v, g))
    if w.flags.c_contiguous and v.flags.c_contiguous:       # as channels-last filters are, in this order of axes
        w, v, g = w.reshape(-1), v.reshape(-1), g.reshape(-1)

    def block(n: Any) -> None:
        step = w[n] * weight_decay
        step += g[n]
        step *= lr
        v[n] *= momentum
        v[n] -= step
        w[n] += v[n]

    if w.ndim == 1:
        run_tasks([functools.partial(block, slice(a, a + BLOCK)) for a in range(0, w.size, BLOCK)])
    else:
        block(...)


def update_gpu(w: Any, v: Any, g: Any, lr: float, momentum: float, weight_decay: float) -> None:
    """The same in one fused kernel, which reads and writes each weight and velocity once."""
    cuda.elementwise("T g, T lr, T momentum, T weight_decay", "T w, T v", "v = momentum * v - lr * (weight_decay * w + g); w += v",
                    "momentum_sgd")(g, lr, momentum, weight_decay, w, v)


update = by_device(update_cpu, update_gpu)


class LRScheduler:
    """The base class of learning rate schedules. They change group["lr"] of an optimiser's param_groups."""

    optimizer: Optimizer

    def get_last_lr(self) -> list[float]:
        """The current learning rate of every group."""
        return [group["lr"] for group in self.optimizer.param_groups]


class StepLR(LRScheduler):
    """Multiply every group's learning rate by `gamma` each `step_size` calls of `step()` (one call an epoch, for instance).

    Raises ValueError for a step_size below 1.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: step_size must be at least 1, got {step_size!r}")
        self.optimizer, self.step_size, self.gamma, self.count = optimizer, step_size, gamma, 0

    def step(self) -> None:
        """Count one call; lower the learning rates at every `step_size`-th."""
        self.count += 1
        if self.count % self.step_size == 0:
            scale_lr(self.optimizer, self.gamma)

    def state_dict(self) -> dict[str, Any]:
        """The number of calls (the learning rates themselves are in the optimiser's state)."""
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict()`."""
        self.count = state["count"]


class LinearLR(LRScheduler):
    """Linear decay of every group's learning rate, to 0 after `total_iters` calls of `step()` (one call a batch).

    Short trainings do better with it than with a few drops: the rate is high for long, and low at the end. (PyTorch's LinearLR with
    start_factor=1 and end_factor=0, except that the last step keeps the rate of the step before instead of 0.)
    Raises ValueError for total_iters below 1.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int) -> None:
        if total_iters < 1:
            raise ValueError(f"LinearLR: total_iters must be at least 1, got {total_iters!r}")
        self.optimizer, self.total_iters, self.count = optimizer, total_iters, 0
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]

    def step(self) -> None:
        """Count one call; lower the learning rates. After `total_iters` calls they stay constant."""
        self.count += 1
        self.set_lr()

    def set_lr(self) -> None:
        """Compute the learning rates, which depend on the count alone."""
        remaining = max(self.total_iters - self.count, 1) / self.total_iters
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * remaining

    def state_dict(self) -> dict[str, Any]:
        """The number of calls."""
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict()` after the optimiser's; the learning rates follow from the count, also for another `total_iters`."""
        self.count = state["count"]
        self.set_lr()


class ReduceLROnPlateau(LRScheduler):
    """Multiply the learning rates by `factor` when a metric (an error or a loss) has not improved for more than `patience` calls.

    The paper's schedule, done by hand there: divide by 10 when the validation error stops improving (AlexNet, section 5).

    Args:
        factor: between 0 and 1.   patience: calls without improvement before the learning rates are lowered at the next.
        threshold, threshold_mode: an improvement is a value below the best so far by more than `threshold` times the best ("rel") or
            by more than `threshold` ("abs"), as in PyTorch.
        min_lr: lower limit of every learning rate.

    Raises ValueError for a factor that is not between 0 and 1, and for another threshold_mode.
    """

    def __init__(self, optimizer: Optimizer, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, threshold_mode: str = "rel",
                 min_lr: float = 0.0) -> None:
        if isinstance(factor, str) or not 0 < factor < 1:
            hint = "; there is no mode: the metric is always minimised" if factor in ("min", "max") else ""
            raise ValueError(f"ReduceLROnPlateau: factor must be between 0 and 1, got {factor!r}{hint}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f'ReduceLROnPlateau: threshold_mode must be "rel" or "abs", got {threshold_mode!r}')
        self.optimizer, self.factor, self.patience, self.min_lr = optimizer, factor, patience, min_lr
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.best: float | None = None
        self.num_bad_steps = 0

    def step(self, metric: float) -> None:
        """Record the metric's newest value and lower the learning rates if `patience` is exceeded. NaN counts as no improvement."""
        if not math.isnan(metric) and (self.best is None or metric < self.best - self.margin(self.best)):
            self.best, self.num_bad_steps = float(metric), 0
            return
        self.num_bad_steps += 1
        if self.num_bad_steps > self.patience:
            scale_lr(self.optimizer, self.factor, self.min_lr)
            self.num_bad_steps = 0

    def margin(self, best: float) -> float:
        """How far below the best value so far a new one must be to count as an improvement."""
        return self.threshold * abs(best) if self.threshold_mode == "rel" else self.threshold

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and the number of calls since."""
        return {"best": self.best, "num_bad_steps": self.num_bad_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict()`."""
        self.best, self.num_bad_steps = state["best"], state["num_bad_steps"]


def scale_lr(optimizer: Optimizer, factor: float, min_lr: float = 0.0) -> None:
    """Multiply every group's learning rate by `factor`, but not below `min_lr`."""
    for group in optimizer.param_groups:
        group["lr"] = max(group["lr"] * factor, min_lr)


if not TYPE_CHECKING:           # type checkers reject unknown names themselves
    def __getattr__(name: str) -> Any:
        """Called for names that do not exist: PyTorch's other optimisers and schedules."""
        if name == "lr_scheduler" or name.endswith("LR"):
            raise AttributeError(f"minicnn.optim has no {name!r}; the schedules are optim.StepLR, LinearLR and ReduceLROnPlateau")
        if name[0].isupper():
            raise AttributeError(f"minicnn.optim has no {name!r}, only SGD; to add an optimiser, subclass optim.Optimizer and write step()")
        raise AttributeError(f"module 'minicnn.optim' has no attribute {name!r}")
