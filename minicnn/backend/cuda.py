"""CUDA: kernels compiled from source, matrix products by cuBLAS, and GPU memory.

A kernel is a function that thousands of threads run at once, each for a part of the output. Our kernels see their arrays as matrices:
a row is a pixel, a window or an image, and its elements are contiguous in memory (the channels of a pixel, the columns of a
matrix). A block of threads covers `blockDim.y` rows, with `blockDim.x` threads stepping along each:

    int row = blockIdx.x * blockDim.y + threadIdx.y;
    for (int c = threadIdx.x; c < C; c += blockDim.x) ...

So neighbouring threads access neighbouring elements, which the memory delivers together, 32 at a time (coalesced access). A row
number fits in an int; the index of an element in a large array may not, so it is computed as `long long`.
"""

import functools
import pathlib
import re
import sys
from typing import Any

import numpy as np

from minicnn.backend.arrays import ceil_div

THREADS = 256                   # per block: enough to keep a multiprocessor busy, few enough that several blocks fit on it
SHARED_BYTES = 48 << 10         # shared memory available to a block on every GPU
WORKSPACE_BYTES = 256 << 20     # memory that one op may use besides its output: the im2col matrix is made in chunks of this size

PACKAGE = pathlib.Path(__file__).parents[1]

_allow_tf32 = False


def allow_tf32(on: bool | None = None) -> bool:
    """Set, if `on` is given, and return whether float32 matrix products may use TF32. The default is False.

    TF32 has the range of float32 and ten of its 23 bits of precision (about 1e-3); sums are still accumulated in float32. On the
    tensor cores of an A100 or H100 such a product is several times as fast. Only matrix products change: weights, activations and
    gradients are stored as float32.
    """
    global _allow_tf32
    if on is not None:
        _allow_tf32 = bool(on)
    return _allow_tf32


@functools.cache
def get_kernel(file: str, name: str, dtype: str, constants: tuple[tuple[str, Any], ...] = ()) -> tuple[Any, list[str]]:
    """The kernel `name` of the source minicnn/`file`, with T = float or double, and the C types of its parameters.

    `constants` are (name, value) pairs to #define. The kernel is compiled on first use, once per process; CuPy caches it on disk.
    """
    import cupy
    source = (PACKAGE / file).read_text(encoding="utf-8")
    known = {"T": {"float32": "float", "float64": "double"}[dtype], **dict(constants)}
    parameters = source.partition(f"__global__ void {name}(")[2].partition(")")[0].split(",")
    types = [re.sub(r"\bconst\b|\w+\s*$|\s", "", parameter) for parameter in parameters]               # "const T* x" -> "T*"
    definitions = "".join(f"#define {constant} {value}\n" for constant, value in constants)
    return cupy.RawKernel(f'typedef {known["T"]} T;\n{definitions}#line 1 "{file}"\n{source}', name), [
        known.get(t.rstrip("*"), t.rstrip("*")).replace(" ", "") + "*" * t.count("*") for t in types]


@functools.cache
def elementwise(inputs: str, outputs: str, line: str, name: str) -> Any:
    """A kernel from one line of C for one element, such as elementwise("T x", "T y", "y = x * x", "square")(x, y).

    All arrays have the same shape (or are numbers), in any memory order.
    """
    import cupy
    return cupy.ElementwiseKernel(inputs, outputs, line, name)


def launch_rows(file: str, name: str, rows: int, columns: int, *args: Any, dtype: Any, constants: tuple[tuple[str, Any], ...] = (),
                shared: int = 0, across: int = 1) -> None:
    """Launch a kernel over a matrix, with threads along each row; its arguments are (rows, columns, *args).

    shared: elements of T in shared memory for each row of a block.   across: the grid's second dimension, for kernels that use it to
    split long rows; one is enough where there are thousands of rows.
    """
    x = min(THREADS, ceil_div(columns, 32) * 32)            # whole warps
    y = THREADS // x
    launch(file, name, (ceil_div(rows, y), across), (x, y), (rows, columns, *args), dtype, constants, shared * y)


def launch_block_reduction(file: str, name: str, blocks: int, rows: int, columns: int, *args: Any, dtype: Any) -> None:
    """Launch a kernel whose blocks each reduce to one result: THREADS threads (a power of two) and as many elements of shared memory."""
    launch(file, name, (blocks,), (THREADS, 1), (rows, columns, *args), dtype, (), THREADS)


def launch(file: str, name: str, blocks: tuple[int, ...], threads: tuple[int, int], arguments: tuple[Any, ...], dtype: Any,
           constants: tuple[tuple[str, Any], ...], shared: int) -> None:
    """Launch the kernel on its arguments: scalars are cast to the parameter types, and an array of another dtype is a TypeError.

    (CUDA checks neither: a kernel interprets the bytes it is given by its own signature.)
    """
    dtype = np.dtype(dtype)
    if 0 in blocks:                # nothing to do, and CUDA refuses an empty grid
        return
    kernel, types = get_kernel(file, name, dtype.name, constants)
    converted = []
    for value, c_type in zip(arguments, types, strict=True):
        expected = DTYPES.get(c_type.rstrip("*"))
        if c_type.endswith("*") and expected and value.dtype != expected:
            raise TypeError(f"{name}: the array for a {c_type} parameter must have dtype {expected}, got {value.dtype}")
        converted.append(value if c_type.endswith("*") else np.dtype(DTYPES[c_type]).type(value))
    kernel(blocks, threads, converted, shared_mem=shared * dtype.itemsize)


# The NumPy dtype of each C type in the kernels' signatures.
DTYPES = {"int": "int32", "longlong": "int64", "float": "float32", "double": "float64", "unsignedchar": "uint8", "unsignedint": "uint32",
          "unsignedlonglong": "uint64"}


def gemm(a: Any, b: Any, out: Any, accumulate: bool = False) -> Any:
    """out = a @ b, or out += a @ b, for float32 or float64 matrices, which may be transposed or strided views. Returns `out`.

    cuBLAS is column-major where NumPy is row-major: a matrix to one is its transpose to the other. So cuBLAS
    computes out^T = b^T a^T, and nothing is copied.
    """
    from cupy.cuda import cublas, device, runtime
    if not a.dtype == b.dtype == out.dtype or out.dtype not in (np.float32, np.float64):
        raise TypeError(f"cuda.gemm: a, b and out must all be float32 or all be float64, got {a.dtype}, {b.dtype} and {out.dtype}")
    single = out.dtype == np.float32
    kind = runtime.CUDA_R_32F if single else runtime.CUDA_R_64F
    single_mode = cublas.CUBLAS_COMPUTE_32F_FAST_TF32 if _allow_tf32 else cublas.CUBLAS_COMPUTE_32F
    mode = single_mode if single else cublas.CUBLAS_COMPUTE_64F
    (a, a_transposed, lda), (b, b_transposed, ldb) = leading_dimension(a), leading_dimension(b)
    target, out_transposed, ldo = leading_dimension(out)
    if out_transposed or target is not out:
        raise ValueError("cuda.gemm: the rows of `out` must be contiguous in memory")
    factors = np.array([1.0, 1.0 if accumulate else 0.0], out.dtype)        # out = alpha * a @ b + beta * out
    alpha, beta = factors.ctypes.data, factors.ctypes.data + factors.itemsize
    (rows, columns), inner = out.shape, a.shape[1]
    cublas.gemmEx(device.get_cublas_handle(), int(b_transposed), int(a_transposed), columns, rows, inner, alpha, b.data.ptr, kind, ldb,
                  a.data.ptr, kind, lda, beta, out.data.ptr, kind, ldo, mode, cublas.CUBLAS_GEMM_DEFAULT)
    return out


def leading_dimension(m: Any) -> tuple[Any, bool, int]:
    """(m, False, d) if the rows of the matrix are contiguous and start d elements apart; (m, True, d) if its columns are.

    A matrix that is neither (a view with gaps in both directions) is copied.
    """
    rows, columns = m.shape
    down, across = (stride // m.itemsize for stride in m.strides)
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return m, False, columns if rows == 1 else down
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return m, True, rows if columns == 1 else across
    return m.copy("C"), False, columns


def aligned(rows: int, columns: int, dtype: Any) -> Any:
    """An uninitialised (rows, columns) matrix whose rows start at multiples of 32 bytes, for tensor cores and wide loads."""
    import cupy
    step = 32 // np.dtype(dtype).itemsize
    return cupy.empty((rows, ceil_div(columns, step) * step), dtype)[:, :columns]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this exception means that a GPU ran out of memory."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(error, cupy.cuda.memory.OutOfMemoryError)


def memory_stats() -> dict[str, int]:
    """Memory of the current GPU in bytes: "used" by arrays, "cached" by CuPy's pool for reuse, "free" and "total"."""
    import cupy
    free, total = cupy.cuda.Device().mem_info
    pool = cupy.get_default_memory_pool()
    if pool.get_limit():            # the limit set by CUPY_GPU_MEMORY_LIMIT
        total, free = pool.get_limit(), min(free, pool.get_limit() - pool.total_bytes())
    return {"used": pool.used_bytes(), "cached": pool.total_bytes() - pool.used_bytes(), "free": free, "total": total}
