"""Cross-entropy: the checks of every op, scores so large that e^x would overflow, and the errors for bad labels."""

import math

import numpy as np
import pytest
from check import RTOL_FLOAT64, assert_close, check_each_affects, check_op, on, run

from minicnn import Tensor, ops
from minicnn.learn.cases import randn
from minicnn.learn.cases.cross_entropy import CASES, WRONG, LabelsOnDevice, naive


@pytest.mark.parametrize("case", CASES)
def test_cross_entropy(case, device):
    check_op(LabelsOnDevice, *CASES[case], naive, WRONG, device)


def test_every_mistake_is_detectable():
    check_each_affects(WRONG, CASES)


def test_loss_of_uniform_probabilities_is_ln_k():
    loss = ops.cross_entropy(Tensor(np.zeros((4, 1000), np.float32)), np.arange(4))
    assert loss.shape == ()
    assert loss.dtype == np.float32
    assert loss.item() == pytest.approx(math.log(1000))


@pytest.mark.parametrize("shape", [(1, 1000), (255, 3), (256, 2), (257, 5), (520, 2), (3, 257)])
def test_more_rows_and_classes_than_a_block_has_threads(cupy, shape):
    """One block of threads sums the losses of all rows; each row of the gradient has a block. No row and no class is missed."""
    N, K = shape
    labels, x, g = np.random.default_rng(0).integers(0, K, N), randn(shape)[0], np.asarray(1.7)
    loss, (gx,) = run(LabelsOnDevice, (labels,), [x], g)
    loss_gpu, (gx_gpu,) = run(LabelsOnDevice, (labels,), [cupy.asarray(x)], cupy.asarray(g))
    assert_close("loss", loss_gpu, np.asarray(loss), RTOL_FLOAT64)
    assert_close("gradient", gx_gpu, gx, RTOL_FLOAT64)


def test_large_scores_do_not_overflow(device):
    x = Tensor(np.array([[1000.0, 0, -1000], [0, 1000, 1000]]), requires_grad=True, device=device)
    loss = ops.cross_entropy(x, [1, 1])
    loss.backward()
    assert loss.item() == pytest.approx((1000 + math.log(2)) / 2)
    np.testing.assert_allclose(on("cpu", x.grad), [[0.5, -0.5, 0], [0, -0.25, 0.25]])


def test_adding_a_constant_changes_nothing():
    x, = randn((3, 4))
    assert ops.cross_entropy(Tensor(x + 100), [0, 1, 2]).item() == pytest.approx(ops.cross_entropy(Tensor(x), [0, 1, 2]).item())


def test_labels_may_be_a_list_an_array_or_a_tensor():
    x = Tensor(randn((3, 4))[0])
    losses = [ops.cross_entropy(x, labels).item() for labels in
              ([3, 0, 1], np.array([3, 0, 1], np.uint8), np.array([3, 0, 1]), Tensor(np.array([3, 0, 1])))]
    assert len(set(losses)) == 1


@pytest.mark.parametrize(("labels", "error", "message"), [
    ([0, 1, 4], ValueError, r"cross_entropy: labels\[2\] must be a class from 0 to 3, got 4"),
    ([0, -1, 9], ValueError, r"cross_entropy: labels\[1\] must be a class from 0 to 3, got -1"),
    ([0, 1], ValueError, r"cross_entropy: labels must have shape \(3,\), one for each row of the logits, got \(2,\)$"),
    (np.zeros((3, 1), int), ValueError, r"cross_entropy: labels must have shape \(3,\), .*, got \(3, 1\)$"),
    (np.eye(4, dtype=int)[:3], ValueError, r"cross_entropy: labels must have shape \(3,\), .*, got \(3, 4\); for one-hot labels pass"),
    (np.eye(4)[:3], TypeError, r"cross_entropy: labels must be integers, got float64; for one-hot labels pass labels.argmax\(axis=1\)"),
    (np.eye(4, dtype=bool)[:3], TypeError, r"cross_entropy: labels must be integers, got bool; for one-hot labels pass labels.argmax"),
    ([0.0, 1.0, 2.0], TypeError, r"cross_entropy: labels must be integers, got float64$"),
])
def test_bad_labels_raise(labels, error, message):
    with pytest.raises(error, match=message):
        ops.cross_entropy(Tensor(np.zeros((3, 4), np.float32)), labels)


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 0), (2, 3, 4)])
def test_bad_logits_raise(shape):
    with pytest.raises(ValueError, match=r"cross_entropy: logits must be a non-empty \(N, classes\), got shape \("):
        ops.cross_entropy(Tensor(np.zeros(shape, np.float32)), np.zeros(shape[:1], int))


def test_integer_logits_raise():
    with pytest.raises(TypeError, match="cross_entropy: logits must be float32 or float64, got int64"):
        ops.cross_entropy(Tensor(np.zeros((2, 3), np.int64)), [0, 1])
