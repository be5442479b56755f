"""A trace lists every op in order, forward and backward, and changes nothing."""

import numpy as np
import pytest

import minicnn as mc
from minicnn import autograd, nn, ops
from minicnn.examples.alexnet import alexnet
from minicnn.inspect.memory import LiveBytes
from minicnn.inspect.trace import Tracer, trace, trace_backward
from minicnn.text import format_bytes


def network():
    return nn.Sequential(conv=nn.Conv2d(2, 4, 3, padding=1), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(),
                         fc=nn.Linear(16, 3))


def images(*shape, device="cpu"):
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    if len(shape) == 4:                             # channels last in memory, as the loader makes them
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return mc.Tensor(x, device=device)


def test_rows_are_in_order_of_execution_and_backward_has_the_numbers_of_forward(device):
    rows = trace(network().to(device), images(5, 2, 4, 4, device=device), [0, 1, 2, 0, 1])
    ops_of_layers = [("conv", "Conv2d"), ("relu", "ReLU"), ("pool", "MaxPool2d"), ("flatten", "Reshape"), ("fc", "Linear"),
                     ("", "CrossEntropy")]
    assert [(r.layer, r.op) for r in rows.forward] == ops_of_layers
    assert [(r.layer, r.op) for r in rows.backward] == ops_of_layers[::-1]
    assert [r.number for r in rows] == [1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1]
    assert rows == rows.forward + rows.backward
    assert rows[0].shapes_in == [(5, 2, 4, 4), (4, 2, 3, 3), (4,)]
    assert rows[0].shapes_out == [(5, 4, 4, 4)]
    assert rows[-1].shapes_in == [(5, 4, 4, 4)]
    assert rows[-1].shapes_out == [(4, 2, 3, 3), (4,)]          # the images need no gradient
    assert rows[7].shapes_out == [(5, 16), (3, 16), (3,)]       # of the linear layer's input, weight and bias
    assert all(r.ms > 0 for r in rows)


def test_norms_are_those_of_the_outputs_and_of_their_gradients(device):
    net, x = network().to(device), images(5, 2, 4, 4, device=device)
    y = net.conv(x)
    rows = trace(net, x, [0, 1, 2, 0, 1])
    scores = net(x).numpy()
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert rows[0].norm == pytest.approx(np.linalg.norm(y.numpy()), rel=1e-5)
    assert rows[4].norm == pytest.approx(np.linalg.norm(scores), rel=1e-5)
    assert rows[6].norm == 1                                    # of the loss with respect to itself
    assert rows[7].norm == pytest.approx(np.linalg.norm((p - np.eye(3)[[0, 1, 2, 0, 1]]) / 5), rel=1e-5)


def test_saved_bytes_are_those_of_the_summary(device):
    net = alexnet("mini", 10, 1).to(device)
    rows = trace(net, images(1, 1, 28, 28, device=device), [3])
    table = mc.summary(alexnet("mini", 10, 1), (1, 28, 28))
    assert {r.layer: r.saved for r in rows.forward if r.layer} == {r.name: r.saved_bytes for r in table}
    assert rows.forward[-1].saved == 10 * 4                     # the loss saves log p
    assert {r.layer: r.flops for r in rows.forward if r.flops} == {r.name: 2 * r.multiply_adds for r in table if r.multiply_adds}


def test_everything_saved_is_freed_during_backward(device):
    rows = trace(alexnet("mini", 10, 1).to(device), images(4, 1, 28, 28, device=device), [0, 1, 2, 3])
    live = 0
    for row in rows:
        live += row.saved - row.freed
        assert row.live_bytes == live >= 0
    assert rows.forward[-1].live_bytes > 0
    assert rows[-1].live_bytes == 0
    assert not any(r.freed for r in rows.forward)
    assert not any(r.saved for r in rows.backward)
    freed = {r.layer: r.freed for r in rows.backward}
    saved = {r.layer: r.saved for r in rows.forward}
    assert freed["pool5"] == saved["pool5"] > 0                 # its argmax: no other op saves it
    assert saved["conv4"] == freed["conv5"] == 0                # one array, saved by relu3 and conv4: counted with the first of them,
    assert freed["relu3"] == saved["relu3"] > 0                 # and freed after the last
    assert rows.peak >= rows.forward[-1].live_bytes


def test_saved_memory_that_a_reference_keeps_alive_is_reported():
    class KeepsActivation(nn.Module):
        def forward(self, x):
            self.activation = ops.relu(x)
            return self.activation * 2.0

    x = mc.Tensor(np.ones((8, 25), np.float32), requires_grad=True)
    net = KeepsActivation()
    rows = trace(net, x)
    assert rows[-1].live_bytes == 800
    assert "800 B still allocated" in str(rows)
    freed = rows[-1].freed
    net.activation = None
    assert rows[-1].freed == freed                              # what happens after the trace does not change it
    assert "still allocated" not in str(trace(network(), images(5, 2, 4, 4), [0, 1, 2, 0, 1]))


@pytest.mark.parametrize("make_tracer", [lambda net: Tracer(net), lambda net: Tracer(net, norms=False)])
def test_results_are_bitwise_the_same_and_the_hook_is_removed(make_tracer, device):
    def step(hooked):
        mc.seed(1)
        net = alexnet("mini", 10, 1).to(device)
        x = images(4, 1, 28, 28, device=device)
        if hooked:
            with make_tracer(net):
                loss = ops.cross_entropy(net(x), [0, 1, 2, 3])
                loss.backward()
        else:
            loss = ops.cross_entropy(net(x), [0, 1, 2, 3])
            loss.backward()
        return [loss.numpy(), *(mc.Tensor(p.grad).numpy() for p in net.parameters())]

    for a, b in zip(step(False), step(True), strict=True):
        np.testing.assert_array_equal(a, b)
    assert autograd.active_hooks() == []


def test_gradients_and_random_numbers_are_restored():
    net = nn.Sequential(fc=nn.Linear(4, 4), drop=nn.Dropout(0.5))
    net.fc.bias.grad = before = np.ones(4, np.float32)
    state = mc.random.state()
    x = mc.Tensor(np.ones((2, 4), np.float32), requires_grad=True)
    assert [r.op for r in trace(net, x, [0, 1])] == ["Linear", "Dropout", "CrossEntropy", "CrossEntropy", "Dropout", "Linear"]
    assert net.fc.bias.grad is before
    assert (before == 1).all()
    assert net.fc.weight.grad is x.grad is None
    assert mc.random.state() == state
    assert [r.op for r in trace(net.eval(), x, [0, 1])][:2] == ["Linear", "CrossEntropy"]       # it runs in the model's mode


def test_an_error_inside_leaves_no_hook_and_no_change():
    net = network()
    net.fc.bias.grad = before = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="5 channels"):
        trace(net, images(1, 5, 4, 4), [0])
    assert autograd.active_hooks() == []
    assert net.fc.bias.grad is before


def test_without_labels_backward_starts_with_ones():
    rows = trace(nn.Sequential(fc=nn.Linear(2, 3)), np.ones((4, 2), np.float32))
    assert [(r.direction, r.op) for r in rows] == [("forward", "Linear"), ("backward", "Linear")]
    assert rows[-1].norm == pytest.approx(np.sqrt(12))


def test_where_gradients_are_added_both_ops_are_named():
    class Branches(nn.Module):
        def __init__(self):
            self.left, self.right = nn.Tanh(), nn.Sigmoid()
            self.w = mc.Tensor(np.ones(3, np.float32), requires_grad=True)

        def forward(self, x):
            h = x * self.w
            return self.left(h) + self.right(h) * self.w

    rows = trace(Branches(), np.ones((2, 3), np.float32))
    added = {(r.layer, r.op, r.number): r.added for r in rows.backward if r.added}
    second, first = [r for r in rows.backward if r.layer in ("left", "right")][::-1]
    assert added[second.layer, second.op, second.number] == [
        f"its gradient of #1 (model) Mul is added to that from #{first.number} {first.layer} {first.op}"]
    assert added["(model)", "Mul", 1] == ["its gradient of w is added to that from #4 (model) Mul"]
    assert len(added) == 2
    assert all(line in str(rows) for lines in added.values() for line in lines)


def test_a_weight_used_twice_and_a_tensor_times_itself():
    net = nn.Sequential(one=nn.Linear(3, 3, bias=False), two=nn.Linear(3, 3, bias=False))
    net.two.weight = net.one.weight
    rows = trace(net, np.ones((2, 3), np.float32))
    assert [r.added for r in rows.backward] == [[], ["its gradient of one.weight is added to that from #2 two Linear"]]
    x = mc.Tensor([3.0], requires_grad=True)
    rows = trace_backward(x * x)
    assert rows.live_before == 0                                # x is saved, but it is a leaf
    assert [r.added for r in rows] == [["its gradient of a leaf of shape (1,) is added to that from #1 Mul"]]


def test_adding_to_an_existing_grad_is_reported():
    x = mc.Tensor([3.0], requires_grad=True)
    (x * 2.0).backward()
    y = x * 5.0
    assert [r.added for r in trace_backward(y)] == [["its gradient of a leaf of shape (1,) is added to the existing .grad"]]
    assert x.grad == [7.0]


def test_trace_backward_of_any_graph_knows_what_forward_saved():
    def graph():
        x = mc.Tensor(np.linspace(-1, 1, 50, dtype=np.float32), requires_grad=True)
        return x, ops.tanh(ops.tanh(x)).sum()

    (x, plain), (y, traced) = graph(), graph()
    plain.backward()
    rows = trace_backward(traced)
    np.testing.assert_array_equal(x.grad, y.grad)
    assert [(r.number, r.op, r.layer) for r in rows] == [(3, "Sum", ""), (2, "Tanh", ""), (1, "Tanh", "")]
    assert rows.live_before == 2 * 200
    assert [(r.freed, r.live_bytes) for r in rows] == [(0, 400), (200, 200), (200, 0)]
    assert autograd.active_hooks() == []


def test_trace_backward_prints_only_backward_and_computes_the_same_gradient():
    x = mc.Tensor([1.0, 2.0], requires_grad=True)
    printed = str(trace_backward(x * x, np.array([1.0, 10.0], np.float32)))
    assert "backward" in printed
    assert "forward" not in printed
    assert "Mul" in printed
    np.testing.assert_array_equal(x.grad, [2, 40])


def test_integers_and_empty_outputs_have_a_row_too():
    class Indexing(nn.Module):
        def forward(self, x):
            mc.Tensor(np.array([1, 2]))[0]
            x[:0]
            return x.sum()

    rows = trace(Indexing(), mc.Tensor([3.0, 4.0], requires_grad=True))
    assert [r.op for r in rows] == ["GetItem", "GetItem", "Sum", "Sum"]
    assert np.isnan(rows[0].norm)
    assert rows[1].norm == 0
    assert rows[2].norm == 7


def test_the_table_fits_a_terminal():
    net = nn.Sequential(**{"a_layer_with_a_very_long_name_" + "x" * 60: nn.Linear(2, 2)})
    for rows in (trace(alexnet("mini", 10, 1), images(4, 1, 28, 28), [0, 1, 2, 3]), trace(net, np.ones((123456, 2), np.float32)),
                 trace(nn.Sequential(long=net, again=net), np.ones((1, 2), np.float32))):
        lines = str(rows).splitlines()
        assert max(map(len, lines)) <= 120
        assert len(lines) >= len(rows) + 5
    assert " ".join(" ".join(lines).split()).count("is added to that from") == 2
    lines = str(trace(network(), images(5, 2, 4, 4), [0, 1, 2, 0, 1])).splitlines()
    assert lines[3].split()[:6] == ["1", "conv", "Conv2d", "5x2x4x4", "->", "5x4x4x4"]
    assert lines[-1].endswith("freed " + lines[-1].split("saved ")[1].split(",")[0])


def test_format_of_sizes():
    assert [format_bytes(n) for n in (0, 999, 1000, 34_100, 4_600_000, 12e9, 12e12)] == [
        "0 B", "999 B", "1.0 kB", "34.1 kB", "4.6 MB", "12.0 GB", "12,000.0 GB"]


def test_an_accumulated_gradient_is_counted():
    x = mc.Tensor([3.0], requires_grad=True)
    tracer, total = Tracer(), np.ones(100, np.float32)
    tracer.before_backward(ops.relu(x).node, total)
    assert tracer.all_memory.bytes == 400


def test_memory_is_counted_once_and_until_it_is_freed(device):
    freed = []
    a, b = images(10, 10, device=device).data, images(5, device=device).data
    live = LiveBytes([b], freed.append)
    assert [live.add(a), live.add(a), live.add(a[2:].T), live.add(b), live.add(b[:1])] == [400, 0, 0, 0, 0]
    view = a[:1]
    del a
    assert (live.bytes, freed) == (400, [])             # a view keeps all of it
    del view
    assert (live.bytes, live.peak, freed) == (0, 400, [400])
