"""`minicnn doctor` on working and on broken machines, real and simulated: each gets its line, its fix and its exit code."""

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

from minicnn import cli
from minicnn.backend import arrays, threads
from minicnn.cli import doctor

pytestmark = pytest.mark.usefixtures("bare_machine")
NAMES = """minicnn,Python,system,NumPy,threadpoolctl,BLAS,threads,CPU matmul,Pillow,tqdm,matplotlib,pytest,driver,CuPy""".split(",")
PIP = "python -m pip install "
CUDA12, CUDA13 = f'{PIP}"minicnn-alexnet[gpu]"', f'{PIP}"minicnn-alexnet[gpu-cuda13]"'


@pytest.fixture
def bare_machine(monkeypatch, tmp_path):
    """No CuPy, no driver and no nvidia-smi, whatever this machine has."""
    for name in ("CUDA_ON_CPU", "CUDA_VISIBLE_DEVICES", "MINICNN_THREADS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(doctor, "cupy_wheels", dict)
    monkeypatch.setattr(doctor, "GPU_SIZE", 128)            # the GPUs here are NumPy
    has_driver(monkeypatch, 0)
    arrays.gpu_unavailable_reason.cache_clear()
    yield
    arrays.gpu_unavailable_reason.cache_clear()


def has_driver(monkeypatch, cuda):
    """Simulates libcuda with this CUDA version; 0: there is none."""
    def library(name, *args, **kwargs):
        if "cuda" not in str(name):
            return load(name, *args, **kwargs)
        if not cuda:
            raise OSError(f"{name}: cannot open shared object file")
        return types.SimpleNamespace(cuDriverGetVersion=lambda reference: setattr(reference._obj, "value", cuda))
    monkeypatch.setattr(ctypes, "CDLL", library)


load = ctypes.CDLL


def has_nvidia_smi(output, code=0):
    """Installs a shell script of that name."""
    program = os.path.join(os.environ["PATH"], "nvidia-smi")
    with open(program, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\necho "{output}"\nexit {code}\n')
    os.chmod(program, 0o755)


class OutOfMemoryError(MemoryError):
    pass


def has_cupy(monkeypatch, driver=12040, wheels=None, gpus=1, ones=np.ones, asarray=lambda a, here: a, kernel=lambda x, i: 2 * x + i,
             compiles=lambda program, options: None):
    """Simulates what doctor and backend use of CuPy, on NumPy arrays. `ones`, `asarray`, `kernel` and `compiles` can be broken ones."""
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
    """Run doctor in this process: (exit code, {name: (mark, text, fixes)}, the conclusion)."""
    def run(*argv):
        code = cli.main(["doctor", *argv])
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
    """Run the command in a process of its own, with warnings as errors."""
    env = {**{k: v for k, v in os.environ.items() if k not in ("CUDA_ON_CPU", "MINICNN_THREADS")}, **env}
    done = subprocess.run([sys.executable, "-W", "error", "-m", "minicnn", *argv], capture_output=True, text=True, env=env, timeout=120,
                          check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


# The command

def test_without_a_command_it_prints_the_help():
    done = in_a_process()
    assert done.returncode == 0
    assert done.stderr == ""
    assert all(name in done.stdout for name in cli.COMMANDS)
    assert in_a_process("--help").stdout == done.stdout


def test_exit_codes_of_the_command(monkeypatch):
    assert in_a_process("nonsense").returncode == 2
    assert in_a_process("doctor", "--nonsense").returncode == 2
    assert "--gpu" in in_a_process("doctor", "--help").stdout
    monkeypatch.setattr(doctor, "main", lambda argv: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(["doctor"]) == 130


def test_a_closed_pipe_is_no_error():
    process = subprocess.Popen([sys.executable, "-m", "minicnn", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == 1


def test_only_the_chosen_command_is_imported():
    code = ("import sys, minicnn; from minicnn.cli import main; main([]); "
            "print([name for name in sys.modules if name.startswith('minicnn.cli.') or name == 'PIL'])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_and_exit_code_2_for_a_wrong_option(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: minicnn {command}")
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--nonsense"])
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


# This machine, and the CPU

def test_this_machine_as_it_is():
    done = in_a_process("doctor")
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    lines, sentence = parsed(done.stdout)
    assert list(lines)[:len(NAMES)] == NAMES
    assert lines["minicnn"][1].startswith(f"{cli.version().split()[1]} in ")
    assert lines["NumPy"] == ("ok", np.__version__, [])
    speed = re.fullmatch(r"1024 x 1024 times 1024 x 1024, float32: correct, ([\d,]+) GFLOP/s", lines["CPU matmul"][1])
    assert 1 <= float(speed[1].replace(",", "")) < 1e5
    assert sentence.startswith("--device auto chooses the ")
    assert in_a_process("doctor", "--gpu").returncode == (0 if sentence.startswith("--device auto chooses the GPU, which works") else 2)


@pytest.mark.parametrize("value", ["0", "many", ""])
def test_a_wrong_number_of_threads(value):
    done = in_a_process("doctor", MINICNN_THREADS=value)
    lines, sentence = parsed(done.stdout)
    assert done.returncode == 1
    assert lines["threads"][0] == "problem"
    assert lines["threads"][1].startswith("ValueError: ")
    assert "MINICNN_THREADS" in lines["threads"][2][0]
    assert sentence == f"minicnn does not work on this machine (threads). First:  {lines['threads'][2][0]}"


def test_the_number_of_threads_and_its_source():
    assert parsed(in_a_process("doctor", MINICNN_THREADS="3").stdout)[0]["threads"][1] == "3 (set by MINICNN_THREADS)"


@pytest.mark.parametrize("error", [1, -1e-2, np.nan])
@pytest.mark.parametrize("row, column", [(0, 0), (517, 1023)])
def test_one_wrong_entry_of_a_matrix_product_is_noticed(examine, monkeypatch, error, row, column):
    right = threads.matmul

    def wrong(a, b):
        y = right(a, b)
        y[row, column] += error
        return y

    monkeypatch.setattr(threads, "matmul", wrong)
    code, lines, sentence = examine()
    assert code == 1
    assert lines["CPU matmul"][0] == "problem"
    assert "wrong" in lines["CPU matmul"][1]
    assert sentence.startswith("minicnn does not work on this machine (CPU matmul).")


def test_a_package_that_is_missing(examine, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(importlib.metadata, "requires",
                        {"minicnn-alexnet": ["tqdm>=4.60", 'matplotlib>=3.8; extra == "examples"']}.__getitem__)
    code, lines, sentence = examine()
    assert code == 1
    assert lines["tqdm"] == ("problem", "not installed", [PIP + '"tqdm>=4.60"'])
    assert lines["matplotlib"] == ("absent", "not installed; only figures need it", [PIP + '"matplotlib>=3.8"'])
    assert sentence == f"minicnn does not work on this machine (tqdm). First:  {PIP}\"tqdm>=4.60\""


def test_an_optional_package_that_is_missing(examine, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, lines, sentence = examine()
    assert code == 0
    assert lines["matplotlib"][0] == "absent"
    assert sentence == "--device auto chooses the CPU, which works. Next:  minicnn train"


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
    monkeypatch.setattr(importlib.metadata, "requires", {"minicnn-alexnet": ["numpy>=2"]}.__getitem__)
    code, lines, _ = examine()
    assert code == 1
    assert lines["NumPy"] == ("problem", "1.26.4 is too old", [PIP + '"numpy>=2"'])


# Without CuPy, or with a wrong one

@pytest.mark.parametrize("cuda, card, install", [
    (12000, None, CUDA12), (12080, "NVIDIA GeForce RTX 3060, 570.86, 8.6", CUDA12),
    (13000, None, CUDA13), (13020, "NVIDIA H100 80GB HBM3, 595.58, 9.0", CUDA13),
    (13000, "NVIDIA GeForce GTX 1080, 580.95, 6.1", CUDA12)])
def test_a_driver_without_cupy_names_the_extra_that_fits(examine, monkeypatch, cuda, card, install):
    has_driver(monkeypatch, cuda)
    if card:
        has_nvidia_smi(card)
    code, lines, sentence = examine()
    assert code == 0
    assert lines["driver"][0] == "ok"
    assert lines["driver"][1].endswith(f"supports CUDA up to {cuda // 1000}.{cuda % 1000 // 10}")
    if card:
        assert lines["driver"][1].startswith(f"{card.split(', ')[1]} for {card.split(', ')[0]}, ")
    assert lines["CuPy"] == ("problem", "not installed, though this machine has NVIDIA's driver", [install])
    assert lines["GPU"][:2] == ("absent", "no GPU: CuPy is not installed")
    assert sentence == f'--device auto chooses the CPU, which works. Next:  {install}'


def test_neither_driver_nor_cupy_is_no_problem(examine):
    code, lines, sentence = examine()
    assert code == 0
    assert {name: lines[name][0] for name in ("driver", "CuPy", "GPU")} == dict.fromkeys(("driver", "CuPy", "GPU"), "absent")
    assert lines["CuPy"][2] == []
    assert sentence == "--device auto chooses the CPU, which works. Next:  minicnn train"
    assert examine("--gpu")[0] == 2


@pytest.mark.parametrize("cuda, output, code, line, fix", [
    (11040, "Card, 470.82, 8.6", 0, "470.82 for Card, supports CUDA up to 11.4 only", "525"),
    (12040, "NVIDIA-SMI has failed because it could not reach the driver", 9, "nvidia-smi: NVIDIA-SMI has failed because", "restart"),
    (0, "Card, 550.54, 8.6", 0, "550.54 for Card, but its CUDA library (libcuda) cannot be loaded", "--gpus all")])
def test_a_broken_driver(examine, monkeypatch, cuda, output, code, line, fix):
    has_driver(monkeypatch, cuda)
    has_nvidia_smi(output, code)
    code, lines, _ = examine()
    assert code == 0
    assert lines["driver"][0] == "problem"
    assert lines["driver"][1].startswith(line)
    assert fix in lines["driver"][2][0]


@pytest.mark.parametrize("source, line", [
    ("raise RuntimeError('CUDA path\\n  not found')", "RuntimeError: CUDA path not found"),
    ("try:\n    import no_such_part\nexcept ImportError as e:\n    raise ImportError('=====\\nmuch advice') from e",
     "ModuleNotFoundError: No module named 'no_such_part'"),
    ("", "AttributeError: module 'cupy' has no attribute '__version__'")], ids=["raises", "wraps", "left behind"])
def test_a_cupy_that_cannot_be_imported(examine, monkeypatch, tmp_path, source, line):
    (tmp_path / "cupy.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(doctor, "cupy_wheels", lambda: {"cupy-cuda12x": "14.2.0"})
    has_driver(monkeypatch, 13000)
    code, lines, sentence = examine("--gpu")
    assert code == 2
    fixes = ["python -m pip uninstall --yes cupy-cuda12x", CUDA13]
    assert lines["CuPy"] == ("problem", f"cupy-cuda12x 14.2.0 cannot be imported: {line}", fixes)
    assert lines["GPU"][1].startswith("no GPU: ")
    assert sentence == f"--device auto chooses the CPU, which works. Next:  {', then  '.join(fixes)}"


@pytest.mark.parametrize("driver, wheels, line, fix", [
    (12040, {"cupy-cuda11x": "13.6.0", "cupy-cuda12x": "14.2.0"}, "cupy-cuda11x 13.6.0, cupy-cuda12x 14.2.0: several at once",
     "uninstall --yes cupy-cuda11x cupy-cuda12x"),
    (12040, {"cupy-cuda13x": "14.2.0"}, "cupy-cuda13x 14.2.0 is for CUDA 13, but the driver supports CUDA up to 12.4 only", "uninstall"),
    (11080, {"cupy-cuda12x": "14.2.0"}, "cupy-cuda12x 14.2.0 is for CUDA 12, but the driver supports CUDA up to 11.8 only",
     doctor.NEW_DRIVER),
    (12040, {"cupy-cuda12x": "13.6.0"}, "cupy-cuda12x 13.6.0 is too old: minicnn needs 14 or newer", "uninstall"),
    (12040, {"cupy-cuda111": "9.0.0"}, "cupy-cuda111 9.0.0 is too old", "uninstall")])
def test_a_wrong_wheel(examine, monkeypatch, driver, wheels, line, fix):
    has_cupy(monkeypatch, driver, wheels)
    code, lines, _ = examine()
    assert code == 0
    mark, text, fixes = lines["CuPy"]
    assert mark == "problem"
    assert text.startswith(line)
    assert fix in fixes[0]
    assert driver < 12000 or fixes[-1] == CUDA12


def test_a_wheel_for_newer_gpus(examine, monkeypatch):
    has_cupy(monkeypatch, 13000, {"cupy-cuda13x": "14.2.0"})
    has_nvidia_smi("Tesla V100-SXM2-16GB, 580.95, 7.0")
    _, lines, _ = examine()
    assert lines["CuPy"][1] == "cupy-cuda13x 14.2.0 is for CUDA 13, which no longer supports Tesla V100-SXM2-16GB"
    assert lines["CuPy"][2][-1] == CUDA12


def test_installed_wheels_are_found(tmp_path):
    """Two wheels on the path of another process, with a `cupy` that warns of this as the real one does."""
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


# A GPU, working and broken

def test_a_gpu_that_works(examine, monkeypatch):
    has_cupy(monkeypatch, gpus=2)
    code, lines, sentence = examine("--gpu")
    assert code == 0
    assert [n for n, (mark, _, _) in lines.items() if mark != "ok"] == []
    assert lines["CuPy"][1] == "cupy-cuda12x 14.2.0"
    assert lines["CUDA"][1] == "runtime 12.9; NVRTC 12.9 compiles a kernel"
    assert lines["GPU 1"][1] == "Card 1, compute capability 8.9, 6.0 of 8.0 GiB free"
    assert re.fullmatch(r"128 x 128 times 128 x 128, float32: correct, [\d,]+ GFLOP/s", lines["GPU 1 matmul"][1])
    assert lines["GPU 1 kernel"][1] == "compiled and run: correct"
    assert sentence == "--device auto chooses the GPU, which works. Next:  minicnn train"


def raises(error, at=0):
    """An `asarray` that raises on the GPU `at` only."""
    def asarray(a, here):
        if here[-1] == at:
            raise error
        return a
    return asarray


OUT_OF_MEMORY = OutOfMemoryError("Out of memory allocating 16,777,216 bytes (allocated so far: 0 bytes).")


@pytest.mark.parametrize("broken, name, line, fix", [
    ({"asarray": raises(OUT_OF_MEMORY)}, "GPU 0 matmul", f"OutOfMemoryError: {OUT_OF_MEMORY}", doctor.OUT_OF_MEMORY),
    ({"asarray": raises(ImportError("libcublas.so.12: cannot open"))}, "GPU 0 matmul", "ImportError: libcublas.so.12: cannot open",
     CUDA12),
    ({"asarray": lambda a, here: a if a.ndim == 1 else 2 * a}, "GPU 0 matmul", "128 x 128 times 128 x 128, float32: wrong",
     "update NumPy"),
    ({"kernel": lambda x, i: 2 * x}, "GPU 0 kernel", "compiled and run, but its result is wrong", "update NumPy"),
    ({"kernel": lambda x, i: 1 / 0}, "GPU 0 kernel", "ZeroDivisionError: division by zero", "restart"),
], ids=["full", "no cuBLAS", "wrong product", "wrong kernel", "kernel raises"])
def test_a_gpu_that_fails(examine, monkeypatch, broken, name, line, fix):
    has_cupy(monkeypatch, **broken)
    code, lines, sentence = examine()
    assert code == 0
    assert lines[name][0] == "problem"
    assert lines[name][1].startswith(line)
    assert fix in lines[name][2][0]
    assert lines["GPU 0"][0] == "ok"
    assert sentence.startswith("--device auto chooses the GPU, which fails here")
    assert examine("--gpu")[0] == 2


def test_one_good_gpu_is_enough(examine, monkeypatch):
    has_cupy(monkeypatch, gpus=2, asarray=raises(OUT_OF_MEMORY, at=0))
    code, lines, sentence = examine("--gpu")
    assert code == 0
    assert (lines["GPU 0 matmul"][0], lines["GPU 1 matmul"][0]) == ("problem", "ok")
    assert sentence.startswith("--device auto chooses the GPU, which fails here")         # it chooses the first


def test_a_second_gpu_that_fails_does_not_matter_to_auto(examine, monkeypatch):
    has_cupy(monkeypatch, gpus=2, asarray=raises(OUT_OF_MEMORY, at=1))
    code, lines, sentence = examine("--gpu")
    assert code == 0
    assert (lines["GPU 0 matmul"][0], lines["GPU 1 matmul"][0]) == ("ok", "problem")
    assert sentence.startswith("--device auto chooses the GPU, which works.")


def unusable(message):
    def body(*args):
        raise RuntimeError(message)
    return body


NO_DEVICE = "cudaErrorNoDevice: no CUDA-capable device is detected"


@pytest.mark.parametrize("message, env, fix", [
    (NO_DEVICE, {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES=7 hides the GPUs: unset it"),
    (NO_DEVICE, {}, doctor.RESTART),
    ("cudaErrorMemoryAllocation: out of memory", {}, doctor.OUT_OF_MEMORY),
    ("CuPy failed to load libnvrtc.so.12", {}, CUDA12)])
def test_a_gpu_that_cannot_be_used(examine, monkeypatch, message, env, fix):
    has_cupy(monkeypatch, ones=unusable(message))
    for item in env.items():
        monkeypatch.setenv(*item)
    code, lines, sentence = examine("--gpu")
    assert code == 2
    reason = arrays.gpu_unavailable_reason().rpartition(". ")[0]
    assert message in reason
    assert lines["GPU"] == ("problem", reason, [fix])
    assert "GPU 0" not in lines
    assert sentence == f"--device auto chooses the CPU, which works. Next:  {fix}"


def test_a_compiler_that_fails(examine, monkeypatch):
    has_cupy(monkeypatch, compiles=unusable("NVRTC_ERROR_COMPILATION"))
    _, lines, _ = examine()
    assert lines["CUDA"] == ("problem", "RuntimeError: NVRTC_ERROR_COMPILATION", [CUDA12])


def test_cupy_without_a_driver(examine, monkeypatch):
    has_cupy(monkeypatch, driver=0, ones=unusable("cudaErrorInsufficientDriver: CUDA driver version is insufficient"))
    code, lines, _ = examine()
    assert code == 0
    assert (lines["driver"][0], lines["CuPy"][0], lines["CUDA"][0]) == ("absent", "ok", "ok")
    assert lines["GPU"][0] == "absent"
    assert "cudaErrorInsufficientDriver" in lines["GPU"][1]


def test_an_emulation_is_not_reported_as_a_gpu(examine, monkeypatch):
    monkeypatch.setenv("CUDA_ON_CPU", "1")
    has_cupy(monkeypatch)
    code, lines, sentence = examine("--gpu")
    assert code == 2
    assert lines["GPU 0"] == ("absent", "CPU emulation, no GPU", [])
    assert lines["GPU 0 matmul"] == ("ok", "128 x 128 times 128 x 128, float32: correct, not timed", [])
    assert lines["GPU 0 kernel"][0] == "ok"
    assert sentence.startswith("--device auto chooses the emulated GPU, which is no GPU")


@pytest.mark.gpu
def test_the_gpu_of_this_machine(examine, monkeypatch):
    """With the real CuPy, if there is one that works."""
    monkeypatch.undo()
    arrays.gpu_unavailable_reason.cache_clear()
    if arrays.gpu_unavailable_reason():
        pytest.skip(arrays.gpu_unavailable_reason())
    code, lines, _ = examine("--gpu")
    assert code == (2 if doctor.emulated() else 0)
    assert {mark for name, (mark, _, _) in lines.items() if name in ("CuPy", "CUDA", "GPU 0 matmul", "GPU 0 kernel")} == {"ok"}
