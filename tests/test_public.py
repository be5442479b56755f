"""The public API: the import is light, and every documented name exists and has a docstring."""

import pathlib
import subprocess
import sys

import pytest

import minicnn as mc
from minicnn.backend.arrays import gpu_unavailable_reason

NAMES = """Tensor Function no_grad seed has_gpu gradcheck summary save_checkpoint load_checkpoint
ops.conv2d ops.max_pool2d ops.adaptive_avg_pool2d ops.local_response_norm ops.relu ops.tanh ops.sigmoid ops.dropout ops.linear
ops.flatten ops.softmax ops.log_softmax ops.cross_entropy
nn.Module nn.Sequential
nn.Conv2d nn.MaxPool2d nn.AdaptiveAvgPool2d nn.LocalResponseNorm nn.ReLU nn.Tanh nn.Sigmoid nn.Dropout nn.Linear nn.Flatten
nn.Module.parameters nn.Module.named_parameters nn.Module.named_children nn.Module.named_modules nn.Module.state_dict
nn.Module.load_state_dict nn.Module.train nn.Module.eval nn.Module.to nn.Module.cpu nn.Module.zero_grad nn.Module.device
nn.init.kaiming_ nn.init.kaiming_normal_ nn.init.normal_ nn.init.constant_ nn.train_mode nn.eval_mode
optim.Optimizer optim.Optimizer.step optim.Optimizer.zero_grad optim.Optimizer.state_dict optim.Optimizer.last_update
optim.SGD optim.SGD.step optim.SGD.zero_grad optim.SGD.state_dict optim.StepLR optim.LinearLR optim.ReduceLROnPlateau
optim.StepLR.get_last_lr
data.ImageFolder data.CIFAR10 data.FashionMNIST data.DataLoader data.transforms
Tensor.data Tensor.grad Tensor.shape Tensor.dtype Tensor.device Tensor.requires_grad Tensor.sum Tensor.mean Tensor.reshape Tensor.transpose
Tensor.flatten Tensor.backward Tensor.to Tensor.cpu Tensor.numpy Tensor.item Tensor.detach
random.state random.set_state random.fork_rng hooks.Hook hooks.hooks_disabled""".split()


@pytest.mark.parametrize("name", NAMES)
def test_every_name_exists_and_is_documented(name):
    thing = mc
    for part in name.split("."):
        thing = getattr(thing, part)
    if callable(thing):
        assert thing.__doc__, f"{name} has no docstring"


def test_the_import_is_light():
    """Pillow, matplotlib and CuPy are imported when they are needed, not before."""
    code = "import sys, minicnn; print(sorted({'PIL', 'matplotlib', 'cupy', 'torch', 'tqdm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("module", "tensor autograd hooks ops nn optim gradcheck checkpoint text backend.threads".split())
def test_the_core_imports_nothing_above_it(module):
    """Each module of the core can be imported with the package's front page blocked, and brings in only other modules of the core."""
    package = pathlib.Path(mc.__file__).parent
    code = (f"import sys, types; package = types.ModuleType('minicnn'); package.__path__ = [{str(package)!r}]\n"
            f"sys.modules['minicnn'] = package; import minicnn.{module}\n"
            "print(sorted({name.split('.')[1] for name in sys.modules if name.startswith('minicnn.')}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(eval(done.stdout)) <= {"tensor", "autograd", "hooks", "backend", "ops", "nn", "optim", "gradcheck", "checkpoint", "text"}


def test_without_a_gpu_moving_there_is_an_error():
    assert mc.has_gpu() == (gpu_unavailable_reason() is None)
    if not mc.has_gpu():
        with pytest.raises(RuntimeError, match="no GPU: "):
            mc.Tensor([1.0]).to("gpu")
        with pytest.raises(RuntimeError, match="no GPU: "):
            mc.nn.Linear(2, 2).to("gpu")


@pytest.mark.parametrize("device", ["cuda", "gpu:x", "", 0, None])
def test_device_names_are_checked(device):
    with pytest.raises(ValueError, match='device must be "cpu", "gpu" or "gpu:1", got '):
        mc.Tensor([1.0]).to(device)


STRICT = """
from typing import Any

import numpy as np

import minicnn as mc
from minicnn import Tensor, hooks, nn, ops, optim


class Square(mc.Function):
    def forward(self, x: Any) -> tuple[Any, tuple[Any, ...]]:
        return x * x, (x,)

    def backward(self, gy: Any, x: Any) -> Any:
        return 2 * gy * x


class Net(nn.Module):
    def __init__(self) -> None:
        self.body = nn.Sequential(conv1=nn.Conv2d(1, 2, 3), relu=nn.ReLU(), flatten=nn.Flatten())
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Descent(optim.Optimizer):
    def __init__(self, params: list[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= group["lr"] * p.grad


class Counter(hooks.Hook):
    count = 0

    def after_forward(self, function: Any, arrays: list[Any], y: Any, saved: tuple[Any, ...]) -> None:
        self.count += 1


def train(x: Tensor, steps: int) -> float:
    mc.seed(3)
    net = Net().train().to("cpu")
    nn.init.kaiming_(net)
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    schedule = optim.StepLR(optimizer, 2)
    for _ in range(steps):
        with Counter() as counter:
            loss = (net(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        net.zero_grad()
    with nn.eval_mode(net) as model, mc.no_grad():
        print(model(x).numpy().dtype, counter.count, net.body.conv1.weight.shape, schedule.get_last_lr())
    mc.save_checkpoint("a.npz", model=net.state_dict(), optimizer=optimizer.state_dict(), random=mc.random.state())
    state = mc.load_checkpoint("a.npz")
    net.load_state_dict(state["model"])
    print(mc.gradcheck(lambda t: Square()(t), np.ones(3)).worst.error)
    return float(loss)
"""


def test_a_users_program_passes_strict_type_checks(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(STRICT)
    (tmp_path / "wrong.py").write_text("import minicnn as mc\nx = mc.Tensor([1.0])\nx.view\nmc.nn.BatchNorm2d\nmc.optim.Adam\n"
                                       "mc.nn.ReLU().cuda\nmc.nn.Linear('3', 4)\n")
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", "--config-file", "", "user.py",
                           "wrong.py"], capture_output=True, text=True, check=False, cwd=tmp_path,
                          env={"PATH": "", "MYPYPATH": str(pathlib.Path(mc.__file__).parents[1])})
    own = [line for line in done.stdout.splitlines() if line.startswith(("user.py", "wrong.py"))]
    assert [line.split(":")[:2] for line in own] == [["wrong.py", str(line)] for line in range(3, 8)], done.stdout + done.stderr
