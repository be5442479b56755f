"""What every test finds in place: the same seed, the networks of examples/, and a device to run on."""

import pathlib
import sys

import pytest

import minicnn
from minicnn.backend import gpu_problem

pytest.register_assert_rewrite("check")
sys.path.append(str(pathlib.Path(__file__).parents[1] / "examples"))        # for  import alexnet


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: runs on a GPU, and is skipped where there is none")


@pytest.fixture(autouse=True)
def same_seed():
    """Every test starts from seed 0, alone or in any order."""
    minicnn.seed(0)


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    """Both devices in turn; the GPU only where there is one."""
    if request.param == "gpu" and gpu_problem():
        pytest.skip(gpu_problem())
    return request.param


@pytest.fixture(params=[pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request):
    """CuPy, for tests that are about the GPU alone."""
    if gpu_problem():
        pytest.skip(gpu_problem())
    import cupy
    return cupy
