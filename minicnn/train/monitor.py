"""Training monitor: detects the common failures of a training run, and reports each in one line with the likely fix.

    with TrainingMonitor(model, optimizer, classes=10) as monitor:
        for step, (x, labels) in enumerate(batches, start=1):
            loss = mc.ops.cross_entropy(model(mc.Tensor(x)), labels)
            optimizer.zero_grad()
            loss.backward()
            for finding in monitor.step(step, loss):
                print(finding)          # step 20: relu4: 97 % of its units are zero for every image of this batch ("dead"), ...
            optimizer.step()

A check costs a fraction of a step and runs every hundred steps, and a few times at the start, where most failures occur; between
two checks only the loss is stored. All numbers of a check are computed on the network's device and read together: one
synchronization with a GPU.
"""

import dataclasses
import math
from typing import Any

from minicnn.backend.arrays import ceil_div, device_of, device_scope, dot, is_array, to_device, xp_of
from minicnn.hooks import Hook
from minicnn.nn.module import Module
from minicnn.ops.relu import ReLU
from minicnn.optim import Optimizer
from minicnn.tensor import Tensor
from minicnn.text import pluralize

FIRST_CHECKS = (1, 2, 5, 10, 20, 50)    # then every hundredth step: failures at the start occur within a few steps

# The thresholds of the findings. Beside each, the value in healthy runs: the default run of mini (2,750 steps), LeNet's, and full-size
# AlexNet overfitting one batch with the Kaiming and with Caffe's init.
FIRST_LOSS_ABOVE = 2.0          # over ln(classes): logits of variance s^2 add s^2/2. Kaiming in the last layer too gives about 1
FIRST_LOSS_BELOW = 0.5          # of ln(classes): less than chance can reach. Lowest seen: 0.97
DEAD_FRACTION = 0.9             # of a layer's units. Seen: up to 0.36 (fc6 with Caffe's init)
VANISHED = 1e-4                 # of the largest gradient of a layer. Lowest seen: 0.03 (conv1 in the first step)
EXPLODED = 100.0                # times the gradient of the last layer. Highest seen: 3
FIRST_UPDATES = 20              # steps in which a last layer that starts small grows fast, as it should
LARGE_FIRST_UPDATE = 1.0        # of the norm of a layer's weights, in these steps. Highest seen: 0.2 (fc8)
LARGE_UPDATE = 0.1              # of their norm, afterwards. Highest seen: 0.03; 1e-3 is usual
SMALL_UPDATE = 1e-5             # of their norm: it would take 100,000 steps to change them. Lowest seen: 1e-4 (Caffe's init)
CHANCE_RATIO = 0.98             # of ln(classes): no better than the same prediction for every image
PLATEAU_RATIO = 0.98            # a loss above this times its former value has not moved
PLATEAU_STEPS = 300             # without movement, or as many as there are classes: a thousand take longer to begin with
TINY = 1e-30                    # replaces 0 in a division
HYSTERESIS = 0.5                # a finding ends, and may be reported again, below half of its threshold: this prevents flicker

# The codes of all findings and their messages. `this` is the number of the layer that is named.
FINDINGS = {
    "first-loss-high":
        "the first loss is {loss:.2f}, but a network that predicts every class alike has ln({classes}) = {chance_loss:.2f}: the last layer "
        "starts with too large weights, or the pixels are not scaled as the init needs (Kaiming: mean 0, variance 1); use --init kaiming",
    "first-loss-low":
        "the first loss is {loss:.3f}, but a network that knows nothing has ln({classes}) = {chance_loss:.2f}: is the number of classes "
        "right, are there labels of more than one class, and do the images not contain their labels?",
    "non-finite":
        "{what}{others}",
    "dead-relu":
        "{this:.0f} % of its units are zero for every image of this batch (\"dead\"), and dead units do not learn{others}; lower --lr, or "
        "start a new run with --init kaiming",
    "vanishing-gradient":
        "its gradient ({this:.1e}) is less than 1/10,000 of the largest ({largest:.1e}), so it hardly learns{others}; use ReLU, and start "
        "a new run with --init kaiming",
    "exploding-gradient":
        "its gradient is {this:.0f} times that of {last}, the last layer: it grows on its way back{others}; start a new run with "
        "--init kaiming, or lower --lr",
    "large-update":
        "one step changes its weights by {this:.3g} % of their norm, where 0.1 % is usual{others}; lower --lr to a tenth",
    "small-update":
        "one step changes its weights by {this:.1g} % of their norm, where 0.1 % is usual, and the loss is still high{others}; raise --lr",
    "plateau":
        "for {steps} steps it has been about {loss:.2f}, no better than chance, ln({classes}) = {chance_loss:.2f}; {cure}; see "
        "\"My loss is stuck at 6.9\", docs/stuck_loss.md in minicnn's repository",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One detected problem; `str()` gives it as a line, `vars()` as a dict for a JSON log.

    step: the number that TrainingMonitor.step was given.
    code: a key of FINDINGS, for programs.
    layer: dotted name of the first layer concerned, or "loss".
    message: what is wrong, and the likely fix.
    """

    step: int
    code: str
    layer: str
    message: str

    def __str__(self) -> str:
        return f"step {self.step}: {self.layer}: {self.message} [{self.code}]"


class TrainingMonitor:
    """Monitors the training of `model` by `optimizer`, as the `with` block above shows.

    Args:
        model: a Module.
        optimizer: the Optimizer that trains it. If its `last_update` returns None, the sizes of updates are not checked.
        classes: how many there are, at least 2; ln(classes) is the loss of equal probabilities for all classes.
        every: steps between two checks, after the first few.

    A finding about a layer is reported once, and again only after it has ended. Only causes are reported, not their consequences: if
    numbers are not finite, nothing else; of dead units, vanishing gradients and small updates, the first.
    Raises ValueError for fewer than two classes, and for an optimizer that has no parameter of this model.
    """

    def __init__(self, model: Module, optimizer: Optimizer, classes: int, every: int = 100) -> None:
        if classes < 2:
            raise ValueError(f"TrainingMonitor: classes must be at least 2, got {classes!r}")
        if every < 1:
            raise ValueError(f"TrainingMonitor: every must be at least 1, got {every!r}")
        self.optimizer, self.classes, self.every = optimizer, classes, every
        self.chance_loss = math.log(classes)
        self.trained = trained_parameters(model, optimizer)
        self.first_rates = [group["lr"] for group in optimizer.param_groups]
        self.relu_hook = ReLUHook(model)
        self.entered = self.hooked = False
        self.count = self.last_step = 0     # calls of step(); and the caller's number, which a resumed run does not count from 1
        self.losses: list[tuple[int, Any]] = []         # (step, loss) since the last check; a loss on a GPU stays there
        self.means: list[float] = []                    # mean losses between the checks
        self.active: set[tuple[str, str]] = set()       # (code, layer) of the findings that have not ended

    def __enter__(self) -> "TrainingMonitor":
        self.entered = True
        self.hook_if_due()
        return self

    def __exit__(self, *exc: object) -> None:
        self.entered = False
        self.unhook()

    def step(self, step: int, loss: Any) -> list[Finding]:
        """Record the loss of a step, and check the network if a check is due. Returns the new findings, most often none.

        Call it in each step, after `loss.backward()` and before `optimizer.step()`: a value that is not finite is then found before it
        gets into the weights.

        Args:
            step: the number of this step, counted from 0 or 1, or from where the run was resumed.
            loss: its loss: a Tensor, an array of shape (), or a number.
        """
        if not self.entered:
            raise RuntimeError("TrainingMonitor: use it as  with TrainingMonitor(model, optimizer, classes) as monitor: ...")
        loss = loss.data if isinstance(loss, Tensor) else loss
        self.losses.append((step, loss))
        self.count, self.last_step = self.count + 1, step
        on_gpu = is_array(loss) and device_of(loss) != "cpu"            # there, reading it would synchronize
        due = self.is_due(self.count) or not (on_gpu or math.isfinite(loss) or self.is_active("non-finite"))
        found = self.check() if due else []
        self.unhook()
        self.hook_if_due()
        return found

    def check(self) -> list[Finding]:
        """Check the network now, whether or not a check is due; for instance when the run has to end. Returns the new findings."""
        step = self.last_step
        losses, dead, layers = self.gather()
        found = self.first_loss(losses)
        broken = self.not_finite(step, losses, layers)
        if broken is not None:
            return found + broken
        found += self.dead_units(step, dead)
        ratio = {name: norms["update"] / norms["before"] for name, norms in layers.items() if norms["before"]}
        found += self.large_updates(step, ratio)
        if not self.is_active("dead-relu"):
            found += self.gradients(step, {name: norms["g"] for name, norms in layers.items()})
            if not self.is_active("vanishing-gradient"):
                found += self.small_updates(step, ratio, losses)
        return found + self.plateau(step, losses)

    # ---- the rules

    def first_loss(self, losses):
        """The loss of equal probabilities for all classes is ln(classes). Checked only at the start of a run."""
        if self.count != 1 or not losses or losses[0][0] > 1 or not math.isfinite(losses[0][1]):
            return []
        step, loss = losses[0]
        numbers = {"loss": loss, "classes": self.classes, "chance_loss": self.chance_loss}
        return (self.report(step, "first-loss-high", {"loss": (loss - self.chance_loss) / FIRST_LOSS_ABOVE}, **numbers)
                + self.report(step, "first-loss-low", {"loss": FIRST_LOSS_BELOW * self.chance_loss / max(loss, TINY)}, **numbers))

    def not_finite(self, step, losses, layers):
        """Weights, then the loss, then gradients: in one step, NaN spreads in this order. None if all are finite."""
        bad_losses = [(at, loss) for at, loss in losses if not math.isfinite(loss)]
        weights, gradients = ([name for name, norms in layers.items() if not math.isfinite(norms[kind]) and self.has_non_finite(name, kind)]
                              for kind in ("w", "g"))
        if not (weights or bad_losses or gradients):
            self.active = {(code, name) for code, name in self.active if code != "non-finite"}
            return None
        if self.is_active("non-finite"):
            return []
        if bad_losses and bad_losses[0][0] != step:             # on a GPU, where losses are read at a check only
            since, loss = bad_losses[0]
            bad, what = ["loss"], (f"it is {loss} since step {since}, and the weights may contain it by now: resume from a "
                                   "checkpoint; --detect-anomaly shows the op and the line; lower --lr if it overflowed")
        elif weights:
            bad, what = weights, "its weights are no longer finite: an earlier step was too large; resume from a checkpoint, and lower --lr"
        elif bad_losses:
            bad, what = ["loss"], (f"it is {bad_losses[0][1]}, while every weight is finite: an op overflowed, or the images contain NaN; "
                                   "--detect-anomaly shows the op and the line; lower --lr if it overflowed")
        else:               # backward runs from the last layer to the first, so the last of these layers is where it began
            bad, what = gradients[::-1], ("its gradient is not finite, while the loss is: backward went wrong in this layer, or between it "
                                          "and the loss; --detect-anomaly shows the op and the line")
        return self.report(step, "non-finite", dict.fromkeys(bad, 1.0), what=what)

    def dead_units(self, step, dead):
        """Where a ReLU outputs 0, no gradient passes: a unit that is 0 for all images never changes again."""
        return self.report(step, "dead-relu", {name: fraction / DEAD_FRACTION for name, fraction in dead.items()},
                           {name: 100 * fraction for name, fraction in dead.items()})

    def large_updates(self, step, ratio):
        """An update as large as the weights overwrites what they have learned."""
        limit = LARGE_FIRST_UPDATE if self.count <= FIRST_UPDATES else LARGE_UPDATE
        return self.report(step, "large-update", {name: r / limit for name, r in ratio.items()},
                           {name: 100 * r for name, r in ratio.items()})

    def gradients(self, step, norms):
        """How the norm of the gradient changes from layer to layer, from the last one back to the first."""
        largest, last = max(norms.values(), default=0.0), next(reversed(norms), "")
        if not 0 < largest < math.inf:
            return []
        found = []
        if self.count > 1:              # (a last layer of zeros passes no gradient back in the first step)
            back = list(norms.items())[::-1]                    # so the first layer on the way back is named
            found = self.report(step, "vanishing-gradient", {name: VANISHED * largest / max(g, TINY) for name, g in back}, norms,
                                largest=largest)
        times = {name: g / max(norms[last], TINY) for name, g in norms.items()}
        return found + self.report(step, "exploding-gradient", {name: t / EXPLODED for name, t in times.items()}, times, last=last)

    def small_updates(self, step, ratio, losses):
        """Updates too small to get anywhere, at the run's first learning rate: a schedule lowers it on purpose.

        Not checked where the loss is low: then small gradients are correct.
        """
        recent = mean(losses)
        if recent is None or recent < FIRST_LOSS_BELOW * self.chance_loss:
            return []
        decay = {layer: self.first_rates[group] / self.optimizer.param_groups[group]["lr"] for layer, _, _, group in self.trained}
        return self.report(step, "small-update", {name: SMALL_UPDATE / (r * decay[name]) for name, r in ratio.items() if r},
                           {name: 100 * r for name, r in ratio.items()})

    def plateau(self, step, losses):
        """A loss that stays at chance level for hundreds of steps: the famous 6.9."""
        recent = mean(losses)
        if recent is None or self.count % self.every:
            return []
        self.means.append(recent)
        checks = ceil_div(max(PLATEAU_STEPS, self.classes), self.every)
        if len(self.means) < checks:
            return []
        stuck = min(recent / (CHANCE_RATIO * self.chance_loss), recent / (PLATEAU_RATIO * self.means[-checks]))
        cure = "raise --lr" if self.is_active("small-update") else "lower --lr to a tenth, or start a new run with --init kaiming"
        return self.report(step, "plateau", {"loss": stuck}, ends_below=0.95, steps=checks * self.every, loss=recent, classes=self.classes,
                           chance_loss=self.chance_loss, cure=cure)

    def report(self, step, code, severity, this=None, ends_below=HYSTERESIS, **numbers):
        """[one Finding] for all layers whose severity has reached 1 and that have no active finding of this code; [] if there is none.

        Args:
            severity: {layer: what was measured, over its threshold}; below `ends_below` an active finding ends.
            this: {layer: the number in the message}.
            numbers: the other numbers in the message.
        """
        bad = [name for name, value in severity.items() if value >= 1]
        new = [name for name in bad if (code, name) not in self.active]
        self.active -= {(code, name) for name, value in severity.items() if value < ends_below}
        self.active |= {(code, name) for name in bad}
        if not new:
            return []
        others = f" (the same in {pluralize(len(new) - 1, 'other layer')})" if len(new) > 1 else ""
        return [Finding(step, code, new[0], FINDINGS[code].format(this=(this or {}).get(new[0]), others=others, **numbers))]

    def is_active(self, code):
        """Whether a finding of this code has not ended."""
        return any(code == active for active, _ in self.active)

    # ---- the measurements

    def is_due(self, n):
        """Whether the n-th call of step() checks the network."""
        return n in FIRST_CHECKS or n % self.every == 0

    def hook_if_due(self):
        """Install the hook on ReLU outputs for the next step if that step checks the network."""
        if self.is_due(self.count + 1):
            self.relu_hook.peaks.clear()
            self.relu_hook.__enter__()
            self.hooked = True

    def unhook(self):
        if self.hooked:
            self.relu_hook.__exit__()
            self.hooked = False

    def gather(self):
        """The measurements of a check, computed on the network's device and read together. Returns

        losses: [(step, loss), ...] since the last check.
        dead: {ReLU: fraction of its units that are dead}.
        layers: {layer: its norms}: of its weights, "w"; their gradient, "g"; their last update, "update"; and the weights before it,
            "before" (0 if they were 0 or the optimizer does not keep the update).
        """
        peaks = self.relu_hook.peaks if self.hooked else {}
        products = []                   # (layer, key, a, b) for each dot product
        for layer, p, number, _ in self.trained:
            if p.grad is not None:
                products += [(layer, "ww", p.data, p.data), (layer, "gg", p.grad, p.grad)]
                update = self.optimizer.last_update(number)
                if update is not None:
                    products += [(layer, "uu", update, update), (layer, "wu", p.data, update)]
        scalars = [loss for _, loss in self.losses]
        scalars += [(peak <= 0).mean(dtype=peak.dtype) for peak in peaks.values()]
        scalars += [dot(a, b) for _, _, a, b in products]
        values = iter(read_together(scalars, like=self.trained[0][1].data))
        losses = [(step, next(values)) for step, _ in self.losses]
        dead = {name: next(values) for name in peaks}
        sums: dict[str, dict[str, float]] = {}
        for layer, key, _, _ in products:
            of_layer = sums.setdefault(layer, {})
            of_layer[key] = of_layer.get(key, 0.0) + next(values)
        layers = {}
        for layer, s in sums.items():
            before = s["ww"] - 2 * s["wu"] + s["uu"] if "uu" in s else 0.0          # |w - update|^2
            layers[layer] = {"w": math.sqrt(s["ww"]), "g": math.sqrt(s["gg"]), "update": math.sqrt(s.get("uu", 0.0)),
                             "before": math.sqrt(before) if before > 1e-5 * s["ww"] else 0.0}
        self.losses = []
        return losses, dead, layers

    def has_non_finite(self, layer, kind):
        """Whether a weight ("w") or gradient ("g") of this layer is not finite; the sum of squares may overflow even if all are."""
        arrays = [p.data if kind == "w" else p.grad for name, p, _, _ in self.trained if name == layer and p.grad is not None]
        return not all(bool(xp_of(a).isfinite(a).all()) for a in arrays)


class ReLUHook(Hook):
    """For each ReLU, the largest output of each unit (of a convolution: each filter) over the batch, on the network's device.

    peaks: {layer: (C,)}.
    """

    def __init__(self, model: Module) -> None:
        self.names = {id(module): name or "(model)" for name, module in model.named_modules()}
        self.running: list[str] = []            # the layers that are running, the innermost last
        self.peaks: dict[str, Any] = {}

    def before_module(self, module, inputs):
        self.running.append(self.names.get(id(module), type(module).__name__))

    def after_module(self, module, inputs, output):
        self.running.pop()

    def after_forward(self, function, arrays, y, saved):
        if not isinstance(function, ReLU) or not function.inputs or y.ndim < 2:         # (evaluation records no inputs)
            return
        name = self.running[-1] if self.running else "relu"
        peak = y.max(axis=tuple(axis for axis in range(y.ndim) if axis != 1))           # (C,)
        known = self.peaks.setdefault(name, peak)
        if known.shape == peak.shape:       # the same layer again, for another part of the batch
            self.peaks[name] = xp_of(peak).maximum(known, peak)

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.running.clear()


def trained_parameters(model: Module, optimizer: Optimizer) -> list[tuple[str, Tensor, int, int]]:
    """(layer, parameter, its index in the optimizer, its group's index) for each parameter of the model that is trained, in order."""
    indices = {id(p): i for i, p in enumerate(optimizer.params)}
    groups = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
    rows = [(name.rpartition(".")[0] or name, p, indices[id(p)], groups[id(p)]) for name, p in model.named_parameters() if id(p) in indices]
    if not rows:
        raise ValueError("TrainingMonitor: this optimizer has none of the parameters of this model; was it created for another one?")
    return rows


def read_together(scalars, like):
    """The Python numbers of many arrays of shape () on the device of `like`, read with one synchronization."""
    xp = xp_of(like)
    with device_scope(like):
        return to_device(xp.stack([xp.asarray(s) for s in scalars]), "cpu").tolist() if scalars else []


def mean(losses):
    """The mean of [(step, loss), ...], or None if there is none."""
    return math.fsum(loss for _, loss in losses) / len(losses) if losses else None
