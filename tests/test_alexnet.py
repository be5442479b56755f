"""Every variant has the published shapes and parameter counts."""

import numpy as np
import pytest

import minicnn as mc
from minicnn.examples.alexnet import VARIANTS, alexnet, input_size

COUNTS = {"paper": 60_965_224, "one-tower": 62_378_344, "caffenet": 60_965_224, "torchvision": 61_100_840}

ONE_TOWER = [("conv1", (96, 55, 55), 34_944), ("pool1", (96, 27, 27), 0), ("conv2", (256, 27, 27), 614_656), ("pool2", (256, 13, 13), 0),
             ("conv3", (384, 13, 13), 885_120), ("conv4", (384, 13, 13), 1_327_488), ("conv5", (256, 13, 13), 884_992),
             ("pool5", (256, 6, 6), 0), ("fc6", (4096,), 37_752_832), ("fc7", (4096,), 16_781_312), ("fc8", (1000,), 4_097_000)]

# GFLOPs per image of the forward pass, 2 per multiply-add, as the literature gives them
GFLOPS = {"paper": 1.449, "one-tower": 2.271, "caffenet": 1.449, "torchvision": 1.428}

ORDER = {
    "paper": "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 flatten "
             "fc6 relu6 drop6 fc7 relu7 drop7 fc8",
    "caffenet": "conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 flatten "
                "fc6 relu6 drop6 fc7 relu7 drop7 fc8",
    "torchvision": "conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 avgpool flatten "
                   "drop6 fc6 relu6 drop7 fc7 relu7 fc8",
}


@pytest.fixture(scope="module", params=list(COUNTS))
def variant(request):
    """A full-size network and its summary, built once for all tests of it."""
    network = alexnet(request.param)
    side = input_size(request.param)
    return request.param, network, mc.summary(network, (3, side, side))


def test_parameter_count(variant):
    name, network, summary = variant
    assert sum(p.size for p in network.parameters()) == COUNTS[name] == summary.total.parameters


def test_multiply_adds(variant):
    name, _, summary = variant
    assert 2 * summary.total.multiply_adds / 1e9 == pytest.approx(GFLOPS[name], abs=0.0006)


def test_order_of_layers(variant):
    name, network, summary = variant
    order = ORDER[{"one-tower": "paper"}.get(name, name)].split()
    assert network.names == order == [row.name for row in summary]


def test_every_shape_of_one_tower(variant):
    name, _, summary = variant
    rows = {row.name: row for row in summary}
    for layer, shape, parameters in ONE_TOWER:
        if name == "one-tower":
            assert (rows[layer].output_shape, rows[layer].parameters) == (shape, parameters)
        elif name in ("paper", "caffenet"):
            assert rows[layer].output_shape == shape


def test_the_printed_table(variant):
    name, _, summary = variant
    text = str(summary)
    if name == "one-tower":
        assert "62,378,344" in text
        for layer, shape, parameters in ONE_TOWER:
            line = next(line for line in text.splitlines() if line.startswith(layer))
            assert str([-1, *shape]) in line
            assert f"{parameters:,}" in line.split()


def test_saved_bytes_are_what_the_graph_holds(variant):
    """Counted independently: the sizes of the distinct buffers held by the graph, without parameters and the input."""
    name, network, summary = variant
    side = input_size(name)
    x = np.zeros((1, side, side, 3), np.float32).transpose(0, 3, 1, 2)
    y = network(mc.Tensor(x))
    known = {id(p.data if p.data.base is None else p.data.base) for p in network.parameters()} | {id(x.base)}
    buffers, todo, seen = {}, [y.node], set()
    while todo:
        node = todo.pop()
        if node is None or id(node) in seen or isinstance(node, mc.Tensor):
            continue
        seen.add(id(node))
        todo += node.inputs
        for array in node.saved:
            while array.base is not None:
                array = array.base
            if id(array) not in known:
                buffers[id(array)] = array.nbytes
    assert sum(buffers.values()) == summary.total.saved_bytes


@pytest.mark.parametrize("side", [28, 32, 48, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_mini_fits_small_images(side, channels):
    network = alexnet("mini", num_classes=7, in_channels=channels, image_size=side).eval()
    x = mc.Tensor(np.random.default_rng(0).standard_normal((2, channels, side, side), dtype=np.float32))
    assert network(x).shape == (2, 7)
    assert network.names == ORDER["paper"].split()


def test_torchvision_takes_other_sizes():
    network = alexnet("torchvision", num_classes=3).eval()
    with mc.no_grad():
        assert network(mc.Tensor(np.zeros((1, 3, 256, 256), np.float32))).shape == (1, 3)


def test_summary_changes_nothing():
    network = alexnet("mini", 10, 1).eval()
    network.drop6.train()
    before = mc.random.state()
    rows = mc.summary(network, (1, 28, 28))
    assert mc.random.state() == before
    assert [network.training, network.drop6.training, network.drop7.training] == [False, True, False]
    assert all(p.grad is None for p in network.parameters())
    assert next(r for r in rows if r.name == "drop7").saved_bytes == 512        # one byte for each of the mask's elements
    assert mc.autograd.active_hooks() == []


def test_wrong_variants_and_sizes_are_refused():
    with pytest.raises(ValueError, match="one of paper, one-tower"):
        alexnet("alexnet")
    with pytest.raises(ValueError, match="image_size must be 28 to 64 for mini, got 227"):
        alexnet("mini", image_size=227)
    with pytest.raises(ValueError, match="too small"):
        alexnet("paper", image_size=32)
    assert set(VARIANTS) == {*COUNTS, "mini"}


def test_summary_of_a_module_that_calls_ops_itself():
    """Ops called outside of layers and the model's own parameters are counted once each; inputs need not be images."""
    class Net(mc.nn.Module):
        def __init__(self):
            self.fc = mc.nn.Linear(6, 4)
            self.scale = mc.Tensor(np.ones(4, np.float32), requires_grad=True)

        def forward(self, x):
            return mc.ops.linear(self.fc(self.fc(x) @ np.ones((4, 6), np.float32)) * self.scale, self.fc.weight.transpose())

    rows = mc.summary(Net(), (6,))
    assert [(r.name, r.parameters, r.multiply_adds) for r in rows] == [("fc", 28, 24), ("fc", 0, 24), ("(model)", 4, 24)]
    assert rows.total.parameters == 32
    assert rows[-1].saved_bytes > 0
