"""TrainingMonitor reports what is wrong with a run, and nothing about a healthy one; detect_anomaly finds op, layer and line of a NaN."""

import contextlib
import gc
import json
import math
import weakref

import numpy as np
import pytest

import minicnn as mc
from minicnn import Tensor, ops
from minicnn.examples.alexnet import alexnet, alexnet_paper_
from minicnn.hooks import active_hooks
from minicnn.inspect.anomaly import AnomalyError, detect_anomaly
from minicnn.nn import Flatten, Linear, Module, ReLU, Sequential, Sigmoid
from minicnn.train import monitor as monitor_module
from minicnn.train.monitor import FINDINGS, FIRST_CHECKS, TrainingMonitor

BATCH = 32


@pytest.fixture(scope="module")
def fashion():
    """1,024 images of Fashion-MNIST, (N, 1, 28, 28), of mean 0 and variance 1, and their labels."""
    data = mc.data.FashionMNIST("train")
    images = data.images[:1024].astype(np.float32).transpose(0, 3, 1, 2)
    return (images - images.mean()) / images.std(), data.labels[:1024]


def small(depth=3, activation=ReLU):
    """A network of linear layers, fc1 to fc<depth>, that computes a thousand steps a second; Kaiming init."""
    layers = {"flatten": Flatten()}
    for i in range(1, depth):
        layers |= {f"fc{i}": Linear(784 if i == 1 else 48, 48), f"act{i}": activation()}
    model = Sequential(**layers, **{f"fc{depth}": Linear(48, 10)})
    mc.nn.init.kaiming_(model)
    return model


def train(model, data, steps=1, lr=0.02, classes=10, first=1, every=100, schedule=None, change=None, device="cpu"):
    """Train for some steps, and return the findings. `change(step, x)` may change the model or the images in a step."""
    images, labels = data
    model.to(device)
    optimizer = mc.optim.SGD(model.parameters(), lr)
    schedule = schedule and schedule(optimizer)
    found = []
    with TrainingMonitor(model, optimizer, classes, every) as monitor, np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for step in range(first, first + steps):
            n = np.arange(step * BATCH, (step + 1) * BATCH) % len(images)
            x = images[n]
            if change:
                change(step, x)
            loss = ops.cross_entropy(model(Tensor(x, device=device)), labels[n])
            optimizer.zero_grad()
            loss.backward()
            found += monitor.step(step, loss)
            optimizer.step()
            if schedule:
                schedule.step()
    assert active_hooks() == []
    return found


def codes(found):
    return [(f.step, f.code, f.layer) for f in found]


# ---- healthy runs

def test_a_healthy_run_is_quiet_from_the_first_step_to_the_last(fashion, device):
    steps = 600 if device == "cpu" else 20          # (a GPU that is emulated is slow)
    model = small()
    assert train(model, fashion, steps, schedule=lambda o: mc.optim.LinearLR(o, steps), device=device) == []
    scores = model.to("cpu")(Tensor(fashion[0])).numpy()
    assert (scores.argmax(axis=1) == fashion[1]).mean() > (0.9 if device == "cpu" else 0.4)        # it was one


def test_alexnet_is_quiet_in_its_first_steps(fashion):
    model = alexnet("mini", 10, 1)
    mc.nn.init.kaiming_(model)
    assert train(model, fashion, steps=10) == []


def test_a_last_layer_of_zeros_is_a_healthy_start(fashion):
    """No gradient flows back in the first step, and that step changes the layer by more than its norm."""
    model = small()
    model.fc3.weight.data[...] = 0
    assert train(model, fashion, steps=60) == []


def test_the_monitor_changes_nothing(fashion):
    images, labels = fashion
    monitored, alone = small(), small()
    alone.load_state_dict(monitored.state_dict())
    train(monitored, fashion, steps=12)
    optimizer = mc.optim.SGD(alone.parameters(), 0.02)
    for step in range(1, 13):
        n = slice(step * BATCH, (step + 1) * BATCH)
        optimizer.zero_grad()
        ops.cross_entropy(alone(Tensor(images[n])), labels[n]).backward()
        optimizer.step()
    np.testing.assert_equal(monitored.state_dict(), alone.state_dict())


# ---- each finding, in a run in which it is true

def scaled_last_layer(data, device):
    model = small()
    model.fc3.weight.data *= 50
    return train(model, data, device=device), (1, "first-loss-high", "loss"), ["ln(10) = 2.30", "--init kaiming"]


def more_classes_than_there_are(data, device):
    return train(small(), data, classes=1000, device=device), (1, "first-loss-low", "loss"), ["ln(1000) = 6.91", "number of classes"]


def nan_in_the_data(data, device):
    def plant(step, x):
        if step == 7:                               # a step without a check
            x[3, 0, 5, 5] = np.nan
    if device == "cpu":
        return train(small(), data, 7, change=plant), (7, "non-finite", "loss"), ["it is nan", "images contain NaN", "--detect-anomaly"]
    found = train(small(), data, 12, change=plant, device=device)                   # the loss is not waited for: the next check finds it
    return found, (10, "non-finite", "loss"), ["it is nan since step 7", "resume from a checkpoint", "--detect-anomaly"]


def biases_of_minus_100(data, device):
    model = small()
    model.fc2.bias.data[...] = -100
    return train(model, data, steps=10, device=device), (1, "dead-relu", "act2"), ["100 % of its units are zero", "lower --lr"]


def sigmoids(data, device):
    """Each layer passes back a quarter at best."""
    model = small(9, Sigmoid)
    for i in range(1, 10):
        model[f"fc{i}"].weight.data *= 0.3
    return train(model, data, steps=2, device=device), (2, "vanishing-gradient", "fc6"), ["the same in 5 other layers", "use ReLU"]


def layers_out_of_balance(data, device):
    model = small()
    model.fc2.weight.data /= 1000                   # the output stays the same; the gradient is 1,000 times as large
    model.fc3.weight.data *= 1000
    return train(model, data, device=device), (1, "exploding-gradient", "fc2"), ["times that of fc3", "--init kaiming"]


def a_rate_of_1(data, device):
    return train(small(), data, steps=2, lr=1.0, device=device), (2, "large-update", "fc3"), ["0.1 % is usual", "lower --lr"]


def a_rate_of_a_billionth(data, device):
    return train(small(), data, steps=2, lr=1e-9, device=device), (2, "small-update", "fc1"), ["2 other layers", "raise --lr"]


def a_plateau(data, device):
    found = train(small(), data, steps=30, lr=1e-9, every=10, device=device, classes=9.9)
    if found[0].code == "small-update":         # it is one too, where the optimiser keeps its update
        del found[0]
    return found, (30, "plateau", "loss"), ["no better than chance", "--lr", "stuck at 6.9", "docs/stuck_loss.md"]


PROVOKED = {"first-loss-high": scaled_last_layer, "first-loss-low": more_classes_than_there_are, "non-finite": nan_in_the_data,
            "dead-relu": biases_of_minus_100, "vanishing-gradient": sigmoids, "exploding-gradient": layers_out_of_balance,
            "large-update": a_rate_of_1, "small-update": a_rate_of_a_billionth, "plateau": a_plateau}


@pytest.mark.parametrize("code", FINDINGS)
def test_finding(code, fashion, device, monkeypatch):
    monkeypatch.setattr(monitor_module, "PLATEAU_STEPS", 30)
    found, what, words = PROVOKED[code](fashion, device)
    assert codes(found) == [what]                                   # this one, once, and no other
    assert code != "plateau" or "raise --lr" in found[0].message
    for word in words:
        assert word in found[0].message
    assert len(str(found[0]).splitlines()) == 1
    assert str(found[0]).startswith(f"step {what[0]}: {what[2]}: ")
    assert json.loads(json.dumps(vars(found[0]))) == {"step": what[0], "code": code, "layer": what[2], "message": found[0].message}


class PlainDescent(mc.optim.Optimizer):
    """A user's optimiser, which does not keep its last update."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= group["lr"] * p.grad


@pytest.mark.parametrize("code", FINDINGS)
def test_an_optimizer_that_does_not_keep_its_update(code, fashion, monkeypatch):
    """What does not depend on the update is found as with SGD; the sizes of updates are not checked."""
    monkeypatch.setattr(monitor_module, "PLATEAU_STEPS", 30)
    monkeypatch.setattr(mc.optim, "SGD", PlainDescent)
    found, finding, _ = PROVOKED[code](fashion, "cpu")
    assert codes(found) == ([] if code in ("large-update", "small-update") else [finding])


def test_an_optimizer_without_updates_trains_quietly(fashion, monkeypatch):
    monkeypatch.setattr(mc.optim, "SGD", PlainDescent)
    assert train(small(), fashion, 200, lr=0.05) == []


# ---- the rules, more closely

def test_the_papers_biases_and_a_rate_of_1_kill_units_of_alexnet(fashion):
    model = alexnet("mini", 10, 1)
    alexnet_paper_(model)
    found = train(model, fashion, steps=5, lr=1.0)
    assert codes(found)[0] == (2, "large-update", "fc8")
    assert any(f.code == "dead-relu" and f.layer.startswith("relu") for f in found)


def test_divergence_is_reported_before_and_when_numbers_are_not_finite(fashion):
    found = train(small(), fashion, steps=50, lr=30.0)
    assert codes(found)[0] == (2, "large-update", "fc1")
    assert [f.code for f in found].count("non-finite") <= 1
    assert "non-finite" in [f.code for f in train(small(), fashion, steps=50, lr=1e12)]


def test_non_finite_weights_are_named_if_the_monitor_is_called_after_the_update(fashion):
    model = small()
    optimizer = mc.optim.SGD(model.parameters(), 1e30)
    with TrainingMonitor(model, optimizer, 10) as monitor, np.errstate(over="ignore", invalid="ignore"):
        found = []
        for step in range(1, 8):
            loss = ops.cross_entropy(model(Tensor(fashion[0][:BATCH])), fashion[1][:BATCH])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found += monitor.step(step, loss)
    broken = [f for f in found if f.code == "non-finite"]
    assert len(broken) == 1
    assert broken[0].layer.startswith("fc")
    assert "its weights are no longer finite" in broken[0].message


class Root(Module):
    """sqrt(max(x, 0)): its slope at 0 is infinite."""

    def forward(self, x):
        return ops.relu(x) ** 0.5


def test_a_non_finite_gradient_of_a_finite_loss_names_the_layer_of_backward(fashion):
    model = Sequential(flatten=Flatten(), fc1=Linear(784, 48), fc2=Linear(48, 48), root=Root(), fc3=Linear(48, 10))
    mc.nn.init.kaiming_(model)
    (found,) = train(model, fashion)
    assert codes([found]) == [(1, "non-finite", "fc2")]
    assert "its gradient is not finite, while the loss is" in found.message
    assert "1 other layer)" in found.message


def test_the_first_loss_is_only_checked_at_the_start_of_a_run(fashion):
    model = small()
    model.fc3.weight.data *= 50
    assert "first-loss-high" not in [f.code for f in train(model, fashion, first=500)]


def test_a_finding_is_reported_again_only_after_it_has_ended(fashion):
    model = small()

    def dead_alive_dead(step, x):
        model.fc2.bias.data[...] = 0 if 20 <= step < 40 else -100
    found = train(model, fashion, steps=80, every=10, change=dead_alive_dead)
    assert [f.step for f in found if f.code == "dead-relu"] == [1, 40]


def test_a_rate_lowered_by_its_schedule_is_no_small_update(fashion):
    """Random labels keep the loss high. Negative control: the same rate from the start is reported."""
    nonsense = fashion[0], np.random.default_rng(0).integers(0, 10, len(fashion[1]))
    assert train(small(), nonsense, steps=60, every=10, schedule=lambda o: mc.optim.StepLR(o, 12, 1e-6)) == []
    assert "small-update" in [f.code for f in train(small(), nonsense, steps=60, every=10, lr=0.02e-6)]


@pytest.mark.parametrize("what, losses, plateau", [
    ("stays at ln(10)", np.full(40, 2.30), True),
    ("stays far above", np.full(40, 22.0), True),
    ("is far above, and falls", np.linspace(8, 3, 40), False),
    ("stays, lower than chance", np.full(40, 2.2), False),
    ("stays, but not for long", np.linspace(4, 2.30, 10).tolist() + [2.30] * 10, False),
])
def test_a_plateau_is_a_loss_that_does_not_move_and_is_no_better_than_chance(what, losses, plateau, monkeypatch):
    monkeypatch.setattr(monitor_module, "PLATEAU_STEPS", 30)
    model = small()
    with TrainingMonitor(model, mc.optim.SGD(model.parameters(), 0.1), 10, every=10) as monitor:
        found = [f for step, loss in enumerate(losses, start=2) for f in monitor.step(step, float(loss))]
    assert [f.code for f in found] == (["plateau"] if plateau else [])


def test_a_large_update_late_in_a_run_is_found(fashion):
    found = train(small(), fashion, steps=50, every=10, schedule=lambda o: mc.optim.StepLR(o, 31, 10.0))
    assert min(f.step for f in found) == 40
    assert "large-update" in [f.code for f in found]


def test_small_updates_are_not_reported_where_the_loss_is_low(fashion):
    model = small()
    train(model, fashion, steps=300)
    assert train(model, fashion, steps=20, lr=1e-9, first=300) == []


def test_units_that_are_active_in_evaluation_only_are_dead(fashion):
    """The hook is installed before the step that checks; an evaluation before that step does not count."""
    model = small()
    model.fc1.bias.data[...] = -100

    def evaluate(step, x):
        with mc.no_grad():
            assert (model.act1(model.fc1(model.flatten(Tensor(1000 * x)))).numpy() > 0).any(axis=0).mean() > 0.5
    assert codes(train(model, fashion, change=evaluate)) == [(1, "dead-relu", "act1")]


def test_a_batch_in_two_parts_is_one_batch(fashion):
    """Every unit is 0 for one half of it, and none for both."""
    x = fashion[0][:2]
    model = Sequential(flatten=Flatten(), fc1=Linear(784, 2), act1=ReLU(), fc2=Linear(2, 10))
    rows = x.reshape(2, -1)
    model.fc1.weight.data[...] = np.linalg.pinv(rows).T                 # unit i is 1 for image i and 0 for the other
    model.fc1.bias.data[...] = -0.5
    optimizer = mc.optim.SGD(model.parameters(), 0.01)
    for parts, dead in (([x[:1], x[1:]], 0.0), ([x[:1]], 0.5)):
        with TrainingMonitor(model, optimizer, 10) as monitor:
            for part in parts:
                ops.cross_entropy(model(Tensor(part)), fashion[1][:1]).backward()
            assert monitor.gather()[1] == {"act1": dead}


# ---- cost and side effects

def test_between_checks_nothing_is_hooked_and_nothing_but_the_loss_is_read(fashion, device, monkeypatch):
    checked, reads = [], []
    gather, read = TrainingMonitor.gather, monitor_module.to_device
    monkeypatch.setattr(TrainingMonitor, "gather", lambda self: checked.append(self.count) or gather(self))
    monkeypatch.setattr(monitor_module, "to_device", lambda *a: reads.append(1) or read(*a))
    hooked = []
    train(small(), fashion, steps=45, every=20, change=lambda step, x: hooked.append(step) if active_hooks() else None, device=device)
    assert checked == hooked == [n for n in sorted({*FIRST_CHECKS, 40}) if n <= 45]
    assert len(reads) == len(checked)               # all numbers of a check at once


def test_a_check_on_demand(fashion, cupy):
    """Before one is due, for instance because the run has to end: the loss on the GPU had not been read."""
    model = small().to("gpu")
    with TrainingMonitor(model, mc.optim.SGD(model.parameters(), 0.1), 10) as monitor:
        for step in range(1, 10):
            x = fashion[0][:BATCH] * (np.nan if step == 8 else 1)
            loss = ops.cross_entropy(model(Tensor(x, device="gpu")), fashion[1][:BATCH])
            loss.backward()
            assert monitor.step(step, loss) == []
        (found,) = monitor.check()
        assert codes([found]) == [(9, "non-finite", "loss")]
        assert "it is nan since step 8" in found.message
        assert monitor.check() == []


def test_an_exception_leaves_no_hook(fashion):
    model = small()
    with pytest.raises(KeyError), TrainingMonitor(model, mc.optim.SGD(model.parameters(), 0.1), 10):
        assert len(active_hooks()) == 1
        raise KeyError
    assert active_hooks() == []


def test_losses_do_not_hold_their_graphs(fashion):
    model = small()
    optimizer = mc.optim.SGD(model.parameters(), 0.1)
    with TrainingMonitor(model, optimizer, 10) as monitor, no_collector():
        for step in range(1, 5):
            loss = ops.cross_entropy(model(Tensor(fashion[0][:BATCH])), fashion[1][:BATCH])
            loss.backward()
            monitor.step(step, loss)
            node = weakref.ref(loss.node)
            del loss
            assert node() is None


def test_errors():
    model = small()
    optimizer = mc.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match="TrainingMonitor: classes must be at least 2, got 1"):
        TrainingMonitor(model, optimizer, classes=1)
    with pytest.raises(ValueError, match="TrainingMonitor: every must be at least 1, got 0"):
        TrainingMonitor(model, optimizer, classes=10, every=0)
    with pytest.raises(ValueError, match="none of the parameters of this model"):
        TrainingMonitor(small(), optimizer, classes=10)
    with pytest.raises(RuntimeError, match="use it as  with TrainingMonitor"):
        TrainingMonitor(model, optimizer, classes=10).step(1, 2.3)


# ---- detect_anomaly

class Block(Module):
    """A layer with an op that can go wrong."""

    def __init__(self, op):
        self.op = op

    def forward(self, x):
        return self.op(x)           # the line of Block


def of(op):
    """A model in which this op is called in the layer `inner.block`."""
    return Sequential(first=ReLU(), inner=Sequential(block=Block(op)))


def text_of_line(error):
    with open(error.file, encoding="utf-8") as file:
        return file.read().splitlines()[error.line - 1].strip()


FORWARD = {"log of a negative number": (lambda x: ops.log(x - 1), "Log", "1 NaN and 1 inf among 4"),
           "0 / 0": (lambda x: x / x, "Div", "1 NaN among 4 numbers"),
           "e ** 500": (lambda x: ops.exp(x * 100), "Exp", "3 inf among 4 numbers")}


@pytest.mark.parametrize("what", FORWARD)
def test_what_breaks_in_forward_is_shown_with_op_layer_and_line(what, device):
    op, name, count = FORWARD[what]
    model = of(op)
    x = Tensor(np.array([[0, 1, 2, 5]], np.float32), True).to(device)
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model):
        model(x)
    error = caught.value
    assert (error.op, error.direction, error.layer) == (name, "forward", "inner.block")
    assert isinstance(error, FloatingPointError)
    assert str(error).startswith(f"forward of {name} in layer inner.block: its output has {count}")
    assert "  input 0: (1, 4) float32, from " in str(error)
    assert "  output: (1, 4) float32, " in str(error)
    assert "not finite already" not in str(error)
    assert what.split()[0] in text_of_line(error) or "x / x" in text_of_line(error)         # the innermost line that is the user's
    assert f"called at {error.file}:{error.line}: {text_of_line(error)}" in str(error)
    assert active_hooks() == []


def test_what_breaks_only_in_backward_is_shown_with_the_line_of_its_forward(device):
    model = of(lambda x: x ** 0.5)
    x = Tensor(np.array([[0, 4]], np.float32), True).to(device)
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model):
        loss = model(x).sum()
        assert np.isfinite(loss.item())
        loss.backward()
    error = caught.value
    assert (error.op, error.direction, error.layer) == ("Power", "backward", "inner.block")
    assert "its gradient of input 0 has 1 inf among 2 numbers" in str(error)
    assert "input 0: (1, 2) float32, from 0 to 4" in str(error)
    assert "gradient of the output: (1, 2) float32, from 1 to 1" in str(error)
    assert "x ** 0.5" in text_of_line(error)
    assert "the line of Block" not in text_of_line(error)
    assert active_hooks() == []


def test_a_layer_of_minicnn_is_called_from_the_users_line(fashion):
    x = fashion[0][:4].copy()
    x[2, 0, 7, 7] = np.nan
    model = alexnet("mini", 10, 1)
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model):
        model(Tensor(x))                                    # this line
    error = caught.value
    assert (error.op, error.layer) == ("Conv2d", "conv1")
    assert text_of_line(error).endswith("# this line")
    assert "an input was not finite already, and no op before produced it: check the data" in str(error)
    assert "input 0: (4, 1, 28, 28) float32, from -" in str(error)
    assert "; 1 NaN among 3,136 numbers" in str(error)


def test_a_finite_gradient_whose_parts_add_up_to_infinity_is_found():
    a = Tensor(np.array([1e-10], np.float32), True) * 1.0
    with pytest.raises(AnomalyError, match=r"backward of Mul: the incoming gradient has 1 inf among 1 number\n"), detect_anomaly():
        (a * 3e38 + a * 3e38).sum().backward()


def test_an_op_from_before_the_detection_is_named_without_a_line():
    y = Tensor([0.0], True) ** 0.5
    with pytest.raises(AnomalyError, match="called at an unknown line, before the detection began") as caught, detect_anomaly():
        y.backward()
    assert (caught.value.op, caught.value.layer, caught.value.file) == ("Power", "", "")


def test_a_healthy_network_is_trained_to_the_same_bits(fashion):
    runs = []
    for watch in (detect_anomaly, lambda model: contextlib.nullcontext()):
        mc.seed(3)
        model = alexnet("mini", 10, 1)
        optimizer = mc.optim.SGD(model.parameters(), 0.01)
        with watch(model):
            for _ in range(2):
                optimizer.zero_grad()
                ops.cross_entropy(model(Tensor(fashion[0][:8])), fashion[1][:8]).backward()
                optimizer.step()
        runs.append(model.state_dict())
    np.testing.assert_equal(*runs)


def test_afterwards_numpy_warns_again_and_nothing_is_watched():
    before = np.geterr()
    with pytest.raises(KeyError), detect_anomaly():
        assert np.geterr()["invalid"] == "ignore"
        raise KeyError
    assert np.geterr() == before
    assert active_hooks() == []
    with pytest.warns(RuntimeWarning):
        assert math.isnan(ops.log(Tensor([-1.0])).item())


def test_an_op_after_the_last_layer_is_in_none():
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model := of(ops.exp)):
        ops.log(model(Tensor([1.0])) * -1.0)
    assert (caught.value.op, caught.value.layer) == ("Log", "")


def test_an_error_in_a_layer_that_was_caught_does_not_confuse_the_names():
    model = of(lambda x: ops.matmul(x, x) if x.ndim == 1 else x / x)
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model) as detector:
        with pytest.raises(ValueError, match="matmul"):
            model(Tensor([0.0]))
        model(Tensor([[1.0]]))
        assert detector.running == []
        model(Tensor([[0.0]]))
    assert caught.value.layer == "inner.block"


def test_a_detector_serves_again_after_an_error():
    model = of(lambda x: x / x)
    detector = detect_anomaly(model)
    for _ in range(2):
        with pytest.raises(AnomalyError) as caught, detector:
            model(Tensor([0.0]))
        assert caught.value.layer == "inner.block"


@contextlib.contextmanager
def no_collector():
    """Without Python's collector of cycles: what is freed is freed by its last reference."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("backward", [True, False])
def test_graphs_are_freed_at_once_while_detecting(backward):
    with no_collector(), detect_anomaly() as detector:
        y = ops.exp(Tensor([1.0, 2.0], True)).sum()
        if backward:
            y.backward()
        nodes = weakref.ref(y.node), weakref.ref(y.node.inputs[0])
        assert len(detector.calls) == 2
        del y
        assert [node() for node in nodes] == [None, None]
        assert len(detector.calls) == 0
        y = ops.exp(Tensor([1.0], True))
    assert y.node is not None
    assert len(detector.calls) == 0             # after it, nothing is remembered of what lives on
