"""`minicnn doctor` tells a whole machine from a broken one: it is shown both, and each must get its line, its cure and its exit code."""

import contextlib
import ctypes
import importlib.metadata
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest

from minicnn import __main__, backend, doctor, parallel

pytestmark = pytest.mark.usefixtures("bare_machine")
NAMES = """minicnn,Python,system,NumPy,threadpoolctl,BLAS,threads,CPU product,Pillow,tqdm,matplotlib,pytest,driver,CuPy""".split(",")
PIP = "python -m pip install "


@pytest.fixture
def bare_machine(monkeypatch, tmp_path):
    """No CuPy, no driver and no nvidia-smi, whatever this machine has."""
    for name in ("CUDA_ON_CPU", "CUDA_VISIBLE_DEVICES", "MINICNN_THREADS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(doctor, "cupy_wheels", dict)
    monkeypatch.setattr(doctor, "GPU_SIZE", 128)            # our GPUs are made of NumPy
    has_driver(monkeypatch, 0)
    backend.gpu_problem.cache_clear()
    yield
    backend.gpu_problem.cache_clear()


def has_driver(monkeypatch, cuda):
    """NVIDIA's library, as ctypes finds it; 0: it does not."""
    def library(name, *args, **kwargs):
        if "cuda" not in str(name):
            return load(name, *args, **kwargs)
        if not cuda:
            raise OSError(f"{name}: cannot open shared object file")
        return types.SimpleNamespace(cuDriverGetVersion=lambda reference: setattr(reference._obj, "value", cuda))
    monkeypatch.setattr(ctypes, "CDLL", library)


load = ctypes.CDLL


def has_nvidia_smi(says, code=0):
    """A program of that name, which really is run."""
    program = os.path.join(os.environ["PATH"], "nvidia-smi")
    with open(program, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\necho "{says}"\nexit {code}\n')
    os.chmod(program, 0o755)


class OutOfMemoryError(MemoryError):
    pass


def has_cupy(monkeypatch, driver=12040, wheels=None, gpus=1, ones=np.ones, asarray=lambda a, here: a, kernel=lambda x, i: 2 * x + i,
             compiles=lambda program, options: None):
    """What doctor and backend use of CuPy, on NumPy arrays. `ones`, `asarray`, `kernel` and `compiles` may be given as broken ones."""
    here = []

    @contextlib.contextmanager
    def device(i):
        here.append(i)
        yield
        here.pop()

    def launch(grid, block, args):
        x, y, n = args
        assert grid[0] * block[0] >= n
        y[:n] = kernel(x[:n], np.arange(n))

    cupy = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(
        driverGetVersion=lambda: driver, runtimeGetVersion=lambda: 12090, getDeviceCount=lambda: gpus, deviceSynchronize=lambda: None,
        memGetInfo=lambda: (6 << 30, 8 << 30), getDeviceProperties=lambda i: {"name": f"Card {i}".encode(), "major": 8, "minor": 9})
    nvrtc = types.SimpleNamespace(createProgram=lambda *args: 1, compileProgram=compiles,
                                  destroyProgram=lambda program: None, getVersion=lambda: (12, 9))
    cupy.__dict__.update(__version__="14.2.0", cuda=types.SimpleNamespace(runtime=runtime, nvrtc=nvrtc, Device=device), ones=ones,
                         asarray=lambda a: asarray(a, here), zeros=np.zeros,
                         RawKernel=lambda source, name: launch)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(doctor, "cupy_wheels", lambda: {"cupy-cuda12x": "14.2.0"} if wheels is None else wheels)


@pytest.fixture
def examine(capsys):
    """Run doctor here: (exit code, {name: (mark, text, cures)}, its last sentence)."""
    def run(*argv):
        code = __main__.main(["doctor", *argv])
        out, err = capsys.readouterr()
        assert err == ""
        return code, *parsed(out)
    return run


def parsed(out):
    lines, _, sentence = out.rstrip("\n").rpartition("\n\n")
    found = {}
    for line in lines.split("\n"):
        mark, name, text = line[:8].strip(), line[9:22].strip(), line[23:]
        if mark:
            assert mark in ("ok", "problem", "absent"), line
            found[name] = (mark, text, [])
        else:
            assert text.startswith("-> "), line
            found[name := list(found)[-1]][2].append(text[3:])
    return found, sentence


def in_a_process(*argv, **env):
    """The command as a user gives it, warnings being errors."""
    env = {**{k: v for k, v in os.environ.items() if k not in ("CUDA_ON_CPU", "MINICNN_THREADS")}, **env}
    done = subprocess.run([sys.executable, "-W", "error", "-m", "minicnn", *argv], capture_output=True, text=True, env=env, timeout=120,
                          check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


# The command

def test_alone_it_prints_the_help():
    done = in_a_process()
    assert done.returncode == 0
    assert done.stderr == ""
    assert all(name in done.stdout for name in __main__.JOBS)
    assert in_a_process("--help").stdout == done.stdout


def test_exit_codes_of_the_command(monkeypatch):
    assert in_a_process("nonsense").returncode == 2
    assert in_a_process("doctor", "--nonsense").returncode == 2
    assert "--gpu" in in_a_process("doctor", "--help").stdout
    monkeypatch.setattr(doctor, "main", lambda argv: (_ for _ in ()).throw(KeyboardInterrupt))
    assert __main__.main(["doctor"]) == 130


def test_a_reader_who_goes_away_is_no_error():
    process = subprocess.Popen([sys.executable, "-m", "minicnn", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == 1


def test_only_the_job_that_is_asked_for_is_imported():
    code = ("import sys, minicnn; before = 'minicnn.doctor' in sys.modules; from minicnn.__main__ import main; main([]); "
            "print(before, 'minicnn.doctor' in sys.modules, 'PIL' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False False"


# This machine, and the CPU

def test_this_machine_as_it_is():
    done = in_a_process("doctor")
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    lines, sentence = parsed(done.stdout)
    assert list(lines)[:len(NAMES)] == NAMES
    assert lines["minicnn"][1].startswith(f"{__main__.version().split()[1]} in ")
    assert lines["NumPy"] == ("ok", np.__version__, [])
    speed = re.fullmatch(r"1024 x 1024 times 1024 x 1024, float32: right, ([\d,]+) GFLOP/s", lines["CPU product"][1])
    assert 1 <= float(speed[1].replace(",", "")) < 1e5
    assert sentence.startswith("--device auto takes the ")
    assert in_a_process("doctor", "--gpu").returncode == (0 if sentence.startswith("--device auto takes the GPU, which works") else 2)


@pytest.mark.parametrize("value", ["0", "many", ""])
def test_a_wrong_number_of_threads(value):
    done = in_a_process("doctor", MINICNN_THREADS=value)
    lines, sentence = parsed(done.stdout)
    assert done.returncode == 1
    assert lines["threads"][0] == "problem"
    assert lines["threads"][1].startswith("ValueError: ")
    assert "MINICNN_THREADS" in lines["threads"][2][0]
    assert sentence == f"minicnn cannot work like this (threads). First:  {lines['threads'][2][0]}"


def test_threads_are_said_and_why():
    assert parsed(in_a_process("doctor", MINICNN_THREADS="3").stdout)[0]["threads"][1] == "3 (MINICNN_THREADS says so)"


@pytest.mark.parametrize("error", [1, -1e-2, np.nan])
@pytest.mark.parametrize("row, column", [(0, 0), (517, 1023)])
def test_one_wrong_entry_of_the_product_is_noticed(examine, monkeypatch, error, row, column):
    right = parallel.matmul

    def wrong(a, b):
        y = right(a, b)
        y[row, column] += error
        return y

    monkeypatch.setattr(parallel, "matmul", wrong)
    code, lines, sentence = examine()
    assert code == 1
    assert lines["CPU product"][0] == "problem"
    assert "wrong" in lines["CPU product"][1]
    assert sentence.startswith("minicnn cannot work like this (CPU product).")


def test_a_package_that_is_missing(examine, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["tqdm>=4.60", 'matplotlib>=3.8; extra == "examples"'])
    code, lines, sentence = examine()
    assert code == 1
    assert lines["tqdm"] == ("problem", "not installed", [PIP + '"tqdm>=4.60"'])
    assert lines["matplotlib"] == ("absent", "not installed; only pictures of a training need it", [PIP + '"matplotlib>=3.8"'])
    assert sentence == f"minicnn cannot work like this (tqdm). First:  {PIP}\"tqdm>=4.60\""


def test_a_package_that_only_some_need(examine, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, lines, sentence = examine()
    assert code == 0
    assert lines["matplotlib"][0] == "absent"
    assert sentence == "--device auto takes the CPU, which works. Next:  python examples/train_alexnet.py"


def test_a_package_that_does_not_load(examine, monkeypatch, tmp_path):
    (tmp_path / "tqdm.py").write_text("raise ValueError('two\\nlines')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tqdm", raising=False)
    code, lines, _ = examine()
    assert code == 1
    assert lines["tqdm"][:2] == ("problem", "ValueError: two lines")
    assert "--force-reinstall" in lines["tqdm"][2][0]


def test_a_package_that_is_too_old(examine, monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.26.4" if name == "numpy" else version(name))
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["numpy>=2"])
    code, lines, _ = examine()
    assert code == 1
    assert lines["NumPy"] == ("problem", "1.26.4 is too old", [PIP + '"numpy>=2"'])


# Without CuPy, or with one that is not right

@pytest.mark.parametrize("cuda, card, wheel", [
    (12000, None, "cupy-cuda12x[ctk]"), (12080, "NVIDIA GeForce RTX 3060, 570.86, 8.6", "cupy-cuda12x[ctk]"),
    (13000, None, "cupy-cuda13x[ctk]"), (13020, "NVIDIA H100 80GB HBM3, 595.58, 9.0", "cupy-cuda13x[ctk]"),
    (13000, "NVIDIA GeForce GTX 1080, 580.95, 6.1", "cupy-cuda12x[ctk]")])
def test_a_driver_without_cupy_is_told_the_wheel(examine, monkeypatch, cuda, card, wheel):
    has_driver(monkeypatch, cuda)
    if card:
        has_nvidia_smi(card)
    code, lines, sentence = examine()
    assert code == 0
    assert lines["driver"][0] == "ok"
    assert lines["driver"][1].endswith(f"has CUDA up to {cuda // 1000}.{cuda % 1000 // 10}")
    if card:
        assert lines["driver"][1].startswith(f"{card.split(', ')[1]} for {card.split(', ')[0]}, ")
    assert lines["CuPy"] == ("problem", "not installed, though this machine has NVIDIA's driver", [f'{PIP}"{wheel}"'])
    assert lines["GPU"][:2] == ("absent", "no GPU: CuPy is not installed")
    assert sentence == f'--device auto takes the CPU, which works. Next:  {PIP}"{wheel}"'


def test_neither_driver_nor_cupy_is_no_problem(examine):
    code, lines, sentence = examine()
    assert code == 0
    assert {name: lines[name][0] for name in ("driver", "CuPy", "GPU")} == dict.fromkeys(("driver", "CuPy", "GPU"), "absent")
    assert lines["CuPy"][2] == []
    assert sentence == "--device auto takes the CPU, which works. Next:  python examples/train_alexnet.py"
    assert examine("--gpu")[0] == 2


@pytest.mark.parametrize("cuda, says, code, line, cure", [
    (11040, "Card, 470.82, 8.6", 0, "470.82 for Card, has CUDA up to 11.4 only", "525"),
    (12040, "NVIDIA-SMI has failed because it could not reach the driver", 9, "nvidia-smi: NVIDIA-SMI has failed because", "restart"),
    (0, "Card, 550.54, 8.6", 0, "550.54 for Card, but its CUDA library (libcuda) cannot be loaded", "--gpus all")])
def test_a_driver_that_is_not_right(examine, monkeypatch, cuda, says, code, line, cure):
    has_driver(monkeypatch, cuda)
    has_nvidia_smi(says, code)
    code, lines, _ = examine()
    assert code == 0
    assert lines["driver"][0] == "problem"
    assert lines["driver"][1].startswith(line)
    assert cure in lines["driver"][2][0]


@pytest.mark.parametrize("source, line", [
    ("raise RuntimeError('CUDA path\\n  not found')", "RuntimeError: CUDA path not found"),
    ("try:\n    import no_such_part\nexcept ImportError as e:\n    raise ImportError('=====\\nmuch advice') from e",
     "ModuleNotFoundError: No module named 'no_such_part'"),
    ("", "AttributeError: module 'cupy' has no attribute '__version__'")], ids=["raises", "wraps", "left behind"])
def test_a_cupy_that_does_not_load(examine, monkeypatch, tmp_path, source, line):
    (tmp_path / "cupy.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(doctor, "cupy_wheels", lambda: {"cupy-cuda12x": "14.2.0"})
    has_driver(monkeypatch, 13000)
    code, lines, sentence = examine("--gpu")
    assert code == 2
    cures = ["python -m pip uninstall --yes cupy-cuda12x", PIP + '"cupy-cuda13x[ctk]"']
    assert lines["CuPy"] == ("problem", f"cupy-cuda12x 14.2.0 does not load: {line}", cures)
    assert lines["GPU"][1].startswith("no GPU: ")
    assert sentence == f"--device auto takes the CPU, which works. Next:  {', then  '.join(cures)}"


@pytest.mark.parametrize("driver, wheels, line, cure", [
    (12040, {"cupy-cuda11x": "13.6.0", "cupy-cuda12x": "14.2.0"}, "cupy-cuda11x 13.6.0, cupy-cuda12x 14.2.0: several at once",
     "uninstall --yes cupy-cuda11x cupy-cuda12x"),
    (12040, {"cupy-cuda13x": "14.2.0"}, "cupy-cuda13x 14.2.0 is for CUDA 13, but the driver has CUDA up to 12.4 only", "uninstall"),
    (11080, {"cupy-cuda12x": "14.2.0"}, "cupy-cuda12x 14.2.0 is for CUDA 12, but the driver has CUDA up to 11.8 only", doctor.NEW_DRIVER),
    (12040, {"cupy-cuda12x": "13.6.0"}, "cupy-cuda12x 13.6.0 is too old: minicnn wants 14 or newer", "uninstall"),
    (12040, {"cupy-cuda111": "9.0.0"}, "cupy-cuda111 9.0.0 is too old", "uninstall")])
def test_a_wheel_that_is_not_right(examine, monkeypatch, driver, wheels, line, cure):
    has_cupy(monkeypatch, driver, wheels)
    code, lines, _ = examine()
    assert code == 0
    mark, text, cures = lines["CuPy"]
    assert mark == "problem"
    assert text.startswith(line)
    assert cure in cures[0]
    assert driver < 12000 or cures[-1] == PIP + '"cupy-cuda12x[ctk]"'


def test_a_wheel_for_newer_cards(examine, monkeypatch):
    has_cupy(monkeypatch, 13000, {"cupy-cuda13x": "14.2.0"})
    has_nvidia_smi("Tesla V100-SXM2-16GB, 580.95, 7.0")
    _, lines, _ = examine()
    assert lines["CuPy"][1] == "cupy-cuda13x 14.2.0 is for CUDA 13, which no longer supports Tesla V100-SXM2-16GB"
    assert lines["CuPy"][2][-1] == PIP + '"cupy-cuda12x[ctk]"'


def test_wheels_are_found_as_pip_left_them(tmp_path):
    """Two wheels, really on the path of another process, with a `cupy` that warns of it as the real one does."""
    for name in ("cupy_cuda11x-13.6.0", "cupy_cuda12x-14.2.0", "cupyx_not_one-1.0"):
        folder = tmp_path / f"{name}.dist-info"
        folder.mkdir()
        wheel, version = name.replace("_", "-").rsplit("-", 1)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {wheel}\nVersion: {version}\n")
    (tmp_path / "cupy.py").write_text("import warnings\nwarnings.warn('several')\n__version__ = '14.2.0'")
    done = in_a_process("doctor", PYTHONPATH=str(tmp_path))
    lines, _ = parsed(done.stdout)
    assert done.returncode == 0
    assert done.stderr == ""
    assert lines["CuPy"][0] == "problem"
    assert lines["CuPy"][1].startswith("cupy-cuda11x 13.6.0, cupy-cuda12x 14.2.0: several at once")
    assert lines["CUDA"][:2] == ("problem", "AttributeError: module 'cupy' has no attribute 'cuda'")


# A GPU, whole and broken

def test_a_gpu_that_works(examine, monkeypatch):
    has_cupy(monkeypatch, gpus=2)
    code, lines, sentence = examine("--gpu")
    assert code == 0
    assert [n for n, (mark, _, _) in lines.items() if mark != "ok"] == []
    assert lines["CuPy"][1] == "cupy-cuda12x 14.2.0"
    assert lines["CUDA"][1] == "runtime 12.9; NVRTC 12.9 compiles a kernel"
    assert lines["GPU 1"][1] == "Card 1, compute capability 8.9, 6.0 of 8.0 GiB free"
    assert re.fullmatch(r"128 x 128 times 128 x 128, float32: right, [\d,]+ GFLOP/s", lines["GPU 1 product"][1])
    assert lines["GPU 1 kernel"][1] == "compiled, run: right"
    assert sentence == "--device auto takes the GPU, which works. Next:  python examples/train_alexnet.py"


def raises(error, at=0):
    """A body that works on every GPU but `at`."""
    def asarray(a, here):
        if here[-1] == at:
            raise error
        return a
    return asarray


FULL = OutOfMemoryError("Out of memory allocating 16,777,216 bytes (allocated so far: 0 bytes).")


@pytest.mark.parametrize("broken, name, line, cure", [
    ({"asarray": raises(FULL)}, "GPU 0 product", f"OutOfMemoryError: {FULL}", doctor.FULL),
    ({"asarray": raises(ImportError("libcublas.so.12: cannot open"))}, "GPU 0 product", "ImportError: libcublas.so.12: cannot open",
     PIP + '"cupy-cuda12x[ctk]"'),
    ({"asarray": lambda a, here: a if a.ndim == 1 else 2 * a}, "GPU 0 product", "128 x 128 times 128 x 128, float32: wrong",
     "up to date"),
    ({"kernel": lambda x, i: 2 * x}, "GPU 0 kernel", "compiled and run, but its answer is wrong", "up to date"),
    ({"kernel": lambda x, i: 1 / 0}, "GPU 0 kernel", "ZeroDivisionError: division by zero", "restart"),
], ids=["full", "no cuBLAS", "wrong product", "wrong kernel", "kernel raises"])
def test_a_gpu_that_fails(examine, monkeypatch, broken, name, line, cure):
    has_cupy(monkeypatch, **broken)
    code, lines, sentence = examine()
    assert code == 0
    assert lines[name][0] == "problem"
    assert lines[name][1].startswith(line)
    assert cure in lines[name][2][0]
    assert lines["GPU 0"][0] == "ok"
    assert sentence.startswith("--device auto takes the GPU, which fails here")
    assert examine("--gpu")[0] == 2


def test_one_good_gpu_is_enough(examine, monkeypatch):
    has_cupy(monkeypatch, gpus=2, asarray=raises(FULL, at=0))
    code, lines, sentence = examine("--gpu")
    assert code == 0
    assert (lines["GPU 0 product"][0], lines["GPU 1 product"][0]) == ("problem", "ok")
    assert sentence.startswith("--device auto takes the GPU, which fails here")         # it takes the first


def test_a_second_gpu_that_fails_is_not_the_one_that_auto_takes(examine, monkeypatch):
    has_cupy(monkeypatch, gpus=2, asarray=raises(FULL, at=1))
    code, lines, sentence = examine("--gpu")
    assert code == 0
    assert (lines["GPU 0 product"][0], lines["GPU 1 product"][0]) == ("ok", "problem")
    assert sentence.startswith("--device auto takes the GPU, which works.")


def unusable(message):
    def body(*args):
        raise RuntimeError(message)
    return body


NO_DEVICE = "cudaErrorNoDevice: no CUDA-capable device is detected"


@pytest.mark.parametrize("message, env, cure", [
    (NO_DEVICE, {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES=7 hides the GPUs: unset it"),
    (NO_DEVICE, {}, doctor.RESTART),
    ("cudaErrorMemoryAllocation: out of memory", {}, doctor.FULL),
    ("CuPy failed to load libnvrtc.so.12", {}, PIP + '"cupy-cuda12x[ctk]"')])
def test_a_gpu_that_cannot_be_used(examine, monkeypatch, message, env, cure):
    has_cupy(monkeypatch, ones=unusable(message))
    for item in env.items():
        monkeypatch.setenv(*item)
    code, lines, sentence = examine("--gpu")
    assert code == 2
    reason = backend.gpu_problem().rpartition(". ")[0]
    assert message in reason
    assert lines["GPU"] == ("problem", reason, [cure])
    assert "GPU 0" not in lines
    assert sentence == f"--device auto takes the CPU, which works. Next:  {cure}"


def test_a_compiler_that_fails(examine, monkeypatch):
    has_cupy(monkeypatch, compiles=unusable("NVRTC_ERROR_COMPILATION"))
    _, lines, _ = examine()
    assert lines["CUDA"] == ("problem", "RuntimeError: NVRTC_ERROR_COMPILATION", [PIP + '"cupy-cuda12x[ctk]"'])


def test_cupy_without_a_driver(examine, monkeypatch):
    has_cupy(monkeypatch, driver=0, ones=unusable("cudaErrorInsufficientDriver: CUDA driver version is insufficient"))
    code, lines, _ = examine()
    assert code == 0
    assert (lines["driver"][0], lines["CuPy"][0], lines["CUDA"][0]) == ("absent", "ok", "ok")
    assert lines["GPU"][0] == "absent"
    assert "cudaErrorInsufficientDriver" in lines["GPU"][1]


def test_an_emulation_is_not_called_a_gpu(examine, monkeypatch):
    monkeypatch.setenv("CUDA_ON_CPU", "1")
    has_cupy(monkeypatch)
    code, lines, sentence = examine("--gpu")
    assert code == 2
    assert lines["GPU 0"] == ("absent", "CPU emulation, no GPU", [])
    assert lines["GPU 0 product"] == ("ok", "128 x 128 times 128 x 128, float32: right, not timed", [])
    assert lines["GPU 0 kernel"][0] == "ok"
    assert sentence.startswith("--device auto takes the emulated GPU, which is no GPU")


@pytest.mark.gpu
def test_the_gpu_of_this_machine(examine, monkeypatch):
    """With the real CuPy, if there is one that works."""
    monkeypatch.undo()
    backend.gpu_problem.cache_clear()
    if backend.gpu_problem():
        pytest.skip(backend.gpu_problem())
    code, lines, _ = examine("--gpu")
    assert code == (2 if doctor.emulated() else 0)
    assert {mark for name, (mark, _, _) in lines.items() if name in ("CuPy", "CUDA", "GPU 0 product", "GPU 0 kernel")} == {"ok"}
