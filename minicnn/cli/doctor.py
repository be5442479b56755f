"""`minicnn doctor`: checks this machine and prints one line for each finding, with the command that fixes it.

    minicnn doctor                  what is installed, and whether the CPU and the GPUs compute correctly
    minicnn doctor --gpu            the same; fails if no GPU can be used

Every check is a real test: packages are imported, matrix products are computed and checked, a kernel is compiled and run. Every check
is guarded, so a failure costs one line, not the rest of the report. The report can be pasted into a bug report as it is.
`backend.arrays.gpu_unavailable_reason` says why there is no GPU; the fixes are here.
"""

import argparse
import contextlib
import ctypes
import functools
import importlib
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minicnn
from minicnn.backend import arrays, threads

CPU_SIZE, GPU_SIZE = 1024, 2048             # of the matrices multiplied: some hundredths of a second on either device
OLDEST_CUPY = 14                            # the first that supports NumPy 2 and CUDA 12 as minicnn uses them
OLDEST_CAPABILITY_CUDA13 = 7.5              # compute capability; CUDA 13 does not compile for Maxwell, Pascal and Volta
UPDATE = "update NumPy (for the CPU) or NVIDIA's driver (for a GPU); if the result is still wrong, please send this report"
RESTART = "restart the machine; if  nvidia-smi  still does not list the GPU, reinstall NVIDIA's driver"
OUT_OF_MEMORY = "nvidia-smi  shows which program uses the GPU's memory: end it, or wait for it"
NEW_DRIVER = "update NVIDIA's driver to 525 or newer, the first with CUDA 12"
INSTALL_CUDA12 = 'python -m pip install "minicnn-alexnet[gpu]"'             # cupy-cuda12x; driver 525 or newer
INSTALL_CUDA13 = 'python -m pip install "minicnn-alexnet[gpu-cuda13]"'      # cupy-cuda13x; driver 580 or newer
EXIT_CODES = ("Exit code 0: the CPU works (a missing GPU is only reported); 1: something that minicnn needs is broken; "
              "2: --gpu was given and no GPU can be used.")
NEXT_STEP = "minicnn train"
Fix = Sequence[str] | Callable[[str], Sequence[str]]
KERNEL = """extern "C" __global__ void minicnn_doctor(const float* x, float* y, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2 * x[i] + i;
}"""


class Finding(Exception):
    """The result of a check that is not ok: its mark ("problem" or "absent"), its text, and the fixes, each a command or a sentence."""

    def __init__(self, mark: str, text: str, *fixes: str) -> None:
        self.mark, self.text, self.fixes = mark, text, fixes


class Report:
    """Prints the result of each check at once, and collects the problems."""

    def __init__(self) -> None:
        self.broken: list[str] = []                 # required components that have a problem
        self.fixes: list[Sequence[str]] = []        # of all problems, in the order found

    def check(self, name: str, function: Callable[..., str], *args: Any, required: bool = False, fix: Fix = ()) -> bool:
        """Print what `function(*args)` returns or raises; returns True if it is ok.

        `fix` is for exceptions other than Finding: the fixes, or a function that returns them for the text of the exception.
        """
        fixes: Sequence[str] = ()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                mark, text = "ok", function(*args)
        except Finding as finding:
            mark, text, fixes = finding.mark, finding.text, finding.fixes
        except Exception as error:
            mark, text = "problem", format_error(error)
            fixes = fix(text) if callable(fix) else fix
        print(f"{mark:8} {name:13} {text}", *fixes, sep=f"\n{'':22} -> ", flush=True)
        if mark == "problem":
            if required:
                self.broken.append(name)
            if fixes:
                self.fixes.append(fixes)
        return mark == "ok"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="minicnn doctor", description=(__doc__ or "").partition("\n")[0], epilog=EXIT_CODES)
    parser.add_argument("--gpu", action="store_true", help="fail if no GPU can be used")
    args = parser.parse_args(argv)
    report = Report()
    check_cpu(report.check)
    gpus_ok = check_gpus(report.check)
    print("\n" + conclusion(report, first_gpu_ok=bool(gpus_ok) and gpus_ok[0]))         # --device auto takes the first GPU
    return 1 if report.broken else 2 if args.gpu and not any(gpus_ok) else 0


def conclusion(report: Report, first_gpu_ok: bool) -> str:
    """What --device auto chooses, and the most useful next step."""
    step = ", then  ".join(report.fixes[0]) if report.fixes else NEXT_STEP
    if report.broken:
        return f"minicnn does not work on this machine ({', '.join(report.broken)}). First:  {step}"
    if not arrays.has_gpu():
        return f"--device auto chooses the CPU, which works. Next:  {step}"
    if emulated():
        return f"--device auto chooses the emulated GPU, which is no GPU; --device cpu is faster. Next:  {step}"
    if not first_gpu_ok:
        return f"--device auto chooses the GPU, which fails here; use --device cpu until it is fixed. First:  {step}"
    return f"--device auto chooses the GPU, which works. Next:  {step}"


# The CPU and the packages

def check_cpu(check: Callable[..., bool]) -> None:
    check("minicnn", lambda: f"{minicnn.__version__} in {pathlib.Path(minicnn.__file__).parent}")
    check("Python", lambda: f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}")
    check("system", lambda: f"{platform.platform()}, {threads.available_cores()} of {os.cpu_count()} cores")
    check("NumPy", package, "numpy", "numpy", required=True)
    check("threadpoolctl", package, "threadpoolctl", "threadpoolctl", required=True)
    check("BLAS", blas)
    if check("threads", thread_count, required=True, fix=["set MINICNN_THREADS to a positive integer, or unset it to use every core"]):
        check("CPU matmul", matrix_product, CPU_SIZE, required=True, fix=["python -m pip install --force-reinstall numpy"])
    check("Pillow", package, "pillow", "PIL.Image", required=True)
    check("tqdm", package, "tqdm", "tqdm", required=True)
    check("matplotlib", package, "matplotlib", "matplotlib", "only figures need it")
    check("pytest", package, "pytest", "pytest", "only the tests need it")


def package(name: str, module: str, optional_use: str = "") -> str:
    """The version of a package, if it can be imported and is as new as minicnn's metadata require.

    Args:
        name: on the package index.   module: what to import.
        optional_use: what an optional package is for; empty for a required one.
    """
    requirement = name
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):          # minicnn is used from its source, not installed
        requirements = importlib.metadata.requires("minicnn-alexnet") or []
        requirement = next((r.partition(";")[0] for r in requirements if r.startswith(name + ">=")), name)
    try:
        importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            install = f'python -m pip install "{requirement}"'
            if optional_use:
                raise Finding("absent", f"not installed; {optional_use}", install) from None
            raise Finding("problem", "not installed", install) from None
        raise Finding("problem", format_error(error), f'python -m pip install --force-reinstall "{requirement}"') from None
    version = importlib.metadata.version(name)
    if version_numbers(version) < version_numbers(requirement):
        raise Finding("problem", f"{version} is too old", f'python -m pip install "{requirement}"')
    return version


def blas() -> str:
    """The BLAS library that NumPy multiplies matrices with."""
    import threadpoolctl
    found = [f"{b['internal_api']} {b['version']} for {b.get('architecture', 'any CPU')}, {b['num_threads']} threads"
             for b in threadpoolctl.threadpool_info() if b["user_api"] == "blas"]
    if found:
        return "; ".join(found) + " (1 while minicnn runs threads of its own)"
    name = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    return f"{name}, whose number of threads threadpoolctl cannot set"


def thread_count() -> str:
    source = "set by MINICNN_THREADS" if "MINICNN_THREADS" in os.environ else "one for each core; MINICNN_THREADS sets another number"
    return f"{threads.num_threads()} ({source})"


def matrix_product(n: int, repeats: int = 5, to_device: Callable[[Any], Any] = np.asarray, wait: Callable[[], Any] = lambda: None) -> str:
    """Multiply two n x n float32 matrices of small integers, check the result, and measure the speed.

    All sums are integers below 2^24, so every entry must be exact. y = a b is checked on a vector v of integers, y v = a (b v), without
    BLAS (Freivalds' algorithm).
    """
    rng = np.random.default_rng(0)
    a, b = rng.integers(-8, 9, (2, n, n))
    v = rng.integers(1, 1 << 20, n)
    x, w = to_device(a.astype(np.float32)), to_device(b.astype(np.float32))
    y = threads.matmul(x, w)                # the first call, with its initialization, is not timed
    seconds = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        y = threads.matmul(x, w)
        wait()
        seconds.append(time.perf_counter() - start)
    if not np.array_equal((arrays.to_device(y, "cpu").astype(np.float64) * v).sum(axis=1), a @ (b @ v)):
        raise Finding("problem", f"{n} x {n} times {n} x {n}, float32: wrong, so no result of this device can be trusted", UPDATE)
    speed = f"{2e-9 * n ** 3 / min(seconds):,.0f} GFLOP/s" if seconds else "not timed"
    return f"{n} x {n} times {n} x {n}, float32: correct, {speed}"


# The GPU

def check_gpus(check: Callable[..., bool]) -> list[bool]:
    """For each GPU that CuPy can use, whether all of its checks are ok."""
    cupy, error = load_cupy()
    cuda = driver_cuda(cupy)
    gpus, smi_error = ([], "") if emulated() else nvidia_smi()
    old_gpus = [name for name, _, capability in gpus if capability < OLDEST_CAPABILITY_CUDA13]
    install = INSTALL_CUDA12 if cuda < 13000 or old_gpus else INSTALL_CUDA13
    check("driver", driver, cuda, gpus, smi_error)
    check("CuPy", wheel, cupy, error, cupy_wheels(), cuda, old_gpus, install)
    if cupy is not None:
        check("CUDA", toolkit, cupy, fix=[install])
    fix = functools.partial(gpu_fixes, install)
    if arrays.gpu_unavailable_reason() or cupy is None:
        check("GPU", no_gpu, fix if cuda and cupy else None)
        return []
    return [check_gpu(check, cupy, i, fix) for i in range(cupy.cuda.runtime.getDeviceCount())]


def check_gpu(check: Callable[..., bool], cupy: Any, i: int, fix: Fix) -> bool:
    def on_gpu(body: Callable[..., str], *args: Any) -> str:
        with cupy.cuda.Device(i):
            return body(*args)

    wait = cupy.cuda.runtime.deviceSynchronize
    ok = [check(f"GPU {i}", on_gpu, properties, cupy, i, fix=fix),
          check(f"GPU {i} matmul", on_gpu, matrix_product, GPU_SIZE, 0 if emulated() else 5, cupy.asarray, wait, fix=fix),
          check(f"GPU {i} kernel", on_gpu, run_kernel, cupy, fix=fix)]
    return all(ok)


def emulated() -> bool:
    """Whether CuPy's kernels run on the CPU: an emulation for tests."""
    return os.environ.get("CUDA_ON_CPU") == "1"


def load_cupy() -> tuple[Any, Exception | None]:
    """(cupy, None), or (None, the exception)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")         # CuPy warns of several installed wheels; they get a line of their own
            cupy = importlib.import_module("cupy")
        cupy.__version__                            # noqa: B018 (an uninstalled CuPy may leave a folder behind, which can be imported)
        return cupy, None
    except Exception as error:
        return None, error


def cupy_wheels() -> dict[str, str]:
    """Every installed distribution that contains the package cupy, with its version: {"cupy-cuda12x": "14.2.0"}."""
    found = {str(d.metadata["Name"]).lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
    return {name: version for name, version in sorted(found.items()) if re.fullmatch(r"(amd-)?cupy|cupy-(cuda|rocm).*", name)}


def driver_cuda(cupy: Any) -> int:
    """The newest CUDA version that the driver supports, 12040 for 12.4; 0 without a driver. Without CuPy, libcuda is asked."""
    version = ctypes.c_int(0)
    with contextlib.suppress(Exception):
        if cupy is not None:
            return int(cupy.cuda.runtime.driverGetVersion())
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    return version.value


def nvidia_smi() -> tuple[list[tuple[str, str, float]], str]:
    """([(GPU, driver version, compute capability), ...], "") from nvidia-smi; ([], its error); ([], "") if it is missing."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return [], ""
    except Exception as error:
        return [], format_error(error)
    rows = re.findall(r"^(.+), ([\d.]+), ([\d.]+)$", done.stdout, re.MULTILINE)
    smi_error = " ".join(done.stdout.split()) if done.returncode else ""
    return [(name, version, float(capability)) for name, version, capability in rows], smi_error


def driver(cuda: int, gpus: list[tuple[str, str, float]], smi_error: str) -> str:
    """NVIDIA's driver, and the GPUs that it lists."""
    if emulated():
        raise Finding("absent", "CPU emulation, no driver")
    listed = ", ".join(dict.fromkeys(f"{version} for {name}" for name, version, _ in gpus))
    prefix = f"{listed}, " if listed else ""
    if 0 < cuda < 12000:
        raise Finding("problem", f"{prefix}supports CUDA up to {format_cuda(cuda)} only", NEW_DRIVER)
    if smi_error:
        raise Finding("problem", f"nvidia-smi: {smi_error[:200]}", RESTART)
    if gpus and not cuda:
        raise Finding("problem", f"{listed}, but its CUDA library (libcuda) cannot be loaded",
                      "reinstall NVIDIA's driver completely; start a container with  --gpus all")
    if not cuda:
        raise Finding("absent", "no NVIDIA driver (neither libcuda nor nvidia-smi); only a GPU needs it")
    return f"{prefix}supports CUDA up to {format_cuda(cuda)}"


def wheel(cupy: Any, error: Exception | None, wheels: dict[str, str], cuda: int, old_gpus: list[str], install: str) -> str:
    """The installed CuPy, if there is exactly one, it can be imported, it is new enough, and the driver and the GPUs support its CUDA."""
    names = ", ".join(f"{name} {version}" for name, version in wheels.items())
    built_for = max([int(n) for n in re.findall(r"cuda(\d\d)", names)], default=0)
    reinstall = [f"python -m pip uninstall --yes {' '.join(wheels)}", install] if wheels else [install]
    if isinstance(error, ModuleNotFoundError) and error.name == "cupy" and not wheels:
        if cuda:
            raise Finding("problem", "not installed, though this machine has NVIDIA's driver", install)
        raise Finding("absent", "not installed; only a GPU needs it")
    if len(wheels) > 1:
        raise Finding("problem", f"{names}: several at once, and they overwrite each other's files", *reinstall)
    if 0 < cuda < 1000 * built_for:
        raise Finding("problem", f"{names} is for CUDA {built_for}, but the driver supports CUDA up to {format_cuda(cuda)} only",
                      *([NEW_DRIVER] if cuda < 12000 else reinstall))
    if built_for >= 13 and old_gpus:
        raise Finding("problem", f"{names} is for CUDA {built_for}, which no longer supports {old_gpus[0]}", *reinstall)
    if wheels and version_numbers(names.split()[-1]) < (OLDEST_CUPY,):
        raise Finding("problem", f"{names} is too old: minicnn needs {OLDEST_CUPY} or newer", *reinstall)
    if cupy is None:
        raise Finding("problem", f"{names} cannot be imported: {format_error(error)}", *reinstall)
    return names or f"{cupy.__version__} (not installed by pip)"


def toolkit(cupy: Any) -> str:
    """The versions of CUDA's libraries, and whether NVRTC compiles a kernel, which needs no GPU."""
    nvrtc = cupy.cuda.nvrtc
    program = nvrtc.createProgram(KERNEL, "minicnn_doctor.cu", (), ())
    try:
        nvrtc.compileProgram(program, ())
    finally:
        nvrtc.destroyProgram(program)
    version = ".".join(map(str, nvrtc.getVersion()))
    return f"runtime {format_cuda(cupy.cuda.runtime.runtimeGetVersion())}; NVRTC {version} compiles a kernel"


def no_gpu(fix: Callable[[str], list[str]] | None) -> str:
    """Report `gpu_unavailable_reason`: a problem with its fixes if there are a driver and a CuPy, else an absent GPU."""
    text = " ".join((arrays.gpu_unavailable_reason() or "no GPU: CuPy cannot be imported").split())
    reason = text.rpartition(". ")[0] or text               # its last sentence is a general fix; those here are more precise
    raise Finding("problem", reason, *fix(reason)) if fix else Finding("absent", reason)


def gpu_fixes(install: str, text: str) -> list[str]:
    """The fixes for an exception of CuPy with this text."""
    if re.search("out of memory|alloc_failed", text, re.IGNORECASE):
        return [OUT_OF_MEMORY]
    if "NoDevice" in text and "CUDA_VISIBLE_DEVICES" in os.environ:
        return [f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} hides the GPUs: unset it"]
    if re.search(r"ImportError|lib\w+\.so|\.dll|headers|nvrtc", text):
        return [install]                    # one of CUDA's libraries is missing or has another version; the extra installs them all
    return [RESTART]


def properties(cupy: Any, i: int) -> str:
    if emulated():
        raise Finding("absent", "CPU emulation, no GPU")
    p = cupy.cuda.runtime.getDeviceProperties(i)
    free, total = cupy.cuda.runtime.memGetInfo()
    return f"{p['name'].decode()}, compute capability {p['major']}.{p['minor']}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


def run_kernel(cupy: Any) -> str:
    x = np.arange(1000, dtype=np.float32)
    y = cupy.zeros(1000, np.float32)
    cupy.RawKernel(KERNEL, "minicnn_doctor")((4,), (256,), (cupy.asarray(x), y, np.int32(1000)))
    if not np.array_equal(arrays.to_device(y, "cpu"), 3 * x):              # x[i] is i, so 2 x[i] + i is 3 i
        raise Finding("problem", "compiled and run, but its result is wrong", UPDATE)
    return "compiled and run: correct"


# Text

def format_error(error: BaseException | None) -> str:
    """Type and message in one line; of an exception raised from another, the other's: CuPy adds a screenful of advice to it."""
    error = (error and error.__cause__) or error
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def version_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def format_cuda(version: int) -> str:
    """12040 as 12.4."""
    return f"{version // 1000}.{version % 1000 // 10}"
