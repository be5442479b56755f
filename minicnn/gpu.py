"""What only a GPU has: kernels compiled from CUDA source, products of matrices by cuBLAS, and memory that runs out.

A kernel is a function that thousands of threads run at once, each for a part of the answer. Ours all see their arrays as
rows: the pixels, or the windows, or the images are rows, and what lies side by side in memory (the channels of a pixel, the
columns of a matrix) is walked along by the threads of a row. A block of threads has `y` rows and `x` threads for each:

    int row = blockIdx.x * blockDim.y + threadIdx.y;
    for (int c = threadIdx.x; c < C; c += blockDim.x) ...

So neighbouring threads touch neighbouring numbers, which the memory delivers together, 32 at a time. A row number fits
in an int; the place of a number in a large array may not, so it is computed as `long long`.
"""

import functools
import pathlib
import re
import sys

import numpy as np

THREADS = 256                   # in a block: enough to keep a multiprocessor busy, few enough that several blocks fit on it
SHARED_BYTES = 48 << 10         # that the threads of a block can share, on every card
WORKSPACE_BYTES = 256 << 20     # what one op may use beside its answer: the columns of a convolution are made in portions of this size

_tf32 = False


def tf32(on=None):
    """Whether products of float32 matrices may use TF32, after setting it if `on` is given; at first they may not.

    TF32 keeps the range of float32 and ten of its 23 bits of precision (about 1e-3); sums are still made in float32. On the
    tensor cores of an A100 or H100 such a product is several times as fast. Only products change: weights, activations and
    gradients are stored as float32.
    """
    global _tf32
    if on is not None:
        _tf32 = bool(on)
    return _tf32


@functools.cache
def compiled(file, name, dtype, constants=()):
    """The kernel `name` of minicnn/`file`, where T is float or double, and the C types of what it takes.

    It is compiled on first use, once per process, and CuPy keeps it on the disk.
    """
    import cupy
    source = (pathlib.Path(__file__).parent / file).read_text(encoding="utf-8")
    known = {"T": {"float32": "float", "float64": "double"}[dtype], **dict(constants)}
    parameters = source.partition(f"__global__ void {name}(")[2].partition(")")[0].split(",")
    types = [re.sub(r"\bconst\b|\w+\s*$|\s", "", parameter) for parameter in parameters]               # "const T* x" -> "T*"
    definitions = "".join(f"#define {word} {value}\n" for word, value in constants)
    return cupy.RawKernel(f'typedef {known["T"]} T;\n{definitions}#line 1 "{file}"\n{source}', name), [
        known.get(t.rstrip("*"), t.rstrip("*")).replace(" ", "") + "*" * t.count("*") for t in types]


@functools.cache
def elementwise(inputs, outputs, line, name):
    """A kernel for one line of C about one element, such as elementwise("T x", "T y", "y = x * x", "square")(x, y).

    All arrays have one shape (or are numbers), however they lie in memory.
    """
    import cupy
    return cupy.ElementwiseKernel(inputs, outputs, line, name)


def run(file, name, rows, columns, *args, dtype, constants=(), shared=0, across=1):
    """Run a kernel over `rows` x `columns`, with a row of threads for each row; it gets these two numbers, and then `args`.

    `shared`: how many numbers of T each row of a block shares among its threads.   `across`: how many blocks lie side by side, for
    kernels that know of it; one is enough where there are thousands of rows.
    """
    x = min(THREADS, -(-columns // 32) * 32)
    y = THREADS // x
    launch(file, name, (-(-rows // y), across), (x, y), (rows, columns, *args), dtype, constants, shared * y)


def run_together(file, name, blocks, rows, columns, *args, dtype):
    """Run a kernel whose threads put their results together: `blocks` blocks of 256 threads (a power of two), which share 256 numbers."""
    launch(file, name, (blocks,), (THREADS, 1), (rows, columns, *args), dtype, (), THREADS)


def launch(file, name, blocks, threads, arguments, dtype, constants, shared):
    """Start the kernel. It would read whatever bytes it is given as its own signature says, so each argument is made so, or refused."""
    dtype = np.dtype(dtype)
    if 0 in blocks:                # nothing to do, which CUDA refuses to be asked for
        return
    kernel, types = compiled(file, name, dtype.name, constants)
    ready = []
    for value, c_type in zip(arguments, types, strict=True):
        wanted = DTYPES.get(c_type.rstrip("*"))
        if c_type.endswith("*") and wanted and value.dtype != wanted:
            raise TypeError(f"{name}: the kernel reads {c_type}, but was given an array of {value.dtype}")
        ready.append(value if c_type.endswith("*") else np.dtype(DTYPES[c_type]).type(value))
    kernel(blocks, threads, ready, shared_mem=shared * dtype.itemsize)


# What the words of a kernel's signature mean to NumPy.
DTYPES = {"int": "int32", "longlong": "int64", "float": "float32", "double": "float64", "unsignedchar": "uint8", "unsignedint": "uint32",
          "unsignedlonglong": "uint64"}


def product(a, b, out, accumulate=False):
    """out = a @ b, or out += a @ b, for matrices of float32 or float64 that may be views, transposed or cut out of wider ones.

    cuBLAS counts along columns where NumPy counts along rows: what is a matrix to one is its transpose to the other. So it
    is asked for out^T = b^T a^T, and nothing has to be moved.
    """
    from cupy.cuda import cublas, device, runtime
    if not a.dtype == b.dtype == out.dtype or out.dtype not in (np.float32, np.float64):
        raise TypeError(f"gpu.product: float32 or float64 matrices are wanted, all alike, not {a.dtype} @ {b.dtype} into {out.dtype}")
    single = out.dtype == np.float32
    kind = runtime.CUDA_R_32F if single else runtime.CUDA_R_64F
    how = cublas.CUBLAS_COMPUTE_32F_FAST_TF32 if single and _tf32 else cublas.CUBLAS_COMPUTE_32F if single else cublas.CUBLAS_COMPUTE_64F
    (a, a_turned, lda), (b, b_turned, ldb), (target, out_turned, ldo) = by_rows(a), by_rows(b), by_rows(out)
    if out_turned or target is not out:
        raise ValueError("gpu.product: the rows of `out` must lie in memory one after the other")
    numbers = np.array([1.0, 1.0 if accumulate else 0.0], out.dtype)
    alpha, beta = numbers.ctypes.data, numbers.ctypes.data + numbers.itemsize
    (rows, columns), inner = out.shape, a.shape[1]
    cublas.gemmEx(device.get_cublas_handle(), int(b_turned), int(a_turned), columns, rows, inner, alpha, b.data.ptr, kind, ldb,
                  a.data.ptr, kind, lda, beta, out.data.ptr, kind, ldo, how, cublas.CUBLAS_GEMM_DEFAULT)
    return out


def by_rows(m):
    """(m, False, d) if row i of the matrix starts i*d numbers after the first; (m, True, d) if that is so for its columns.

    A matrix that is neither (a view with gaps in both directions) is copied.
    """
    rows, columns = m.shape
    down, across = (stride // m.itemsize for stride in m.strides)
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return m, False, columns if rows == 1 else down
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return m, True, rows if columns == 1 else across
    return m.copy("C"), False, columns


def aligned(rows, columns, dtype):
    """An empty (rows, columns) matrix whose rows start at multiples of 32 bytes, as tensor cores and wide loads like it."""
    import cupy
    step = 32 // np.dtype(dtype).itemsize
    return cupy.empty((rows, -(-columns // step) * step), dtype)[:, :columns]


def is_out_of_memory(error):
    """Whether this exception says that a GPU has no more memory."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(error, cupy.cuda.memory.OutOfMemoryError)


def memory():
    """Bytes of the current GPU, as a dict: in use by arrays; kept by CuPy's pool for reuse; free; total."""
    import cupy
    free, total = cupy.cuda.Device().mem_info
    pool = cupy.get_default_memory_pool()
    if pool.get_limit():            # CUPY_GPU_MEMORY_LIMIT: CuPy may not take all there is
        total, free = pool.get_limit(), min(free, pool.get_limit() - pool.total_bytes())
    return {"used": pool.used_bytes(), "kept": pool.total_bytes() - pool.used_bytes(), "free": free, "total": total}
