"""The optimiser follows the paper's rule, and the schedules lower the rate when they should."""

import numpy as np
import pytest

import minicnn as mc
from minicnn.optim import SGD, ReduceLROnPlateau, StepLR


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


def test_a_drop_of_the_rate_leaves_the_old_velocity_alone():
    p = parameter([0.0])
    optimizer = SGD([p], lr=1.0, momentum=0.9)
    p.grad = np.array([1.0])
    optimizer.step()                            # v = -1
    optimizer.groups[0]["lr"] = 0.001
    p.grad = np.array([0.0])
    optimizer.step()                            # v = -0.9, whatever the new rate: the paper's rule
    np.testing.assert_allclose(p.data, [-1.9])


@pytest.mark.parametrize("shape", [(), (1,), (70000,), (3, 5, 7, 2)])
def test_blocks_and_memory_orders_do_not_matter(shape):
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


def test_groups_have_their_own_numbers():
    weight, bias = parameter([1.0]), parameter([1.0])
    optimizer = SGD([{"params": [weight]}, {"params": [bias], "lr": 0.2, "weight_decay": 0.0}], lr=0.1, momentum=0.0, weight_decay=1.0)
    weight.grad = bias.grad = np.array([1.0])
    optimizer.step()
    np.testing.assert_allclose([weight.data[0], bias.data[0]], [1 - 0.1 * 2, 1 - 0.2])


def test_parameters_without_gradient_are_left_alone():
    used, unused = parameter([1.0]), parameter([1.0])
    optimizer = SGD([used, unused], lr=0.1, weight_decay=1.0)
    used.grad = np.array([1.0])
    optimizer.step()
    assert unused.data[0] == 1.0 != used.data[0]
    optimizer.zero_grad()
    assert used.grad is None


def test_state_goes_on_exactly():
    def run(parts):
        p = parameter([1.0, 2.0])
        state, rates = None, None
        for grads in parts:
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


def test_state_of_other_parameters_is_refused():
    one, two = SGD([parameter([1.0])], lr=0.1), SGD([parameter([1.0, 2.0])], lr=0.1)
    with pytest.raises(ValueError, match="other parameters"):
        two.load_state_dict(one.state_dict())


@pytest.mark.parametrize("numbers, message", [
    ({"lr": float("nan")}, "lr is a positive finite number, not nan"),
    ({"lr": 0.0}, "lr"), ({"lr": -1.0}, "lr"), ({"lr": float("inf")}, "lr"),
    ({"lr": "0.1"}, "lr"), ({"lr": 0.1, "momentum": 1.0}, "momentum"), ({"lr": 0.1, "momentum": -0.1}, "momentum"),
    ({"lr": 0.1, "weight_decay": -1}, "weight_decay"), ({"lr": 0.1, "weight_decay": float("nan")}, "weight_decay"),
])
def test_bad_numbers_are_named(numbers, message):
    with pytest.raises(ValueError, match=message):
        SGD([parameter([1.0])], **numbers)


def test_no_or_repeated_parameters_are_refused():
    p = parameter([1.0])
    with pytest.raises(ValueError, match="no parameters"):
        SGD([], lr=0.1)
    with pytest.raises(ValueError, match="twice"):
        SGD([p, p], lr=0.1)


def test_a_rate_that_became_nan_is_refused_at_the_step():
    p = parameter([1.0])
    optimizer = SGD([p], lr=0.1)
    optimizer.groups[0]["lr"] = float("nan")
    p.grad = np.array([1.0])
    with pytest.raises(ValueError, match="not nan"):
        optimizer.step()
    assert p.data[0] == 1.0


def test_step_lr():
    optimizer = SGD([parameter([1.0])], lr=1.0)
    schedule = StepLR(optimizer, 3, gamma=0.5)
    rates = []
    for _ in range(7):
        schedule.step()
        rates.append(optimizer.groups[0]["lr"])
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    with pytest.raises(ValueError, match="step_size"):
        StepLR(optimizer, 0)


def test_plateau():
    optimizer = SGD([parameter([1.0])], lr=1.0)
    schedule = ReduceLROnPlateau(optimizer, factor=0.1, patience=1, threshold=0.01, min_lr=0.05)
    rates = []
    for error in [1.0, 0.5, 0.495, 0.499, 0.4, float("nan"), 0.6, 0.6, 0.6, 0.6]:
        schedule.step(error)
        rates.append(round(optimizer.groups[0]["lr"], 10))
    #        best  best  bad   bad: drop  best  bad   bad: drop, held at min_lr
    assert rates == [1, 1, 1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]
    with pytest.raises(ValueError, match="factor"):
        ReduceLROnPlateau(optimizer, factor=2)


def test_plateau_goes_on_from_its_state():
    optimizer = SGD([parameter([1.0])], lr=1.0)
    first = ReduceLROnPlateau(optimizer, patience=1)
    for error in (1.0, 1.0):
        first.step(error)
    second = ReduceLROnPlateau(optimizer, patience=1)
    second.load_state_dict(first.state_dict())
    second.step(1.0)
    assert optimizer.groups[0]["lr"] == pytest.approx(0.1)


def test_linear_decay_is_a_function_of_the_count():
    from minicnn.optim import LinearDecay

    def rates(steps, goes_on=None):
        optimizer = SGD([parameter([1.0])], lr=1.0)
        schedule = LinearDecay(optimizer, steps)
        seen = []
        if goes_on:
            schedule.load_state_dict({"count": goes_on})
            seen.append(optimizer.groups[0]["lr"])
        for _ in range(steps - (goes_on or 0)):
            schedule.step()
            seen.append(optimizer.groups[0]["lr"])
        return seen

    assert rates(4) == [0.75, 0.5, 0.25, 0.25]
    assert rates(8)[3:] == rates(8, goes_on=4)      # also when the first four were counted under another total
    with pytest.raises(ValueError, match="steps is at least 1"):
        LinearDecay(SGD([parameter([1.0])], lr=1.0), 0)


def test_plateau_does_not_take_nan_for_the_best():
    optimizer = SGD([parameter([1.0])], lr=1.0)
    schedule = ReduceLROnPlateau(optimizer, patience=1)
    for error in (float("nan"), 5.0, 4.0, 3.0):
        schedule.step(error)
    assert optimizer.groups[0]["lr"] == 1.0


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(TypeError, match=r"write \[p\]"):
        SGD(parameter([1.0]), lr=0.1)
    with pytest.raises(TypeError, match="requires_grad=True"):
        SGD([mc.Tensor([1.0])], lr=0.1)
    with pytest.raises(TypeError, match="leaf"):
        SGD([parameter([1.0]) * 2], lr=0.1)
    with pytest.raises(ValueError, match="no 'weightdecay'"):
        SGD([{"params": [parameter([1.0])], "weightdecay": 0.1}], lr=0.1)
    SGD([parameter([1.0])], lr=np.float32(0.1))
