"""capture_activations records the arrays of forward and backward."""

import numpy as np
import pytest

import minicnn as mc
from minicnn import nn, ops
from minicnn.backend.arrays import to_device
from minicnn.inspect.activations import capture_activations, subsample


def network(device="cpu"):
    mc.seed(1)
    model = nn.Sequential(conv1=nn.Conv2d(1, 3, 3), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2), flatten=nn.Flatten(), drop=nn.Dropout(0.5),
                          tail=nn.Sequential(nn.Linear(27, 5), nn.Tanh(), nn.Linear(5, 4))).to(device)
    mc.nn.init.kaiming_(model)
    return model


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((3, 1, 8, 8)).astype(np.float32), np.array([1, 3, 0])


def test_every_layer_once_in_order_with_outputs_and_gradients(batch, device):
    images, labels = batch
    model = network(device)
    cache = capture_activations(model, mc.Tensor(images, device=device), labels)
    assert list(cache.layers) == ["conv1", "relu1", "pool1", "flatten", "drop", "tail.0", "tail.1", "tail.2"]
    for layer in cache.layers.values():
        assert layer.gradient.shape == layer.output.shape
    assert cache.layers["conv1"].parameters["weight"][1].shape == (3, 1, 3, 3)
    assert [[f.__name__ for f in layer.functions] for layer in cache.layers.values()] == [
        ["Conv2d"], ["ReLU"], ["MaxPool2d"], ["Reshape"], [], ["Linear"], ["Tanh"], ["Linear"]]
    assert cache.layers["relu1"].input is cache.layers["conv1"].output
    assert cache.scores.shape == (3, 4)


def test_gradients_are_those_of_each_images_own_loss(batch):
    """By finite differences: with respect to the input, the output of a layer in the middle, and a weight."""
    images, labels = batch[0].astype(np.float64), batch[1]
    model = network()
    for _, p in model.named_parameters():
        p.data = p.data.astype(np.float64)
    cache = capture_activations(model, images, labels)

    def losses(x=images):
        model.eval()
        with mc.no_grad():
            logits = model(mc.Tensor(x)).data
        return np.array([ops.cross_entropy(mc.Tensor(logits[i:i + 1]), labels[i:i + 1]).item() for i in range(3)])

    step = 1e-6
    for n, index in ((0, (0, 3, 4)), (2, (0, 5, 1))):
        shifted = [images.copy(), images.copy()]
        shifted[0][(n, *index)] += step
        shifted[1][(n, *index)] -= step
        slope = (losses(shifted[0]) - losses(shifted[1])) / (2 * step)
        assert cache.input_gradient[(n, *index)] == pytest.approx(slope[n], rel=1e-5, abs=1e-9)
    weight, gradient = cache.layers["tail.0"].parameters["weight"]
    weight[2, 5] += step
    above = losses().mean()
    weight[2, 5] -= 2 * step
    assert gradient[2, 5] == pytest.approx((above - losses().mean()) / (2 * step), rel=1e-5)
    weight[2, 5] += step
    relu = cache.layers["relu1"]
    assert np.array_equal(cache.layers["conv1"].gradient, relu.gradient * (relu.input > 0))


def test_without_labels_backward_starts_at_the_highest_score(batch):
    images, _ = batch
    model = network()
    cache = capture_activations(model, images)
    start = cache.layers["tail.2"].gradient
    assert np.array_equal(start, np.eye(4, dtype=np.float32)[cache.scores.argmax(axis=1)])


def test_backward_can_start_at_the_score_of_any_class(batch, device):
    images, _ = batch
    model = network(device)
    classes = np.array([3, 0, 2])
    x = mc.Tensor(images, device=device)
    cache = capture_activations(model, x, target_classes=classes)
    start = to_device(cache.layers["tail.2"].gradient, "cpu")
    assert np.array_equal(start, np.eye(4, dtype=np.float32)[classes])
    np.testing.assert_array_equal(to_device(capture_activations(model, x, target_classes=list(classes)).input_gradient, "cpu"),
                                  to_device(cache.input_gradient, "cpu"))
    for wrong in ([1, 2], [0, 1, 4], [-1, 0, 0], [0.0, 1.0, 2.0]):
        with pytest.raises(ValueError, match="target_classes must be 3 integers from 0 to 3, one for each image"):
            capture_activations(model, x, target_classes=wrong)
    with pytest.raises(ValueError, match="give one of them"):
        capture_activations(model, x, classes, target_classes=classes)


def test_parameters_of_all_modules_are_listed_once(batch):
    """Also those of a module with submodules; a layer that runs twice has the sum of both gradients."""
    class Scaled(nn.Module):
        def __init__(self):
            self.scale = mc.Tensor(np.full(4, 2.0, np.float32), requires_grad=True)
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(self.fc(x) * self.scale)

    model, x, labels = Scaled(), np.ones((2, 4), np.float32), np.array([0, 1])
    cache = capture_activations(model, x, labels)
    ops.cross_entropy(model(mc.Tensor(x)), labels).backward()
    assert list(cache.parameters) == ["scale", "fc.weight", "fc.bias"]
    for name, p in model.named_parameters():
        assert cache.parameters[name][0] is p.data
        np.testing.assert_allclose(cache.parameters[name][1], p.grad, rtol=1e-6)


def test_the_model_is_left_unchanged(batch):
    images, labels = batch
    model = network()
    model.train()
    model.tail.eval()
    ops.cross_entropy(model(mc.Tensor(images)), labels).backward()
    before = [(p.data.copy(), p.grad) for p in model.parameters()]
    state = mc.random.state()
    capture_activations(model, images, labels)
    capture_activations(model, images, labels, training=True)
    assert mc.random.state() == state
    assert (model.training, model.drop.training, model.tail.training) == (True, True, False)
    for p, (data, grad) in zip(model.parameters(), before, strict=True):
        assert p.grad is grad
        assert np.array_equal(p.data, data)


def test_dropout_is_active_only_with_training(batch):
    images, labels = batch
    model = network()
    off, on = (capture_activations(model, images, labels, training=t).layers["drop"] for t in (False, True))
    assert off.output is off.input
    assert (on.output == 0).sum() > (on.input == 0).sum()


def test_a_layer_that_runs_twice_is_listed_twice(batch):
    class Twice(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(self.fc(x))

    cache = capture_activations(Twice(), np.ones((2, 4), np.float32), np.array([0, 1]))
    assert list(cache.layers) == ["fc", "fc#2"]
    assert cache.layers["fc#2"].input is cache.layers["fc"].output


def test_subsample():
    a = np.arange(12.0).reshape(3, 4).T
    assert sorted(subsample(a)) == sorted(a.flat)
    assert len(subsample(np.zeros((1000, 1000)), max_count=1000)) == 1000
