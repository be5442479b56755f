"""What a PyTorch user writes out of habit works, or the error says what to write instead."""

import math

import numpy as np
import pytest

import minicnn as mc
from minicnn import Tensor, nn, ops, optim
from minicnn.examples.alexnet import alexnet


def x():
    return Tensor(np.array([[1.0, -2.0, 3.0]], np.float32), requires_grad=True)


HINTS = {       # what fails, and the hint in the error message
    "x.view":               (lambda: x().view(3), AttributeError, "Tensor has no 'view'; write x.reshape(...)"),
    "x.unsqueeze":          (lambda: x().unsqueeze(0), AttributeError, "write x.reshape(...)"),
    "x.squeeze":            (lambda: x().squeeze(), AttributeError, "write x.reshape(...)"),
    "x.permute":            (lambda: x().permute(1, 0), AttributeError, "write x.transpose(...)"),
    "x.t":                  (lambda: x().t(), AttributeError, "write x.T"),
    "x.size()":             (lambda: x().size(), TypeError, "write x.shape or x.shape[axis]"),
    "x.size(0)":            (lambda: x().size(0), TypeError, "write x.shape or x.shape[axis]"),
    "x.dim":                (lambda: x().dim(), AttributeError, "write x.ndim"),
    "x.numel":              (lambda: x().numel(), AttributeError, "write x.size"),
    "x.argmax":             (lambda: x().argmax(1), AttributeError, "write x.numpy().argmax(...), outside the graph"),
    "x.max":                (lambda: x().max(), AttributeError, "write x.numpy().max(...), outside the graph"),
    "x.min":                (lambda: x().min(), AttributeError, "write x.numpy().min(...), outside the graph"),
    "x.std":                (lambda: x().std(), AttributeError, "write x.numpy().std(...), outside the graph"),
    "x.abs":                (lambda: x().abs(), AttributeError, "write np.abs(x.numpy()), outside the graph"),
    "x.sqrt":               (lambda: x().sqrt(), AttributeError, "write x ** 0.5"),
    "x.norm":               (lambda: x().norm(), AttributeError, "write (x ** 2).sum() ** 0.5"),
    "x.relu":               (lambda: x().relu(), AttributeError, "write ops.relu(x)"),
    "x.softmax":            (lambda: x().softmax(1), AttributeError, "write ops.softmax(x)"),
    "x.exp":                (lambda: x().exp(), AttributeError, "write ops.exp(x)"),
    "x.clone":              (lambda: x().clone(), AttributeError, "write Tensor(x.data.copy()), outside the graph"),
    "x.float":              (lambda: x().float(), AttributeError, 'write Tensor(x.data.astype("float32")), outside the graph'),
    "x.zero_":              (lambda: x().zero_(), AttributeError, "write x.data[...] = values, or x.data += values"),
    "x.add_":               (lambda: x().add_(1), AttributeError, "write x.data[...] = values, or x.data += values"),
    "x.requires_grad_":     (lambda: x().requires_grad_(), AttributeError, "write x.requires_grad = True"),
    "x.cuda":               (lambda: x().cuda(), AttributeError, 'write x.to("gpu")'),
    "x.to cuda":            (lambda: x().to("cuda"), ValueError, """device must be "cpu", "gpu" or "gpu:1", got 'cuda'; write "gpu\""""),
    "x.to cuda:1":          (lambda: x().to("cuda:1"), ValueError, 'write "gpu:1"'),
    "Tensor on cuda":       (lambda: Tensor([1.0], device="cuda:0"), ValueError, 'write "gpu:0"'),
    "if x":                 (lambda: bool(x()), TypeError, "compare .data or .item()"),
    "relu(array)":          (lambda: ops.relu(np.ones(3)), TypeError, "write minicnn.Tensor(x)"),
    "x.anything":           (lambda: x().anything, AttributeError, "Tensor has no attribute 'anything'"),

    "model.cuda":           (lambda: nn.ReLU().cuda(), AttributeError, "ReLU has no attribute 'cuda'; write model.to(\"gpu\")"),
    "model.to cuda":        (lambda: nn.Linear(2, 2).to("cuda"), ValueError, 'write "gpu"'),
    "model.children":       (lambda: nn.Sequential().children(), AttributeError, "write [child for _, child in model.named_children()]"),
    "model.modules":        (lambda: nn.Sequential().modules(), AttributeError, "write [module for _, module in model.named_modules()]"),
    "model.requires_grad_": (lambda: nn.ReLU().requires_grad_(False), AttributeError, "write optim.SGD(parameters_to_train, ...)"),
    "model.anything":       (lambda: nn.ReLU().anything, AttributeError, "ReLU has no attribute 'anything'"),

    "nn.functional":        (lambda: nn.functional, AttributeError, "write the functions of minicnn.ops, such as ops.relu(x)"),
    "nn.CrossEntropyLoss":  (lambda: nn.CrossEntropyLoss(), AttributeError, "write ops.cross_entropy(logits, labels)"),
    "nn.MSELoss":           (lambda: nn.MSELoss(), AttributeError, "write ((y - target) ** 2).mean()"),
    "nn.Softmax":           (lambda: nn.Softmax(1), AttributeError, "write ops.softmax(x)"),
    "nn.BatchNorm2d":       (lambda: nn.BatchNorm2d(3), AttributeError, "write LocalResponseNorm, AlexNet's normalisation, or a Module of"),
    "nn.AvgPool2d":         (lambda: nn.AvgPool2d(2), AttributeError, "write AdaptiveAvgPool2d(output_size)"),
    "nn.Parameter":         (lambda: nn.Parameter(np.ones(3)), AttributeError, "write Tensor(array, requires_grad=True)"),
    "nn.ModuleList":        (lambda: nn.ModuleList([]), AttributeError, "write Sequential(*layers), or an attribute for each layer"),
    "nn.Anything":          (lambda: nn.Anything, AttributeError, "module 'minicnn.nn' has no attribute 'Anything'"),

    "optim.Adam":           (lambda: optim.Adam([x()], 0.1), AttributeError, "no 'Adam', only SGD; to add an optimiser, subclass"),
    "optim.lr_scheduler":   (lambda: optim.lr_scheduler, AttributeError, "the schedules are optim.StepLR, LinearLR and ReduceLROnPlateau"),
    "optim.MultiStepLR":    (lambda: optim.MultiStepLR, AttributeError, "the schedules are optim.StepLR, LinearLR and ReduceLROnPlateau"),
    "optim.anything":       (lambda: optim.anything, AttributeError, "module 'minicnn.optim' has no attribute 'anything'"),
    "plateau mode":         (lambda: optim.ReduceLROnPlateau(optim.SGD([x()], 0.1), "min"), ValueError, "there is no mode: the metric is"),
}


@pytest.mark.parametrize("habit", HINTS)
def test_the_error_says_what_to_write_instead(habit):
    act, error, hint = HINTS[habit]
    with pytest.raises(error) as caught:
        act()
    assert hint in str(caught.value)


def test_hints_are_for_missing_names_only():
    """A hint for a name that exists would be out of date. hasattr works as for any class."""
    for thing, names in ((x(), mc.tensor.HINTS), (nn.ReLU(), nn.module.HINTS), (nn, nn.HINTS)):
        assert not any(hasattr(thing, name) for name in [*names, "anything"])


def test_scalars_convert_to_python_numbers():
    loss = (x() ** 2).mean()
    assert float(loss) == pytest.approx(14 / 3)
    assert int(Tensor(np.array([[7]]))) == 7
    assert math.isfinite(loss)
    assert f"{loss:.3f}" == "4.667"
    assert f"{x()}" == str(x())
    for convert in (float, int):
        with pytest.raises(ValueError, match="item: the tensor must hold one number, got 3"):
            convert(x())


def test_size_is_a_number():
    assert x().size == 3
    assert f"{x().size}, {x().size * 2}" == "3, 6"


def test_a_training_loop_in_pytorchs_style():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).cpu()
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    scheduler = optim.StepLR(optimizer, step_size=1)

    @mc.no_grad()
    def predict(inputs):
        return net(inputs)

    for _ in range(2):
        net.zero_grad()
        ops.cross_entropy(net(x().detach().cpu()), [1]).backward()
        assert net[0].weight.grad.shape == net[0].weight.shape == (4, 3)
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups] == [pytest.approx(0.001)]
    assert optim.LinearLR(optimizer, 3).get_last_lr() == optim.ReduceLROnPlateau(optimizer).get_last_lr() == scheduler.get_last_lr()
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert not predict(x()).requires_grad


TORCHVISION = [f"{name}.{kind}" for name in ("features.0", "features.3", "features.6", "features.8", "features.10", "classifier.1",
                                             "classifier.4", "classifier.6") for kind in ("weight", "bias")]


@pytest.mark.parametrize(("variant", "hint"), [
    ("torchvision", "these are torchvision's names (features.0.weight, ...); the shapes are those of this network, so load "
                    "dict(zip(model.state_dict(), state.values(), strict=True))"),
    ("caffenet", 'its AlexNet is alexnet("torchvision"), and this network differs: conv1.weight has shape (96, 3, 11, 11), '
                 "features.0.weight (64, 3, 11, 11)"),
])
def test_weights_with_torchvisions_names(variant, hint):
    source, model = alexnet("torchvision", num_classes=3), alexnet(variant, num_classes=3)
    arrays = [np.broadcast_to(np.float32(i), p.shape) for i, p in enumerate(source.parameters())]
    state = dict(zip(TORCHVISION, arrays, strict=True))
    with pytest.raises(ValueError, match="load_state_dict: ") as caught:
        model.load_state_dict(state)
    assert hint in str(caught.value)
    if variant == "torchvision":
        model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))       # as the hint says
        assert [p.data.flat[-1] for p in model.parameters()] == list(range(16))
    with pytest.raises(ValueError, match=r"this network differs: 0\.weight has shape \(4, 3\), features"):
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).load_state_dict(state)
