"""The optimiser follows the paper's rule, and the schedules lower the learning rate when they should."""

import numpy as np
import pytest

import minicnn as mc
from minicnn.optim import SGD, LinearLR, Optimizer, ReduceLROnPlateau, StepLR


def parameter(values):
    return mc.Tensor(np.asarray(values, np.float64), requires_grad=True)


def test_momentum_and_decay_by_hand():
    p = parameter([1.0, -2.0])
    optimizer = SGD([p], lr=0.1, momentum=0.9, weight_decay=0.5)
    w, v = np.array([1.0, -2.0]), np.zeros(2)
    for g in ([0.3, 0.1], [-0.2, 0.4], [0.0, 1.0]):
        p.grad = np.array(g)
        optimizer.step()
        v = 0.9 * v - 0.5 * 0.1 * w - 0.1 * np.array(g)
        w = w + v
        np.testing.assert_allclose(p.data, w, rtol=1e-15)


def test_a_drop_of_the_learning_rate_does_not_scale_the_velocity():
    p = parameter([0.0])
    optimizer = SGD([p], lr=1.0, momentum=0.9)
    p.grad = np.array([1.0])
    optimizer.step()                            # v = -1
    optimizer.param_groups[0]["lr"] = 0.001
    p.grad = np.array([0.0])
    optimizer.step()                            # v = -0.9, whatever the new rate: the paper's rule
    np.testing.assert_allclose(p.data, [-1.9])


@pytest.mark.parametrize("shape", [(), (1,), (70000,), (3, 5, 7, 2)])
def test_memory_order_does_not_matter(shape):
    rng = np.random.default_rng(0)
    w, g = rng.standard_normal(shape), rng.standard_normal(shape)
    results = []
    for order in ("contiguous", "channels-last", "strided"):
        if order == "contiguous":
            data = np.array(w)
        elif order == "channels-last":
            data = w.copy(order="F") if w.ndim != 4 else np.ascontiguousarray(w.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        else:
            data = np.zeros((*shape, 2))[..., 0]
            data[...] = w
        p = mc.Tensor(data, requires_grad=True)
        optimizer = SGD([p], lr=0.1, momentum=0.9, weight_decay=0.01)
        for _ in range(2):
            p.grad = np.array(g)
            optimizer.step()
        results.append(p.data.copy())
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    expected_v = -0.1 * (0.01 * w + g)
    expected = w + expected_v
    expected = expected + (0.9 * expected_v - 0.1 * (0.01 * expected + g))
    np.testing.assert_allclose(results[0], expected, rtol=1e-12)


def test_groups_have_their_own_settings():
    weight, bias = parameter([1.0]), parameter([1.0])
    optimizer = SGD([{"params": [weight]}, {"params": [bias], "lr": 0.2, "weight_decay": 0.0}], lr=0.1, momentum=0.0, weight_decay=1.0)
    weight.grad = bias.grad = np.array([1.0])
    optimizer.step()
    np.testing.assert_allclose([weight.data[0], bias.data[0]], [1 - 0.1 * 2, 1 - 0.2])


def test_parameters_without_gradient_are_not_changed():
    used, unused = parameter([1.0]), parameter([1.0])
    optimizer = SGD([used, unused], lr=0.1, weight_decay=1.0)
    used.grad = np.array([1.0])
    optimizer.step()
    assert unused.data[0] == 1.0 != used.data[0]
    optimizer.zero_grad()
    assert used.grad is None


def test_a_restored_state_continues_exactly():
    def run(sessions):
        p = parameter([1.0, 2.0])
        state, rates = None, None
        for grads in sessions:
            optimizer = SGD([p], lr=0.1, weight_decay=0.1)
            schedule = StepLR(optimizer, 2)
            if state:
                optimizer.load_state_dict(state)
                schedule.load_state_dict(rates)
            for g in grads:
                p.grad = np.array([g, -g])
                optimizer.step()
                schedule.step()
            state, rates = optimizer.state_dict(), schedule.state_dict()
        return p.data
    grads = [0.3, 0.1, -0.7, 0.2, 0.5]
    np.testing.assert_array_equal(run([grads]), run([grads[:1], grads[1:4], grads[4:]]))
    assert not np.array_equal(run([grads]), run([grads[::-1]]))


def test_the_state_of_other_parameters_is_refused():
    one, two = SGD([parameter([1.0])], lr=0.1), SGD([parameter([1.0, 2.0])], lr=0.1)
    with pytest.raises(ValueError, match="other parameters"):
        two.load_state_dict(one.state_dict())


class PlainDescent(Optimizer):
    """An optimiser of a user's own, without velocities."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data -= group["lr"] * p.grad


def test_a_users_optimiser_without_velocities_works():
    """It trains, is scheduled, saved and restored like SGD without momentum; it has no last_update."""
    def train(make):
        mc.seed(0)
        net = mc.nn.Sequential(mc.nn.Linear(3, 4), mc.nn.ReLU(), mc.nn.Linear(4, 2))
        optimizer = make([{"params": [p], "lr": 0.1 * (i + 1)} for i, p in enumerate(net.parameters())])
        schedule = StepLR(optimizer, 2)
        for _ in range(4):
            optimizer.zero_grad()
            mc.ops.cross_entropy(net(mc.Tensor(np.eye(3, dtype=np.float32))), [0, 1, 0]).backward()
            optimizer.step()
            schedule.step()
        return net, optimizer

    net, optimizer = train(lambda groups: PlainDescent(groups, lr=1.0))
    expected, sgd = train(lambda groups: SGD(groups, lr=1.0, momentum=0.0))
    for p, q in zip(net.parameters(), expected.parameters(), strict=True):
        np.testing.assert_allclose(p.data, q.data, rtol=1e-6, atol=1e-7)
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in sgd.param_groups]
    assert optimizer.last_update(0) is None
    assert sgd.last_update(1) is sgd.velocities[1]

    other = PlainDescent([{"params": [p]} for p in net.parameters()], lr=7.0)
    other.load_state_dict(optimizer.state_dict())
    assert other.state_dict() == optimizer.state_dict()
    with pytest.raises(ValueError, match=r"PlainDescent.load_state_dict: state must have 1 groups as this optimiser, got 4"):
        PlainDescent(net.parameters(), lr=7.0).load_state_dict(optimizer.state_dict())
    with pytest.raises(NotImplementedError, match="Optimizer has no step"):
        Optimizer(net.parameters(), {"lr": 0.1}).step()
    with pytest.raises(ValueError, match="PlainDescent: unknown setting 'momentum' in a parameter group; the settings are lr"):
        PlainDescent([{"params": net.parameters(), "momentum": 0.9}], lr=0.1)


@pytest.mark.parametrize("settings, message", [
    ({"lr": float("nan")}, "lr must be a positive finite number, got nan"),
    ({"lr": 0.0}, "lr"), ({"lr": -1.0}, "lr"), ({"lr": float("inf")}, "lr"),
    ({"lr": "0.1"}, "lr"), ({"lr": 0.1, "momentum": 1.0}, "momentum"), ({"lr": 0.1, "momentum": -0.1}, "momentum"),
    ({"lr": 0.1, "weight_decay": -1}, "weight_decay"), ({"lr": 0.1, "weight_decay": float("nan")}, "weight_decay"),
])
def test_invalid_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SGD([parameter([1.0])], **settings)


def test_no_or_repeated_parameters_are_refused():
    p = parameter([1.0])
    with pytest.raises(ValueError, match="SGD: params is empty"):
        SGD([], lr=0.1)
    with pytest.raises(ValueError, match="twice"):
        SGD([p, p], lr=0.1)


def test_a_learning_rate_set_to_nan_is_refused_at_the_step():
    p = parameter([1.0])
    optimizer = SGD([p], lr=0.1)
    optimizer.param_groups[0]["lr"] = float("nan")
    p.grad = np.array([1.0])
    with pytest.raises(ValueError, match="got nan"):
        optimizer.step()
    assert p.data[0] == 1.0


def test_step_lr():
    optimizer = SGD([parameter([1.0])], lr=1.0)
    schedule = StepLR(optimizer, 3, gamma=0.5)
    rates = []
    for _ in range(7):
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    with pytest.raises(ValueError, match="step_size"):
        StepLR(optimizer, 0)


@pytest.mark.parametrize("mode", ["abs", "rel"])
def test_plateau(mode):
    optimizer = SGD([parameter([1.0])], lr=1.0)
    schedule = ReduceLROnPlateau(optimizer, factor=0.1, patience=1, threshold=0.01, threshold_mode=mode, min_lr=0.05)
    rates = []
    for error in [1.0, 0.5, 0.495, 0.499, 0.4, float("nan"), 0.6, 0.6, 0.6, 0.6]:
        schedule.step(error)
        rates.append(round(optimizer.param_groups[0]["lr"], 10))
    #        best  best  bad   bad: drop  best  bad   bad: drop, to min_lr
    assert rates == [1, 1, 1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]
    with pytest.raises(ValueError, match="factor must be between 0 and 1, got 2"):
        ReduceLROnPlateau(optimizer, factor=2)
    with pytest.raises(ValueError, match='threshold_mode must be "rel" or "abs", got \'relative\''):
        ReduceLROnPlateau(optimizer, threshold_mode="relative")


@pytest.mark.parametrize(("mode", "metrics", "bests"), [
    ("rel", [200, 199, 197.9, 196, 195.8], [200, 200, 197.9, 197.9, 195.8]),        # an improvement is more than 1 % of the best
    ("rel", [0.5, 0.496, 0.494], [0.5, 0.5, 0.494]),
    ("rel", [-10, -10.05, -10.2], [-10, -10, -10.2]),
    ("rel", [0, -1e-9], [0, -1e-9]),
    ("abs", [200, 199.995, 199.98, 199], [200, 200, 199.98, 199]),                  # an improvement is more than 0.01
    ("abs", [0.5, 0.494, 0.48], [0.5, 0.5, 0.48]),
])
def test_plateau_threshold_modes(mode, metrics, bests):
    schedule, seen = ReduceLROnPlateau(SGD([parameter([1.0])], lr=1.0), threshold=0.01, threshold_mode=mode), []
    for metric in metrics:
        schedule.step(metric)
        seen.append(schedule.best)
    assert seen == bests


def test_the_default_threshold_is_relative():
    schedule = ReduceLROnPlateau(SGD([parameter([1.0])], lr=1.0))
    for metric in (1000.0, 999.95):
        schedule.step(metric)
    assert (schedule.best, schedule.num_bad_steps) == (1000.0, 1)


def test_plateau_continues_from_its_state():
    optimizer = SGD([parameter([1.0])], lr=1.0)
    first = ReduceLROnPlateau(optimizer, patience=1)
    for error in (1.0, 1.0):
        first.step(error)
    second = ReduceLROnPlateau(optimizer, patience=1)
    second.load_state_dict(first.state_dict())
    second.step(1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_linear_lr_is_a_function_of_the_count():
    def rates(total_iters, resume_at=None):
        optimizer = SGD([parameter([1.0])], lr=1.0)
        schedule = LinearLR(optimizer, total_iters)
        seen = []
        if resume_at:
            schedule.load_state_dict({"count": resume_at})
            seen.append(optimizer.param_groups[0]["lr"])
        for _ in range(total_iters - (resume_at or 0)):
            schedule.step()
            seen.append(optimizer.param_groups[0]["lr"])
        return seen

    assert rates(4) == [0.75, 0.5, 0.25, 0.25]
    assert rates(8)[3:] == rates(8, resume_at=4)      # also when the first four were counted with another total
    with pytest.raises(ValueError, match="LinearLR: total_iters must be at least 1, got 0"):
        LinearLR(SGD([parameter([1.0])], lr=1.0), 0)


def test_plateau_ignores_nan_as_best():
    optimizer = SGD([parameter([1.0])], lr=1.0)
    schedule = ReduceLROnPlateau(optimizer, patience=1)
    for error in (float("nan"), 5.0, 4.0, 3.0):
        schedule.step(error)
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_invalid_parameters_are_refused():
    with pytest.raises(TypeError, match=r"write \[p\]"):
        SGD(parameter([1.0]), lr=0.1)
    with pytest.raises(TypeError, match="requires_grad=True"):
        SGD([mc.Tensor([1.0])], lr=0.1)
    with pytest.raises(TypeError, match="leaf"):
        SGD([parameter([1.0]) * 2], lr=0.1)
    with pytest.raises(ValueError, match="unknown setting 'weightdecay' in a parameter group; the settings are lr, momentum, weight_decay"):
        SGD([{"params": [parameter([1.0])], "weightdecay": 0.1}], lr=0.1)
    SGD([parameter([1.0])], lr=np.float32(0.1))
