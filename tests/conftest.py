"""Fixtures of all tests: the same seed, and a device to run on."""

import pytest

import minicnn
from minicnn.backend.arrays import gpu_unavailable_reason

pytest.register_assert_rewrite("check")


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: runs on a GPU, and is skipped where there is none")


@pytest.fixture(autouse=True)
def same_seed():
    """Every test starts from seed 0, alone or in any order."""
    minicnn.seed(0)


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    """Each device in turn; the GPU is skipped where there is none."""
    if request.param == "gpu" and gpu_unavailable_reason():
        pytest.skip(gpu_unavailable_reason())
    return request.param


@pytest.fixture(params=[pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request):
    """CuPy, for tests of the GPU alone."""
    if gpu_unavailable_reason():
        pytest.skip(gpu_unavailable_reason())
    import cupy
    return cupy
