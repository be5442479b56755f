"""A user's file: it calls what the README shows, and `mypy --strict` accepts it (py.typed is true)."""

import pathlib
import tempfile
from typing import Any

import numpy as np

import minicnn as mc
from minicnn.data import DataLoader, FashionMNIST
from minicnn.data.transforms import CenterCrop, Compose, Normalize, RandomCrop
from minicnn.examples.alexnet import alexnet


class Square(mc.Function):
    """y = x^2."""

    def forward(self, x: Any) -> tuple[Any, tuple[Any, ...]]:
        return x * x, (x,)

    def backward(self, gy: Any, x: Any) -> Any:
        return 2 * x * gy


class Net(mc.nn.Module):
    """A network of the user's own."""

    def __init__(self) -> None:
        self.conv = mc.nn.Conv2d(1, 4, 3, padding=1)
        self.pool = mc.nn.MaxPool2d(3, stride=2)
        self.fc = mc.nn.Linear(4 * 13 * 13, 10)

    def forward(self, x: mc.Tensor) -> mc.Tensor:
        x = mc.ops.local_response_norm(mc.ops.relu(self.conv(x)))
        return self.fc(mc.ops.dropout(mc.ops.flatten(self.pool(x)), 0.5, self.training))


def main() -> None:
    mc.seed(0)
    report = mc.gradcheck(lambda t: Square()(t), np.array([1.0, -2.0, 3.0]))
    print(report)
    net = Net()
    optimizer = mc.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    schedule = mc.optim.StepLR(optimizer, step_size=2)
    train_set = FashionMNIST("train")
    transform = Compose(RandomCrop(28, padding=2), CenterCrop(28), Normalize(128, 64))
    loader = DataLoader(train_set, batch_size=8, transform=transform, shuffle=True)
    for step, (images, labels) in enumerate(loader.epoch(0)):
        loss = mc.ops.cross_entropy(net(mc.Tensor(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step == 2:
            break
    print(f"{loss.item():.2f}", net.conv.weight.shape, net.conv.weight.grad.shape)
    print(mc.summary(alexnet("mini", 10, 1), (1, 28, 28)).total)
    print(len(mc.inspect.trace(net, mc.Tensor(images), labels)))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "net.npz")
        mc.save_checkpoint(path, model=net.state_dict(), step=3)
        net.load_state_dict(mc.load_checkpoint(path)["model"])


if __name__ == "__main__":
    main()
