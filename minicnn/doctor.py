"""Look at this machine and say, in one line each, what is there, what works, and how to mend what does not.

Nothing is believed: packages are imported, products of matrices are computed and checked, a kernel is compiled and run.
Every look is guarded, so what fails costs one line, not the rest of the answer, which can be pasted into a bug report as it is.
Why there is no GPU is for `backend.gpu_problem` to say; what is known here beyond it is the cure.
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

import numpy as np

import minicnn
from minicnn import backend, parallel

CPU_SIZE, GPU_SIZE = 1024, 2048           # of the matrices multiplied: some hundredths of a second on either
OLDEST_CUPY = 14            # from here on CuPy goes with NumPy 2 and CUDA 12, as minicnn does
UP_TO_DATE = "bring NumPy (for the CPU) or NVIDIA's driver (for a GPU) up to date; if it stays wrong, send this report"
RESTART = "restart the machine; if  nvidia-smi  still does not list the card, install NVIDIA's driver anew"
FULL = "nvidia-smi  shows which program holds the GPU's memory: end that one, or wait for it"
NEW_DRIVER = "update NVIDIA's driver: 525 is the oldest that has CUDA 12"
OLDEST_CARD_FOR_13 = 7.5    # compute capability; CUDA 13 no longer compiles for Maxwell, Pascal and Volta
EXIT_CODES = ("exit code 0: the CPU path works (a missing GPU is merely said); 1: something that minicnn needs is broken; "
              "2: --gpu was given and no GPU can be used")
TRY_IT = "python examples/train_alexnet.py"
KERNEL = """extern "C" __global__ void minicnn_doctor(const float* x, float* y, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2 * x[i] + i;
}"""


class Finding(Exception):
    """What a look ends with if not with an ok: a mark ("problem" or "absent"), its line, and what to do, a command or a sentence each."""

    def __init__(self, mark, text, *cure):
        self.mark, self.text, self.cure = mark, text, cure


class Report:
    """The lines so far: printed at once, and what they ask for kept."""

    def __init__(self):
        self.broken, self.cures = [], []        # needed things that have a problem; what would mend problems, in the order found

    def look(self, name, look, *args, needed=False, cure=()):
        """Print what `look(*args)` returns or raises; True if that is an ok.

        `cure` is for errors that `look` did not foresee: what to do, or a function that tells it from the text.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                mark, text, cure = "ok", look(*args), ()
        except Finding as finding:
            mark, text, cure = finding.mark, finding.text, finding.cure
        except Exception as error:
            mark, text = "problem", one_line(error)
            cure = cure(text) if callable(cure) else cure
        print(f"{mark:8} {name:13} {text}", *cure, sep=f"\n{'':22} -> ", flush=True)
        if mark == "problem":
            self.broken += [name] * needed
            self.cures += [cure] * bool(cure)
        return mark == "ok"


def main(argv=None):
    parser = argparse.ArgumentParser(prog="minicnn doctor", description=__doc__.partition("\n")[0], epilog=EXIT_CODES)
    parser.add_argument("--gpu", action="store_true", help="a missing GPU is a failure")
    args = parser.parse_args(argv)
    report = Report()
    look_at_cpu(report.look)
    works = look_at_gpu(report.look)
    print("\n" + conclusion(report, works[:1] == [True]))           # auto takes the first GPU, whatever the others do
    return 1 if report.broken else 2 if args.gpu and not any(works) else 0


def conclusion(report, first_gpu_works):
    """What --device auto takes, and the one most useful next step."""
    step = ", then  ".join(report.cures[0]) if report.cures else TRY_IT
    if report.broken:
        return f"minicnn cannot work like this ({', '.join(report.broken)}). First:  {step}"
    if not backend.has_gpu():
        return f"--device auto takes the CPU, which works. Next:  {step}"
    if emulated():
        return f"--device auto takes the emulated GPU, which is no GPU; --device cpu is faster. Next:  {step}"
    if not first_gpu_works:
        return f"--device auto takes the GPU, which fails here; until it is mended, use --device cpu. First:  {step}"
    return f"--device auto takes the GPU, which works. Next:  {step}"


# The CPU, and the packages

def look_at_cpu(look):
    look("minicnn", lambda: f"{minicnn.__version__} in {pathlib.Path(minicnn.__file__).parent}")
    look("Python", lambda: f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}")
    look("system", lambda: f"{platform.platform()}, {parallel.cores()} of {os.cpu_count()} cores")
    look("NumPy", package, "numpy", "numpy", True, needed=True)
    look("threadpoolctl", package, "threadpoolctl", "threadpoolctl", True, needed=True)
    look("BLAS", blas)
    if look("threads", threads, needed=True, cure=["set MINICNN_THREADS to a whole number from 1 up, or unset it to use every core"]):
        look("CPU product", product, CPU_SIZE, needed=True, cure=["python -m pip install --force-reinstall numpy"])
    look("Pillow", package, "pillow", "PIL.Image", True, needed=True)
    look("tqdm", package, "tqdm", "tqdm", True, needed=True)
    look("matplotlib", package, "matplotlib", "matplotlib", False, "only pictures of a training need it")
    look("pytest", package, "pytest", "pytest", False, "only the tests need it")


def package(name, module, needed, use=""):
    """The version of a package that can be imported and is as new as minicnn's own metadata ask for."""
    oldest = ""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):      # minicnn itself: used where it lies, not installed
        oldest = next((r.partition(";")[0] for r in importlib.metadata.requires("minicnn") or [] if r.startswith(name + ">=")), "")
    try:
        importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            raise Finding("problem" if needed else "absent", f"not installed{use and '; '}{use}",
                          f'python -m pip install "{oldest or name}"') from None
        raise Finding("problem", one_line(error), f'python -m pip install --force-reinstall "{oldest or name}"') from None
    version = importlib.metadata.version(name)
    if numbers(version) < numbers(oldest):
        raise Finding("problem", f"{version} is too old", f'python -m pip install "{oldest}"')
    return version


def blas():
    """Which library multiplies NumPy's matrices."""
    import threadpoolctl
    found = [f"{b['internal_api']} {b['version']} for {b.get('architecture', 'any CPU')}, {b['num_threads']} threads"
             for b in threadpoolctl.threadpool_info() if b["user_api"] == "blas"]
    name = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    return "; ".join(found) + " (1 while minicnn cuts the work itself)" if found else f"{name}, whose threads threadpoolctl cannot set"


def threads():
    asked = os.environ.get("MINICNN_THREADS")
    return f"{parallel.threads()} ({'a core each; MINICNN_THREADS sets another number' if asked is None else 'MINICNN_THREADS says so'})"


def product(n, repeats=5, to=np.asarray, wait=lambda: None):
    """Multiply two float32 matrices of small whole numbers: sums stay below 2^24, so every entry of the answer must be exact.

    y = a b is checked by what it does to a vector of whole numbers, y v = a (b v), without BLAS.
    """
    rng = np.random.default_rng(0)
    a, b = rng.integers(-8, 9, (2, n, n))
    v = rng.integers(1, 1 << 20, n)
    x, w = to(a.astype(np.float32)), to(b.astype(np.float32))
    y = parallel.matmul(x, w)               # what comes with the first call only is not timed
    seconds = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        y = parallel.matmul(x, w)
        wait()
        seconds.append(time.perf_counter() - start)
    if not np.array_equal((backend.to_device(y, "cpu").astype(np.float64) * v).sum(axis=1), a @ (b @ v)):
        raise Finding("problem", f"{n} x {n} times {n} x {n}, float32: wrong, so no result of this device can be trusted",
                      UP_TO_DATE)
    return f"{n} x {n} times {n} x {n}, float32: right, " + (f"{2e-9 * n ** 3 / min(seconds):,.0f} GFLOP/s" if seconds else "not timed")


# The GPU

def look_at_gpu(look):
    """For each GPU that CuPy can reach, whether every look at it is an ok."""
    cupy, error = load_cupy()
    cuda = driver_cuda(cupy)
    cards, complaint = ([], "") if emulated() else nvidia_smi()
    old_cards = [name for name, _, capability in cards if capability < OLDEST_CARD_FOR_13]
    install = f'python -m pip install "cupy-cuda{12 if cuda < 13000 or old_cards else 13}x[ctk]"'
    look("driver", driver, cuda, cards, complaint)
    look("CuPy", wheel, cupy, error, cupy_wheels(), cuda, old_cards, install)
    if cupy is not None:
        look("CUDA", toolkit, cupy, cure=[install])
    cure = functools.partial(gpu_cure, install)
    if backend.gpu_problem() or cupy is None:
        look("GPU", no_gpu, cure if cuda and cupy else None)
        return []
    return [look_at_one(look, cupy, i, cure) for i in range(cupy.cuda.runtime.getDeviceCount())]


def look_at_one(look, cupy, i, cure):
    def here(body, *args):
        with cupy.cuda.Device(i):
            return body(*args)

    wait = cupy.cuda.runtime.deviceSynchronize
    works = [look(f"GPU {i}", here, card, cupy, i, cure=cure),
             look(f"GPU {i} product", here, product, GPU_SIZE, 0 if emulated() else 5, cupy.asarray, wait, cure=cure),
             look(f"GPU {i} kernel", here, kernel, cupy, cure=cure)]
    return all(works)


def emulated():
    """True where CuPy's kernels run on the CPU, which is good for finding mistakes and is no GPU."""
    return os.environ.get("CUDA_ON_CPU") == "1"


def load_cupy():
    """(cupy, None), or (None, the error)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")         # CuPy warns of several wheels; they get a line of their own
            cupy = importlib.import_module("cupy")
        cupy.__version__                            # noqa: B018 (an uninstalled CuPy may leave a folder behind, which can be imported)
        return cupy, None
    except Exception as error:
        return None, error


def cupy_wheels():
    """Every installed package that brings a `cupy`, with its version: {"cupy-cuda12x": "14.2.0"}."""
    found = {str(d.metadata["Name"]).lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
    return {name: version for name, version in sorted(found.items()) if re.fullmatch(r"(amd-)?cupy|cupy-(cuda|rocm).*", name)}


def driver_cuda(cupy):
    """The newest CUDA that the driver has, 12040 for 12.4; 0 without a driver. Without CuPy, the driver's own library is asked."""
    version = ctypes.c_int(0)
    with contextlib.suppress(Exception):
        if cupy is not None:
            return cupy.cuda.runtime.driverGetVersion()
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    return version.value


def nvidia_smi():
    """([(card, driver, compute capability), ...], "") or ([], complaint) as NVIDIA's tool says; ([], "") where it is missing."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return [], ""
    except Exception as error:
        return [], one_line(error)
    rows = re.findall(r"^(.+), ([\d.]+), ([\d.]+)$", done.stdout, re.MULTILINE)
    return [(name, version, float(capability)) for name, version, capability in rows], " ".join(done.stdout.split()) * bool(done.returncode)


def driver(cuda, cards, complaint):
    """NVIDIA's driver, and the cards that it sees."""
    if emulated():
        raise Finding("absent", "CPU emulation, no driver")
    seen = ", ".join(dict.fromkeys(f"{version} for {name}" for name, version, _ in cards))
    if 0 < cuda < 12000:
        raise Finding("problem", f"{seen and seen + ', '}has CUDA up to {dotted(cuda)} only", NEW_DRIVER)
    if complaint:
        raise Finding("problem", f"nvidia-smi: {complaint[:200]}", RESTART)
    if cards and not cuda:
        raise Finding("problem", f"{seen}, but its CUDA library (libcuda) cannot be loaded",
                      "install all of NVIDIA's driver; in a container, start that with  --gpus all")
    if not cuda:
        raise Finding("absent", "no NVIDIA driver here (neither libcuda nor nvidia-smi); only a GPU needs it")
    return f"{seen and seen + ', '}has CUDA up to {dotted(cuda)}"


def wheel(cupy, error, wheels, cuda, old_cards, install):
    """Which CuPy is installed, if it is one, loads, is new enough, and not newer than the driver."""
    names = ", ".join(f"{name} {version}" for name, version in wheels.items())
    made_for = max([int(n) for n in re.findall(r"cuda(\d\d)", names)], default=0)
    anew = [f"python -m pip uninstall --yes {' '.join(wheels)}"] * bool(wheels) + [install]
    if isinstance(error, ModuleNotFoundError) and error.name == "cupy" and not wheels:
        if cuda:
            raise Finding("problem", "not installed, though this machine has NVIDIA's driver", install)
        raise Finding("absent", "not installed; only a GPU needs it")
    if len(wheels) > 1:
        raise Finding("problem", f"{names}: several at once, and they overwrite each other's files", *anew)
    if 0 < cuda < 1000 * made_for:
        raise Finding("problem", f"{names} is for CUDA {made_for}, but the driver has CUDA up to {dotted(cuda)} only",
                      *([NEW_DRIVER] if cuda < 12000 else anew))
    if made_for >= 13 and old_cards:
        raise Finding("problem", f"{names} is for CUDA {made_for}, which no longer supports {old_cards[0]}", *anew)
    if wheels and numbers(names.split()[-1]) < (OLDEST_CUPY,):
        raise Finding("problem", f"{names} is too old: minicnn wants {OLDEST_CUPY} or newer", *anew)
    if cupy is None:
        raise Finding("problem", f"{names} does not load: {one_line(error)}", *anew)
    return names or f"{cupy.__version__} (no package that pip knows)"


def toolkit(cupy):
    """CUDA's libraries: their version, and a kernel compiled by NVRTC, which needs no GPU."""
    nvrtc = cupy.cuda.nvrtc
    program = nvrtc.createProgram(KERNEL, "minicnn_doctor.cu", (), ())
    try:
        nvrtc.compileProgram(program, ())
    finally:
        nvrtc.destroyProgram(program)
    return f"runtime {dotted(cupy.cuda.runtime.runtimeGetVersion())}; NVRTC {'.'.join(map(str, nvrtc.getVersion()))} compiles a kernel"


def no_gpu(cure):
    """The reason that `backend.gpu_problem` gives: a problem with a cure if there is a driver and a CuPy, else merely said."""
    problem = " ".join((backend.gpu_problem() or "no GPU: CuPy does not load").split())
    reason = problem.rpartition(". ")[0] or problem         # its last sentence is the cure, as far as that can be known without looking
    raise Finding("problem", reason, *cure(reason)) if cure else Finding("absent", reason)


def gpu_cure(install, text):
    """What to do about an error of CuPy, by what it says."""
    if re.search("out of memory|alloc_failed", text, re.IGNORECASE):
        return [FULL]
    if "NoDevice" in text and "CUDA_VISIBLE_DEVICES" in os.environ:
        return [f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} hides the GPUs: unset it"]
    if re.search(r"ImportError|lib\w+\.so|\.dll|headers|nvrtc", text):
        return [install]                    # one of CUDA's libraries is missing or does not fit: [ctk] brings them all
    return [RESTART]


def card(cupy, i):
    if emulated():
        raise Finding("absent", "CPU emulation, no GPU")
    p = cupy.cuda.runtime.getDeviceProperties(i)
    free, total = cupy.cuda.runtime.memGetInfo()
    return f"{p['name'].decode()}, compute capability {p['major']}.{p['minor']}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


def kernel(cupy):
    x = np.arange(1000, dtype=np.float32)
    y = cupy.zeros(1000, np.float32)
    cupy.RawKernel(KERNEL, "minicnn_doctor")((4,), (256,), (cupy.asarray(x), y, np.int32(1000)))
    if not np.array_equal(backend.to_device(y, "cpu"), 3 * x):              # x[i] is i, so 2 x[i] + i is 3 i
        raise Finding("problem", "compiled and run, but its answer is wrong", UP_TO_DATE)
    return "compiled, run: right"


# Words

def one_line(error):
    """Type and message; of an error made from another, that other: CuPy wraps a screenful of advice around it."""
    error = error.__cause__ or error
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def numbers(version):
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def dotted(cuda):
    return f"{cuda // 1000}.{cuda % 1000 // 10}"
