"""What a user meets first: the import is light, and the names of the plan are there."""

import subprocess
import sys

import pytest

import minicnn as mc

NAMES = """Tensor no_grad seed has_gpu gradcheck summary save_checkpoint load_checkpoint
ops.conv2d ops.max_pool2d ops.adaptive_avg_pool2d ops.local_response_norm ops.relu ops.tanh ops.sigmoid ops.dropout ops.linear
ops.flatten ops.softmax ops.log_softmax ops.cross_entropy
nn.Module nn.Sequential
nn.Conv2d nn.MaxPool2d nn.AdaptiveAvgPool2d nn.LocalResponseNorm nn.ReLU nn.Tanh nn.Sigmoid nn.Dropout nn.Linear nn.Flatten
nn.Module.parameters nn.Module.named_parameters nn.Module.state_dict nn.Module.load_state_dict nn.Module.train nn.Module.eval nn.Module.to
optim.SGD optim.SGD.step optim.SGD.zero_grad optim.SGD.state_dict optim.StepLR optim.ReduceLROnPlateau
data.ImageFolder data.CIFAR10 data.FashionMNIST data.DataLoader data.transforms
Tensor.data Tensor.grad Tensor.shape Tensor.dtype Tensor.device Tensor.requires_grad Tensor.sum Tensor.mean Tensor.reshape Tensor.transpose
Tensor.flatten Tensor.backward Tensor.to Tensor.numpy Tensor.item Tensor.detach""".split()


@pytest.mark.parametrize("name", NAMES)
def test_name_is_there_and_documented(name):
    thing = mc
    for part in name.split("."):
        thing = getattr(thing, part)
    if callable(thing):
        assert thing.__doc__, f"{name} has no docstring"


def test_import_brings_no_heavy_package():
    """Pillow, matplotlib and CuPy are imported when they are needed, not before."""
    code = "import sys, minicnn; print(sorted({'PIL', 'matplotlib', 'cupy', 'torch', 'tqdm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_has_gpu_says_why_not():
    assert mc.has_gpu() == (mc.backend.gpu_problem() is None)
    if not mc.has_gpu():
        with pytest.raises(RuntimeError, match="no GPU: "):
            mc.Tensor([1.0]).to("gpu")
        with pytest.raises(RuntimeError, match="no GPU: "):
            mc.nn.Linear(2, 2).to("gpu")


@pytest.mark.parametrize("device", ["cuda", "gpu:x", "", 0, None])
def test_device_names_are_checked(device):
    with pytest.raises(ValueError, match='device is "cpu", "gpu" or "gpu:1"'):
        mc.Tensor([1.0]).to(device)
