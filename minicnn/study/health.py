"""Is this training going well? Every now and then a look inside, and one line for each thing that is wrong, with its likely cure.

    with Health(model, optimizer, classes=10) as health:
        for step, (x, labels) in enumerate(batches, start=1):
            loss = mc.ops.cross_entropy(model(mc.Tensor(x)), labels)
            optimizer.zero_grad()
            loss.backward()
            for finding in health.step(step, loss):
                print(finding)          # step 20: relu4: 97 % of its units are silent for every image of this batch; lower --lr ...
            optimizer.step()

A look costs a fraction of a step and comes every hundred steps (and a few times at the start, where most goes wrong); between
two looks only the loss is kept. All numbers are computed where the network lives, and read together: a GPU is waited for once a look.
"""

import dataclasses
import math

from minicnn.autograd import Hook
from minicnn.backend import device_of, device_scope, is_array, memory_order, to_device, xp_of
from minicnn.ops.relu import ReLU
from minicnn.tensor import Tensor

FIRST_LOOKS = (1, 2, 5, 10, 20, 50)     # then every hundredth step: what goes wrong at the start goes wrong within a few steps

# From where on something is wrong. Beside each, what healthy runs showed: the default run of mini (2,750 steps), LeNet's, and full-size
# AlexNet learning a batch by heart with He's and Caffe's init.
FIRST_LOSS_ABOVE = 2.0          # over ln(classes): scores of variance s^2 add s^2/2. He's Gaussian in the last layer too gives about 1
FIRST_LOSS_BELOW = 0.5          # of ln(classes): chance does not know so much. Lowest seen: 0.97
DEAD_SHARE = 0.9                # of a layer's units. Seen: up to 0.36 (fc6 with Caffe's init)
VANISHED = 1e-4                 # of the largest gradient of a layer. Lowest seen: 0.03 (conv1 in the first step)
EXPLODED = 100.0                # times the gradient of the last layer. Highest seen: 3
FIRST_UPDATES = 20              # steps in which a last layer that starts small grows fast, as it should
LARGE_FIRST_UPDATE = 1.0        # of what a layer's weights were, in these steps. Highest seen: 0.2 (fc8)
LARGE_UPDATE = 0.1              # of what they were, later. Highest seen: 0.03; 1e-3 is usual
SMALL_UPDATE = 1e-5             # of a layer's weights: it would take 100,000 steps to change them. Lowest seen: 1e-4 (Caffe's init)
GUESSING = 0.98                 # of ln(classes): no better than any answer for any image
STILL = 0.98                    # a loss that is no lower than this times what it was has not moved
PLATEAU_STEPS = 300             # without movement, or as many as there are classes: who has a thousand to learn needs longer to begin
TINY = 1e-30                    # in place of 0, where something is divided
WELL = 0.5                      # a finding is over, and may be made again, below half of what made it: none comes and goes

# Every code there is, and what is said then. `this` is the number of the layer that is named.
FINDINGS = {
    "first-loss-high":
        "the first is {loss:.2f}, but a network with no opinion has ln({classes}) = {blank:.2f}: the last layer starts too large, or the "
        "pixels are not scaled as the init wants (He's: mean 0, variance 1); use --init he",
    "first-loss-low":
        "the first is {loss:.3f}, but a network that knows nothing has ln({classes}) = {blank:.2f}: is the number of classes right, are "
        "there labels of more than one class, and do the images not give them away?",
    "non-finite":
        "{what}{others}",
    "dead-relu":
        "{this:.0f} % of its units are silent for every image of this batch, and silent units do not learn{others}; lower --lr, or start "
        "anew with --init he",
    "vanishing-gradient":
        "its gradient ({this:.1e}) is less than 1/10,000 of the largest ({largest:.1e}), so it hardly learns{others}; use ReLU, and start "
        "anew with --init he",
    "exploding-gradient":
        "its gradient is {this:.0f} times that of {last}, the last layer: it grows on its way back{others}; start anew with --init he, or "
        "lower --lr",
    "large-update":
        "one step changes its weights by {this:.3g} % of their size, where 0.1 % is usual{others}; lower --lr to a tenth",
    "small-update":
        "one step changes its weights by {this:.1g} % of their size, where 0.1 % is usual, and the loss is still high{others}; raise --lr",
    "plateau":
        "for {steps} steps it has been about {loss:.2f}, no better than guessing, ln({classes}) = {blank:.2f}; {cure}; see \"My loss is "
        "stuck at 6.9\" in the README",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong; `str()` gives it as a line, `vars()` as a dict for a JSON log.

    step: as it was given.   code: a key of FINDINGS, for programs.   layer: dotted name of the first layer it is about, or "loss".
    message: what is wrong, and what is likely to cure it.
    """

    step: int
    code: str
    layer: str
    message: str

    def __str__(self):
        return f"step {self.step}: {self.layer}: {self.message} [{self.code}]"


class Health:
    """Watches the training of `model` by `optimizer`, as the `with` block above shows.

    Args:
        model: a Module.   optimizer: the SGD that trains it.
        classes: how many there are, at least 2; ln(classes) is the loss of a network with no opinion.
        every: steps between two looks, after the first few.

    A finding about a layer is made once, until the layer got better. One look names causes, not what follows from them: where numbers
    are not finite nothing else is said; of dead units, small gradients and small steps only the first.
    Raises ValueError for fewer than two classes, and for an optimizer that has no parameter of this model.
    """

    def __init__(self, model, optimizer, classes, every=100):
        if classes < 2:
            raise ValueError(f"Health: classes is at least 2, not {classes!r}")
        if every < 1:
            raise ValueError(f"Health: every is at least 1, not {every!r}")
        self.optimizer, self.classes, self.every = optimizer, classes, every
        self.blank = math.log(classes)      # the loss of a network with no opinion
        self.trained = trained(model, optimizer)
        self.first_rates = [group["lr"] for group in optimizer.groups]
        self.watch = ReLUWatch(model)
        self.entered = self.watching = False
        self.count = self.now = 0           # calls of step(); and the caller's number, which may go on from an earlier run
        self.losses: list = []              # (step, loss) since the last look; a loss on a GPU is left there
        self.means: list[float] = []        # of the loss, between looks
        self.told: set = set()              # (code, layer) of what was found and is not over

    def __enter__(self):
        self.entered = True
        self.watch_next()
        return self

    def __exit__(self, *exc):
        self.entered = False
        self.unwatch()

    def step(self, step, loss):
        """What is wrong, as a list of Findings, most often empty.

        Call it in each step, after `loss.backward()` and before `optimizer.step()`: a value that is not finite is then found
        before the weights are lost to it.

        Args:
            step: the number of this step, counted from 0 or 1; from elsewhere when a run is resumed.
            loss: its loss, a Tensor, an array of one number, or a number.
        """
        if not self.entered:
            raise RuntimeError("Health: use it as  with Health(model, optimizer, classes) as health: ...")
        loss = loss.data if isinstance(loss, Tensor) else loss
        self.losses.append((step, loss))
        self.count, self.now = self.count + 1, step
        on_gpu = is_array(loss) and device_of(loss) != "cpu"            # there, to read it would mean to wait for it
        looks = self.is_look(self.count) or not (on_gpu or math.isfinite(loss) or self.is_told("non-finite"))
        found = self.look() if looks else []
        self.unwatch()
        self.watch_next()
        return found

    def look(self):
        """Look now, whatever the count; for instance when the run has to end. Returns a list of Findings, of the last step."""
        step = self.now
        losses, silent, layers = self.gather()
        found = self.first_loss(losses)
        broken = self.not_finite(step, losses, layers)
        if broken is not None:
            return found + broken
        found += self.dead(step, silent)
        ratio = {name: n["v"] / n["u"] for name, n in layers.items() if n["u"]}         # how far the last step went
        found += self.large_updates(step, ratio)
        if not self.is_told("dead-relu"):
            found += self.gradients(step, {name: n["g"] for name, n in layers.items()})
            if not self.is_told("vanishing-gradient"):
                found += self.small_updates(step, ratio, losses)
        return found + self.plateau(step, losses)

    # ---- the rules

    def first_loss(self, losses):
        """The loss of a network with no opinion is ln(classes); only for a run from its start."""
        if self.count != 1 or not losses or losses[0][0] > 1 or not math.isfinite(losses[0][1]):
            return []
        step, loss = losses[0]
        numbers = {"loss": loss, "classes": self.classes, "blank": self.blank}
        return (self.tell(step, "first-loss-high", {"loss": (loss - self.blank) / FIRST_LOSS_ABOVE}, **numbers)
                + self.tell(step, "first-loss-low", {"loss": FIRST_LOSS_BELOW * self.blank / max(loss, TINY)}, **numbers))

    def not_finite(self, step, losses, layers):
        """In one step, weights before the loss before gradients: each spoils what comes after it. None if all are finite."""
        bad_losses = [(at, loss) for at, loss in losses if not math.isfinite(loss)]
        weights, gradients = ([name for name, n in layers.items() if not math.isfinite(n[kind]) and self.holds_bad(name, kind)]
                              for kind in ("w", "g"))
        if not (weights or bad_losses or gradients):
            self.told = {(code, name) for code, name in self.told if code != "non-finite"}
            return None
        if self.is_told("non-finite"):
            return []
        if bad_losses and bad_losses[0][0] != step:             # on a GPU, which is not asked in every step
            since, loss = bad_losses[0]
            bad, what = ["loss"], (f"it is {loss} since step {since}, and by now the weights may have taken it up: go back to a "
                                   "checkpoint; --detect-anomaly shows which op it was, and where; lower --lr if it overflowed")
        elif weights:
            bad, what = weights, "its weights are no longer finite: an earlier step was too large; go back to a checkpoint, and lower --lr"
        elif bad_losses:
            bad, what = ["loss"], (f"it is {bad_losses[0][1]}, while every weight is finite: an op overflowed, or the images hold NaN; "
                                   "--detect-anomaly shows which op it was, and where; lower --lr if it overflowed")
        else:               # backward walks from the last layer to the first, so it began with the last of them
            bad, what = gradients[::-1], ("its gradient is not finite, while the loss is: backward went wrong in this layer, or between it "
                                          "and the loss; --detect-anomaly shows which op it was, and where")
        return self.tell(step, "non-finite", dict.fromkeys(bad, 1.0), what=what)

    def dead(self, step, silent):
        """Where a ReLU gives 0, no gradient passes: a unit that is silent for all images stays as it is for ever."""
        return self.tell(step, "dead-relu", {name: share / DEAD_SHARE for name, share in silent.items()},
                         {name: 100 * share for name, share in silent.items()})

    def large_updates(self, step, ratio):
        """A step that changes much of what is there forgets it."""
        limit = LARGE_FIRST_UPDATE if self.count <= FIRST_UPDATES else LARGE_UPDATE
        return self.tell(step, "large-update", {name: r / limit for name, r in ratio.items()}, {name: 100 * r for name, r in ratio.items()})

    def gradients(self, step, norms):
        """How gradients change from layer to layer on their way back."""
        largest, last = max(norms.values(), default=0.0), next(reversed(norms), "")
        if not 0 < largest < math.inf:
            return []
        found = []
        if self.count > 1:              # (a last layer that starts at 0 lets nothing through before its first step)
            back = list(norms.items())[::-1]                    # named is the first one on the way back
            found = self.tell(step, "vanishing-gradient", {name: VANISHED * largest / max(g, TINY) for name, g in back}, norms,
                              largest=largest)
        times = {name: g / max(norms[last], TINY) for name, g in norms.items()}
        return found + self.tell(step, "exploding-gradient", {name: t / EXPLODED for name, t in times.items()}, times, last=last)

    def small_updates(self, step, ratio, losses):
        """Steps too small to arrive; as they would be at the first rate, since a schedule lowers it with intent.

        Not where the loss is low: who knows the answers has little to correct.
        """
        recent = mean(losses)
        if recent is None or recent < FIRST_LOSS_BELOW * self.blank:
            return []
        first = {layer: self.first_rates[group] / self.optimizer.groups[group]["lr"] for layer, _, _, group in self.trained}
        return self.tell(step, "small-update", {name: SMALL_UPDATE / (r * first[name]) for name, r in ratio.items() if r},
                         {name: 100 * r for name, r in ratio.items()})

    def plateau(self, step, losses):
        """The famous 6.9: hundreds of steps, and no better than guessing."""
        recent = mean(losses)
        if recent is None or self.count % self.every:
            return []
        self.means.append(recent)
        looks = -(-max(PLATEAU_STEPS, self.classes) // self.every)
        if len(self.means) < looks:
            return []
        stuck = min(recent / (GUESSING * self.blank), recent / (STILL * self.means[-looks]))
        cure = "raise --lr" if self.is_told("small-update") else "lower --lr to a tenth, or start anew with --init he"
        return self.tell(step, "plateau", {"loss": stuck}, well=0.95, steps=looks * self.every, loss=recent, classes=self.classes,
                         blank=self.blank, cure=cure)

    def tell(self, step, code, badness, by_layer=None, well=WELL, **numbers):
        """One Finding for all layers whose badness has reached 1 and that were not told of yet; below `well` a layer is well again."""
        bad = [name for name, value in badness.items() if value >= 1]
        new = [name for name in bad if (code, name) not in self.told]
        self.told -= {(code, name) for name, value in badness.items() if value < well}
        self.told |= {(code, name) for name in bad}
        if not new:
            return []
        others = "" if len(new) == 1 else f" (and so for {len(new) - 1} other layer{'s' * (len(new) > 2)})"
        return [Finding(step, code, new[0], FINDINGS[code].format(this=(by_layer or {}).get(new[0]), others=others, **numbers))]

    def is_told(self, code):
        """Whether a finding of this code is not over."""
        return any(code == known for known, _ in self.told)

    # ---- how

    def is_look(self, n):
        """Whether the n-th call of step() looks."""
        return n in FIRST_LOOKS or n % self.every == 0

    def watch_next(self):
        if self.is_look(self.count + 1):
            self.watch.peaks.clear()
            self.watch.__enter__()
            self.watching = True

    def unwatch(self):
        if self.watching:
            self.watch.__exit__()
            self.watching = False

    def gather(self):
        """What a look needs, computed where it is and read at once. Returns

        losses: [(step, loss), ...] since the last look.
        silent: for each ReLU, the share of its units that are silent.
        layers: for each layer, the norms of its weights "w", of their gradient "g", of their last step "v", and of what the weights
            were before it, "u" (0 for one that began there).
        """
        peaks = self.watch.peaks if self.watching else {}
        rows = [(layer, p.data, p.grad, self.optimizer.velocities[number]) for layer, p, number, _ in self.trained if p.grad is not None]
        scalars = [loss for _, loss in self.losses]
        scalars += [(peak <= 0).mean(dtype=peak.dtype) for peak in peaks.values()]
        scalars += [dot(a, b) for _, w, g, v in rows for a, b in ((w, w), (g, g), (v, v), (w, v))]
        values = iter(read_together(scalars, like=self.trained[0][1].data))
        losses = [(step, next(values)) for step, _ in self.losses]
        silent = {name: next(values) for name in peaks}
        sums: dict = {}
        for layer, *_ in rows:
            sums[layer] = [total + next(values) for total in sums.get(layer, [0.0] * 4)]
        layers = {}
        for layer, (ww, gg, vv, wv) in sums.items():
            uu = ww - 2 * wv + vv                       # |w - v|^2
            layers[layer] = {"w": math.sqrt(ww), "g": math.sqrt(gg), "v": math.sqrt(vv), "u": math.sqrt(uu) if uu > 1e-5 * ww else 0.0}
        self.losses = []
        return losses, silent, layers

    def holds_bad(self, layer, what):
        """Whether a weight ("w") or gradient ("g") of this layer is really not finite: a sum of squares may be infinite without."""
        arrays = [p.data if what == "w" else p.grad for name, p, _, _ in self.trained if name == layer and p.grad is not None]
        return not all(bool(xp_of(a).isfinite(a).all()) for a in arrays)


class ReLUWatch(Hook):
    """For each ReLU, the largest answer of each unit (of a convolution: each filter) over the batch; on the device, not read."""

    def __init__(self, model):
        self.names = {id(module): name or "(model)" for name, module in model.named_modules()}
        self.inside: list[str] = []             # the layers that are running, the innermost last
        self.peaks: dict = {}                   # name -> (C,)

    def before_module(self, module, inputs):
        self.inside.append(self.names.get(id(module), type(module).__name__))

    def after_module(self, module, inputs, output):
        self.inside.pop()

    def after_forward(self, function, arrays, y, saved):
        if not isinstance(function, ReLU) or not function.inputs or y.ndim < 2:         # (evaluation records no inputs)
            return
        name = self.inside[-1] if self.inside else "relu"
        peak = y.max(axis=tuple(axis for axis in range(y.ndim) if axis != 1))           # (C,)
        where = self.peaks.setdefault(name, peak)
        if where.shape == peak.shape:       # the same layer once more, for another part of the batch
            self.peaks[name] = xp_of(peak).maximum(where, peak)

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.inside.clear()


def trained(model, optimizer):
    """For each parameter of the model that is trained, in order: (layer, parameter, its number in the optimizer, its group's number)."""
    numbers = {id(p): i for i, p in enumerate(optimizer.params)}
    groups = {id(p): i for i, group in enumerate(optimizer.groups) for p in group["params"]}
    rows = [(name.rpartition(".")[0] or name, p, numbers[id(p)], groups[id(p)]) for name, p in model.named_parameters() if id(p) in numbers]
    if not rows:
        raise ValueError("Health: this optimizer has none of the parameters of this model; was the optimizer made for another one?")
    return rows


def dot(a, b):
    """The sum of a * b, one number, where the arrays are."""
    order = memory_order(a)                             # as they lie in memory, so that nothing is copied
    a, b = (array.transpose(order).reshape(-1) for array in (a, b))
    with device_scope(a):
        return xp_of(a).vdot(a, b)


def read_together(scalars, like):
    """Python numbers of many single numbers that are on the device of `like`: it is waited for once."""
    xp = xp_of(like)
    with device_scope(like):
        return to_device(xp.stack([xp.asarray(s) for s in scalars]), "cpu").tolist() if scalars else []


def mean(losses):
    """The mean loss, or None if there is none."""
    return math.fsum(loss for _, loss in losses) / len(losses) if losses else None
