"""The benchmarks run the same network for every contender, and rungs with equal outputs. (No test here depends on time.)"""

import pathlib
import sys

import numpy as np
import pytest

import minicnn as mc
from minicnn.examples.alexnet import alexnet

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "benchmarks"))
import alexnet_step
import ladder


def test_contenders_run_in_separate_processes():
    results = alexnet_step.compare("mini", batch=2, forward_only=False, names=["minicnn"], rounds=3)
    assert len(results["minicnn"]["seconds"]) == 3
    assert results["minicnn"]["versions"]["minicnn"] == mc.__version__
    assert results["minicnn"]["peak_memory"] > 10 << 20


def test_a_peer_that_is_not_installed_is_reported_and_skipped(capsys):
    results = alexnet_step.compare("mini", 2, True, ["chainer", "minicnn"], 1, pythons={"chainer": sys.executable})
    assert "minicnn" in results
    if "chainer" not in results:
        assert "chainer: skipped" in capsys.readouterr().out


@pytest.mark.parametrize("arch", ["one-tower", "paper", "torchvision"])
def test_pytorchs_network_has_the_same_output(arch):
    torch = pytest.importorskip("torch")
    network = alexnet_step.describe(arch)
    step, _ = alexnet_step.torch_step(network, batch=1, forward_only=True)
    cells = {name: cell.cell_contents for name, cell in zip(step.__code__.co_freevars, step.__closure__, strict=True)}
    theirs, ours = cells["call"], alexnet(arch).eval()
    with torch.no_grad():
        for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
            p.copy_(torch.from_numpy(np.ascontiguousarray(q.data)))
        expected = theirs(cells["x"]).numpy()
    with mc.no_grad():
        output = ours(mc.Tensor(cells["x"].numpy())).numpy()
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("op", ["max_pool2d", "local_response_norm"])
def test_the_rungs_agree(op):
    steps = ladder.climb(op, batch=2, rounds=1)
    assert len(steps) == 4
    assert all(step["error"] < 1e-6 for step in steps)


def test_the_rungs_of_convolution_agree(monkeypatch):
    monkeypatch.setitem(ladder.LADDERS, "conv2d", (ladder.LADDERS["conv2d"][0][1:], (27, 27, 96)))      # the loops take seconds
    errors = [step["error"] for step in ladder.climb("conv2d", batch=2, rounds=1)]
    assert max(errors[:-1]) < 2e-6
    assert 1e-7 < errors[-1] < 1e-4                                                                     # Winograd's


def test_two_training_steps_are_bitwise_equal_for_any_number_of_threads():
    def weights(threads):
        mc.backend.threads.set_num_threads(threads)
        mc.seed(0)
        net = alexnet("mini", 10, 1)
        optimizer = mc.optim.SGD(net.parameters(), lr=0.05, weight_decay=1e-3)
        rng = np.random.default_rng(0)
        for _ in range(2):
            x = mc.Tensor(rng.standard_normal((33, 1, 28, 28), dtype=np.float32))
            loss = mc.ops.cross_entropy(net(x), rng.integers(0, 10, 33))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return np.concatenate([p.data.ravel() for p in net.parameters()])

    before = mc.backend.threads.num_threads()
    try:
        one, two, five = weights(1), weights(2), weights(5)
    finally:
        mc.backend.threads.set_num_threads(before)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, five)
