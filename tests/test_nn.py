"""Modules, layers and initialisations."""

import numpy as np
import pytest

import minicnn as mc
from minicnn import nn, ops
from minicnn.examples.alexnet import INITS, alexnet, alexnet_paper_


def images(*shape):
    return mc.Tensor(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


@pytest.mark.parametrize("layer, x, op", [
    (nn.Conv2d(4, 6, 3, stride=2, padding=(1, 0), groups=2), images(2, 4, 9, 9),
     lambda m, x: ops.conv2d(x, m.weight, m.bias, 2, (1, 0), 2)),
    (nn.Conv2d(4, 6, (3, 1), bias=False), images(2, 4, 9, 9), lambda m, x: ops.conv2d(x, m.weight)),
    (nn.MaxPool2d(3, 2, 1, ceil_mode=True), images(2, 4, 8, 9), lambda m, x: ops.max_pool2d(x, 3, 2, 1, True)),
    (nn.MaxPool2d(2), images(2, 4, 8, 9), lambda m, x: ops.max_pool2d(x, 2)),
    (nn.AdaptiveAvgPool2d((2, 3)), images(2, 4, 8, 9), lambda m, x: ops.adaptive_avg_pool2d(x, (2, 3))),
    (nn.LocalResponseNorm(3, 0.5, 0.6, 1.5, alpha_over_size=True), images(2, 4, 2, 2),
     lambda m, x: ops.local_response_norm(x, 3, 0.5, 0.6, 1.5, True)),
    (nn.ReLU(), images(3, 4), lambda m, x: ops.relu(x)),
    (nn.Tanh(), images(3, 4), lambda m, x: ops.tanh(x)),
    (nn.Sigmoid(), images(3, 4), lambda m, x: ops.sigmoid(x)),
    (nn.Linear(4, 5), images(3, 4), lambda m, x: ops.linear(x, m.weight, m.bias)),
    (nn.Linear(4, 5, bias=False), images(3, 4), lambda m, x: ops.linear(x, m.weight)),
    (nn.Flatten(), images(3, 4, 2), lambda m, x: ops.flatten(x)),
], ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "")
def test_a_layer_calls_its_op(layer, x, op):
    np.testing.assert_array_equal(layer(x).data, op(layer, x).data)


def test_dropout_follows_the_mode():
    layer, x = nn.Dropout(0.5), images(50, 50)
    assert layer.eval()(x) is x
    y = layer.train()(x).data
    assert 0.4 < (y == 0).mean() < 0.6
    np.testing.assert_array_equal(y[y != 0], 2 * x.data[y != 0])


def test_names_modes_and_parameters():
    class Net(nn.Module):
        def __init__(self):
            self.body = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
            self.head = nn.Linear(3, 1)
            self.tied = self.head
            self.scale = mc.Tensor([1.0], requires_grad=True)
            self.table = mc.Tensor([1.0])               # requires no gradient, so it is not a parameter

        def forward(self, x):
            return self.head(self.body(x)) * self.scale

    net = Net()
    assert [name for name, _ in net.named_parameters()] == ["scale", "body.0.weight", "body.0.bias", "head.weight", "head.bias"]
    assert len(net.parameters()) == 5
    net.eval()
    assert not net.body[1].training
    assert net.train() is net
    assert net.body[1].training
    assert net(images(4, 2)).shape == (4, 1)


def test_state_dict_round_trip_and_pytorch_names():
    one, two = alexnet("mini", 10, 1), alexnet("mini", 10, 1)
    assert not np.array_equal(one.conv1.weight.data, two.conv1.weight.data)         # each draw of the seed differs
    two.load_state_dict(one.state_dict())
    x = images(2, 1, 28, 28)
    np.testing.assert_array_equal(one.eval()(x).data, two.eval()(x).data)
    assert list(one.state_dict())[:2] == ["conv1.weight", "conv1.bias"]
    assert one.conv1.weight.shape == (32, 1, 5, 5)
    two.conv1.weight.data += 1
    assert not np.array_equal(one.conv1.weight.data, two.conv1.weight.data)         # copied, not shared


def test_float64_weights_load_into_float32_layers():
    layer = nn.Linear(2, 2)
    layer.load_state_dict({"weight": np.eye(2), "bias": np.zeros(2)})
    assert layer.weight.dtype == np.float32


def test_the_same_seed_gives_the_same_network():
    mc.seed(3)
    one = alexnet("mini")
    mc.seed(3)
    two = alexnet("mini")
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    mc.seed(4)
    assert not np.array_equal(one.fc6.weight.data, alexnet("mini").fc6.weight.data)


@pytest.mark.parametrize("rule, stds, biases", [
    ("paper", [0.01] * 8, [0, 1, 0, 1, 1, 1, 1, 0]),
    ("caffe", [0.01] * 5 + [0.005] * 2 + [0.01], [0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0]),
    ("kaiming", None, [0] * 8),
])
def test_initialisations_of_alexnet(rule, stds, biases):
    net = alexnet("mini", 100, 3)
    INITS[rule](net)
    layers = mc.nn.init.layers_with_weights(net)
    if rule == "kaiming":
        stds = [np.sqrt(2 / layer.weight.data[0].size) for layer in layers[:-1]] + [0.01]
    for layer, std, bias in zip(layers, stds, biases, strict=True):
        assert layer.weight.data.std() == pytest.approx(std, rel=0.08)
        assert abs(layer.weight.data.mean()) < 5 * std / np.sqrt(layer.weight.size)
        np.testing.assert_allclose(layer.bias.data, bias)


def test_initialisations_of_alexnet_refuse_other_networks():
    with pytest.raises(ValueError, match=r"use nn\.init\.kaiming_"):
        alexnet_paper_(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"nn\.init\.kaiming_: the model must have a layer with a weight"):
        mc.nn.init.kaiming_(nn.ReLU())
    mc.nn.init.kaiming_(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2, bias=False)))


def test_invalid_arguments_are_named():
    with pytest.raises(TypeError, match=r"relu must be a Module, got function; for relu write ReLU\(\)"):
        nn.Sequential(relu=ops.relu)
    with pytest.raises(ValueError, match="cannot be named 'forward'"):
        nn.Sequential(forward=nn.ReLU())
    with pytest.raises(ValueError, match="groups=2 must divide in_channels=3"):
        nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(ValueError, match="must be positive"):
        nn.Linear(0, 3)
    with pytest.raises(ValueError, match="kernel_size must be an int or a pair"):
        nn.Conv2d(3, 4, "3")
    with pytest.raises(NotImplementedError, match="Half has no forward"):
        type("Half", (nn.Module,), {})()(images(1, 1))


def test_repr_shows_the_network():
    text = repr(nn.Sequential(conv=nn.Conv2d(4, 8, 3, groups=2), drop=nn.Dropout(0.3)))
    assert "(conv): Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(0, 0), groups=2)" in text
    assert "(drop): Dropout(p=0.3)" in text


def test_gradcheck_of_a_network():
    """The gradient check of a whole (tiny) network with every layer of AlexNet."""
    from minicnn.backend.random import generator
    net = nn.Sequential(conv1=nn.Conv2d(2, 4, 3, padding=1), relu1=nn.ReLU(), norm1=nn.LocalResponseNorm(3, alpha=0.7),
                        pool1=nn.MaxPool2d(3, 2), conv2=nn.Conv2d(4, 4, 3, padding=1, groups=2), flatten=nn.Flatten(), fc=nn.Linear(36, 5))
    x = np.random.default_rng(1).standard_normal((2, 2, 7, 7))
    names = [name for name, _ in net.named_parameters()]
    arrays = [p.data.astype(np.float64) for p in net.parameters()]

    def loss(x, *parameters):
        for name, p in zip(names, parameters, strict=True):
            layer, attribute = name.split(".")
            setattr(net[layer], attribute, p)
        hidden = ops.dropout(net(x), 0.5, rng=generator(mc.random.DROPOUT, 0, seed=1))
        return ops.cross_entropy(hidden, [1, 4])

    report = mc.gradcheck(loss, [x, *arrays], tolerance=1e-5)
    assert report.compared > 200


def test_layers_in_a_list_are_refused_because_they_would_not_learn():
    class Net(nn.Module):
        def __init__(self, layers):
            self.layers = layers

    for layers in ([nn.Linear(2, 2)], (nn.Linear(2, 2),), {"a": nn.Linear(2, 2)}):
        with pytest.raises(TypeError, match=r"Net.layers: layers in a .* would not learn; use Sequential"):
            Net(layers)
    assert Net([1, 2]).layers == [1, 2]


def test_lists_can_be_loaded_and_strings_cannot():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": [[1.0, 2.0]], "bias": [3.0]})
    np.testing.assert_array_equal(layer.weight.data, [[1, 2]])
    with pytest.raises(ValueError, match="bias must be an array of numbers, got dtype <U1"):
        layer.load_state_dict({"weight": [[5.0, 5.0]], "bias": ["a"]})
    np.testing.assert_array_equal(layer.weight.data, [[1, 2]])
