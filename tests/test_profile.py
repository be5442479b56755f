"""A profile has the speed of each layer as a percentage of the machine's peak, and changes nothing."""

import json
import sys

import numpy as np
import pytest

import minicnn as mc
from minicnn import autograd, nn, ops
from minicnn.cli import profile as command
from minicnn.cli.models import available_models, lenet
from minicnn.examples.alexnet import VARIANTS, alexnet
from minicnn.inspect.profile import peaks, profile

module = sys.modules["minicnn.inspect.profile"]         # minicnn.inspect.profile itself is the function


@pytest.fixture(autouse=True)
def fixed_peaks(monkeypatch):
    """50 GFLOP/s and 5 GB/s: measuring the machine takes a second and gives other numbers each time."""
    monkeypatch.setattr(module, "peaks", lambda *settings: (50.0, 5.0))


def network():
    return nn.Sequential(conv1=nn.Conv2d(2, 4, 3, padding=1), relu=nn.ReLU(), conv2=nn.Conv2d(4, 4, 3, padding=1, bias=False),
                         flatten=nn.Flatten(), fc=nn.Linear(4 * 36, 3))


def batch(N=5, device="cpu"):
    return mc.Tensor(np.random.default_rng(0).standard_normal((N, 2, 6, 6), dtype=np.float32), device=device), np.arange(N) % 3


def test_work_and_speed_of_each_op(device):
    x, labels = batch(device=device)
    result = profile(network().to(device), x, labels, repeats=2)
    assert [(r.layer, r.op) for r in result.rows] == [("conv1", "Conv2d"), ("relu", "ReLU"), ("conv2", "Conv2d"), ("flatten", "Reshape"),
                                                      ("fc", "Linear"), ("", "CrossEntropy")]
    conv1, relu, conv2, _, fc, loss = result.rows
    outputs = 5 * 4 * 6 * 6                                     # each is computed from a window of 3 x 3 in all channels
    assert (conv1.forward.work, conv1.backward.work) == (2 * outputs * 18, 2 * outputs * 18)          # the images need no gradient
    assert (conv2.forward.work, conv2.backward.work) == (2 * outputs * 36, 2 * 2 * outputs * 36)      # two products
    assert (fc.forward.work, fc.backward.work) == (2 * 5 * 144 * 3, 2 * 2 * 5 * 144 * 3)
    assert (relu.forward.work, relu.backward.work) == (2 * 4 * outputs, 3 * 4 * outputs)              # x, y; gy, the saved y, gx
    assert loss.forward.work == 4 * (15 + 1)                                                        # the scores, and one number
    assert {r.op: r.forward.unit for r in result.rows} == {"Conv2d": "GFLOP/s", "ReLU": "GB/s", "Reshape": "GB/s", "Linear": "GFLOP/s",
                                                           "CrossEntropy": "GB/s"}
    for timing in (t for r in result.rows for t in (r.forward, r.backward)):
        assert timing.ms > 0
        assert timing.speed == pytest.approx(1e-9 * timing.work / (1e-3 * timing.ms))
        assert timing.percent == pytest.approx(100 * timing.speed / (50 if timing.unit == "GFLOP/s" else 5))
    assert relu.saved_bytes == 4 * outputs
    assert conv2.saved_bytes == 0                               # relu has saved its input already
    assert result.device == device


def test_a_view_moves_no_data():
    net = nn.Sequential(fc=nn.Linear(4, 6), flatten=nn.Flatten(), last=nn.Linear(6, 2))
    result = profile(net, np.ones((3, 4), np.float32), repeats=1)
    assert result.rows[1].forward.work == result.rows[1].backward.work == 0
    assert str(result).count("  view") == 2


def test_the_times_of_the_layers_add_up_to_the_step():
    """Within a few percent on a quiet machine; this one may be busy, so the best of a few tries counts."""
    net, x = alexnet("mini", 10, 1), np.random.default_rng(0).standard_normal((64, 1, 28, 28), dtype=np.float32)
    optimizer = mc.optim.SGD(net.parameters(), lr=1e-3)
    overheads = []
    for _ in range(5):
        result = profile(net, x, np.arange(64) % 10, repeats=3, optimizer=optimizer)
        total = result.forward_ms + result.backward_ms + result.optimizer.ms
        assert result.step_ms == pytest.approx(total + result.overhead_ms)
        assert total == pytest.approx(sum(t.ms for r in result.rows for t in (r.forward, r.backward)) + result.optimizer.ms)
        overheads.append(abs(result.overhead_ms) / result.step_ms)
        if overheads[-1] < 0.1:
            break
    assert min(overheads) < 0.1


def test_weights_velocities_gradients_and_random_numbers_are_restored(device):
    net = nn.Sequential(network(), nn.Dropout(0.5)).to(device)
    x, labels = batch(device=device)
    optimizer = mc.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    ops.cross_entropy(net(x), labels).backward()
    optimizer.step()                                            # so that there are velocities
    gradients, state = [p.grad for p in net.parameters()], mc.random.state()
    before = [mc.Tensor(a).to("cpu").numpy().copy() for a in [*net.state_dict().values(), *optimizer.velocities]]
    assert all(a.any() for a in before)
    result = profile(net, x, labels, repeats=2, optimizer=optimizer)
    for a, b in zip(before, [*net.state_dict().values(), *optimizer.velocities], strict=True):
        np.testing.assert_array_equal(a, mc.Tensor(b).numpy())
    assert all(p.grad is g for p, g in zip(net.parameters(), gradients, strict=True))
    assert mc.random.state() == state
    assert autograd.active_hooks() == []
    assert result.optimizer.work == 5 * sum(p.data.nbytes for p in net.parameters())
    assert "optimizer" in str(result)
    assert profile(net, x, labels, repeats=1).optimizer is None


def test_every_step_starts_with_cleared_gradients():
    class Recorder(mc.optim.SGD):
        def step(self):                                         # changes nothing, so every step has the same gradients
            seen.append(self.params[0].grad)

    net, seen = network(), []
    profile(net, *batch(), repeats=3, optimizer=Recorder(net.parameters(), lr=1.0))
    assert len(seen) == 1 + 2 * 3                               # one of warm-up, and each time an instrumented and an uninstrumented one
    assert seen[0].any()
    for gradient in seen[1:]:
        np.testing.assert_array_equal(gradient, seen[0])


def test_peak_memory():
    """By hand: y, then log p, then the gradients gx and gw of the last op; the weights and the input are not counted."""
    net, x = nn.Sequential(fc=nn.Linear(100, 50, bias=False)), np.ones((20, 100), np.float32)
    y, gw = 4 * 20 * 50, 4 * 100 * 50
    result = profile(net, x, np.zeros(20, int), repeats=1)
    assert result.parameter_bytes == gw
    # y is freed when log p has been computed from it; log p is freed when the gradient of y has been computed from it
    assert gw + y <= result.peak_bytes <= gw + 2 * y + 8
    with_optimizer = profile(net, x, np.zeros(20, int), repeats=1, optimizer=mc.optim.SGD(net.parameters(), lr=0.1))
    assert with_optimizer.peak_bytes == result.peak_bytes       # velocities are not counted either


def test_json_has_all_fields():
    x, labels = batch()
    result = profile(network(), x, labels, repeats=1)
    data = json.loads(result.json())
    assert data["step_ms"] == result.step_ms
    assert data["forward_ms"] == result.forward_ms
    assert [r["layer"] for r in data["rows"]] == [r.layer for r in result.rows]
    assert data["rows"][2]["backward"] == vars(result.rows[2].backward)
    assert data["input_shape"] == [5, 2, 6, 6]
    assert data["optimizer"] is None


def test_the_table_fits_a_terminal():
    net = nn.Sequential(**{"a_layer_with_a_very_long_name_" + "x" * 60: alexnet("mini", 10, 1)})
    text = str(profile(net, np.zeros((2, 1, 28, 28), np.float32), [0, 1], repeats=1,
                       optimizer=mc.optim.SGD(net.parameters(), lr=0.1)))
    assert max(map(len, text.splitlines())) <= 120
    assert "xx.conv5" in text
    assert "50 GFLOP/s (matrix product), 5.0 GB/s (copy)" in text


def test_more_than_the_peak_is_explained(monkeypatch):
    x, labels = batch()
    monkeypatch.setattr(module, "peaks", lambda *settings: (1e-6, 1e6))
    text = str(profile(network(), x, labels, repeats=1))
    assert "Winograd" in text
    assert "cache" not in text
    monkeypatch.setattr(module, "peaks", lambda *settings: (1e6, 1e-6))
    text = str(profile(network(), x, labels, repeats=1))
    assert "cache" in text
    assert "Winograd" not in text


def test_a_network_that_runs_different_ops_each_time_is_refused():
    class Alternating(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return ops.relu(x) if self.calls % 5 else ops.tanh(x)

    with pytest.raises(ValueError, match="runs different ops from step to step"):
        profile(Alternating(), mc.Tensor(np.ones((2, 2), np.float32), requires_grad=True), repeats=3)
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        profile(network(), *batch(), repeats=0)


def test_the_peaks_of_this_machine_are_measured_once(device):
    gflops, gbs = peaks(device, "float32", 1, False)
    assert 0.01 < gflops < 1e6
    assert 0.01 < gbs < 1e5
    assert peaks(device, "float32", 1, False) == (gflops, gbs)  # (a second measurement would have other digits)


def test_the_command_prints_the_table_and_writes_json(tmp_path, capsys, device):
    out = tmp_path / "profile.json"
    assert command.main(["--arch", "lenet", "--batch-size", "3", "--repeats", "1", "--device", device, "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("lenet: input 3x1x28x28, float32")
    rows = json.loads(out.read_text())["rows"]
    assert [r["layer"] for r in rows] == ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "flatten", "fc3", "relu3", "fc4", "relu4",
                                          "fc5", ""]
    assert all(r["layer"] in printed for r in rows)


def test_profile_is_a_subcommand_of_minicnn(capsys):
    from minicnn.cli import main as minicnn
    assert minicnn(["profile", "--arch", "mini", "--batch-size", "2", "--repeats", "1"]) == 0
    assert "conv5" in capsys.readouterr().out


@pytest.mark.parametrize("wrong, why", [
    (["--arch", "vgg"], "choose from"), (["--batch-size", "0"], "must be a positive integer, got 0"),
    (["--device", "cuda"], "device must be"), (["--repeats", "x"], "must be a positive integer, got x")])
def test_invalid_arguments_are_refused(wrong, why, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(wrong)
    assert stopped.value.code == 2
    assert why in capsys.readouterr().err


def test_missing_gpu_and_unwritable_file_are_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "gpu_unavailable_reason", lambda: "no GPU: none is here")
    assert command.main(["--arch", "lenet", "--device", "gpu"]) == 2
    assert capsys.readouterr().err == "error: no GPU: none is here\n"
    assert command.main(["--arch", "lenet", "--batch-size", "1", "--repeats", "1", "--json", str(tmp_path / "none" / "a.json")]) == 2
    assert "--json" in capsys.readouterr().err


def test_available_models_are_lenet_and_every_alexnet(capsys):
    assert list(available_models()) == ["lenet", *VARIANTS]
    for name in ("lenet", "mini"):
        build, (C, side, classes) = available_models()[name]
        assert build()(mc.Tensor(np.zeros((1, C, side, side), np.float32))).shape == (1, classes)
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "{" + ",".join(available_models()) + "}" in "".join(capsys.readouterr().out.split())


def test_lenet_has_the_parameters_of_the_example():
    assert sum(p.size for p in lenet().parameters()) == 61_706
