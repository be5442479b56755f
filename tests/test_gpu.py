"""GPU-specific code: kernel launches, matrix products by cuBLAS, the workspace, memory; and networks and training on the GPU.

The ops themselves are tested on both devices in tests/ops.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import minicnn as mc
from minicnn import Tensor, nn, ops
from minicnn.backend import cuda, threads
from minicnn.backend.arrays import axes_by_stride, ceil_div, device_of, to_device, xp_of
from minicnn.data import DataLoader, FashionMNIST
from minicnn.data.transforms import Compose, Normalize
from minicnn.examples.alexnet import alexnet
from minicnn.ops.conv2d import op as conv2d_op
from minicnn.optim import SGD

MINICNN = pathlib.Path(mc.__file__).parent
KERNELS = [(path.relative_to(MINICNN).as_posix(), name) for path in sorted(MINICNN.rglob("*.cu"))
           for name in re.findall(r"__global__ void (\w+)\(", path.read_text())]
CONSTANTS = (("Index", "unsigned char"), ("Word", "unsigned long long"), ("WIDTH", 4))      # what ops define for their kernels


def integers(*shape):
    """Small integers: their sums are exact in any order, in float32 too."""
    return np.random.default_rng(sum(shape)).integers(-8, 9, shape).astype(np.float64)


# Kernels

def test_the_kernels_are_found():
    assert {("ops/conv2d/im2col.cu", "im2col"), ("ops/softmax.cu", "mean_loss"), ("data/images.cu", "normalize_batch")} <= set(KERNELS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("file, name", KERNELS)
def test_every_kernel_compiles_and_its_signature_is_read(cupy, file, name, dtype):
    """Each parameter has a type that NumPy has, or is an array of a type that the file defines; and none is missing."""
    kernel, types = cuda.get_kernel(file, name, dtype, CONSTANTS)
    kernel.compile()
    source = (MINICNN / file).read_text()
    parameters = re.search(rf"__global__ void {name}\(([^)]*)\)", source)[1].split(",")
    assert len(types) == len(parameters)
    for c_type, parameter in zip(types, parameters, strict=True):
        word = c_type.rstrip("*")
        assert c_type.endswith("*") == ("*" in parameter)
        own = c_type.endswith("*") and re.search(rf"\btypedef \w+ {word};|\bstruct .*\b{word} {{", source)
        assert own or word in cuda.DTYPES, parameter
        if re.search(r"\bT\b", parameter):
            assert cuda.DTYPES[word] == dtype


def add_rows(cupy, x_dtype="float32", sums_dtype="float32", dtype="float32", sizes=(2, 128)):
    """Run a small kernel on arrays of these dtypes: sums = the sum of two rows of ones."""
    sums = cupy.empty((1, 3), sums_dtype)
    cuda.launch_rows("ops/bias.cu", "add_rows", 1, 3, cupy.ones((2, 3), x_dtype), sums, *sizes, dtype=dtype)
    return sums.get()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scalars_are_cast_to_the_kernels_types(cupy, dtype):
    """Python's numbers, and NumPy's of another dtype."""
    for sizes in ((2, 128), (np.int64(2), 128.0), (np.uint8(2), np.float32(128))):
        assert add_rows(cupy, dtype, dtype, dtype, sizes).tolist() == [[2, 2, 2]]


def test_arrays_of_another_dtype_are_refused(cupy):
    with pytest.raises(TypeError, match=r"add_rows: the array for a float\* parameter must have dtype float32, got float64"):
        add_rows(cupy, x_dtype="float64")
    with pytest.raises(TypeError, match=r"add_rows: the array for a float\* parameter must have dtype float32, got int32"):
        add_rows(cupy, sums_dtype="int32")
    with pytest.raises(TypeError, match=r"add_rows: the array for a double\* parameter must have dtype float64, got float32"):
        add_rows(cupy, dtype="float64")
    with pytest.raises(TypeError, match=r"mean_loss: the array for a longlong\* parameter must have dtype int64, got int32"):
        cuda.launch_block_reduction("ops/softmax.cu", "mean_loss", 1, 2, 3, cupy.ones((2, 3), "f"), cupy.zeros(2, "int32"),
                                    cupy.empty((), "f"), dtype="float32")
    with pytest.raises(TypeError, match="Implicit conversion"):         # an array for a scalar
        add_rows(cupy, sizes=(cupy.ones(3), 128))
    with pytest.raises(TypeError):                                      # an array on the CPU
        cuda.launch_rows("ops/bias.cu", "add_rows", 1, 3, np.ones((2, 3), "f"), cupy.empty((1, 3), "f"), 2, 128, dtype="float32")


@pytest.mark.parametrize("sizes", [(), (2,), (2, 128, 1)])
def test_a_kernel_refuses_too_few_and_too_many_arguments(cupy, sizes):
    with pytest.raises(ValueError, match="zip"):
        add_rows(cupy, sizes=sizes)


# Matrix products

def contiguous(a):
    return a


def transposed(a):
    return a.T.copy().T


def columns_of_a_wider_matrix(a):
    return strided_view(a, (0, 1), (3, 1))


def rows_of_a_taller_matrix_transposed(a):
    return strided_view(a.T, (0, 1), (2, 1)).T


def every_other_row(a):
    return strided_view(a, (0, 2), (0, 1))


def gaps_in_both_axes(a):
    return strided_view(a, (1, 3), (2, 2))


def reversed_rows(a):
    return a[::-1].copy()[::-1]


def reversed_columns(a):
    return a[:, ::-1].copy()[:, ::-1]


def strided_view(a, rows, columns):
    """`a` as a view of a larger array, each axis with (start, step); the elements in between are NaN, which would spread."""
    (top, down), (left, across) = rows, columns
    larger = xp_of(a).full((top + down * a.shape[0] + 2, left + across * a.shape[1] + 5), np.nan, a.dtype)
    view = larger[top::down, left::across][:a.shape[0], :a.shape[1]]
    view[...] = a
    return view


LAYOUTS = [contiguous, transposed, columns_of_a_wider_matrix, rows_of_a_taller_matrix_transposed, every_other_row, gaps_in_both_axes,
           reversed_rows, reversed_columns]
SIZES = [(3, 5, 4), (1, 5, 4), (3, 1, 4), (3, 5, 1), (1, 1, 4), (1, 5, 1), (3, 1, 1), (1, 1, 1)]       # rows, inner, columns


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout_b", LAYOUTS)
@pytest.mark.parametrize("layout_a", LAYOUTS)
def test_gemm(cupy, layout_a, layout_b, dtype):
    """For every memory layout of both, into a matrix or some columns of one, overwriting or accumulating."""
    for rows, inner, columns in SIZES:
        a, b, before = integers(rows, inner), integers(inner, columns), integers(rows, columns)
        on_gpu = [layout(cupy.asarray(m, dtype)) for layout, m in ((layout_a, a), (layout_b, b))]
        for layout_out in (contiguous, columns_of_a_wider_matrix, every_other_row):
            out = layout_out(cupy.full((rows, columns), np.nan, dtype))
            assert cuda.gemm(*on_gpu, out) is out
            np.testing.assert_array_equal(out.get(), a @ b, err_msg=f"{rows, inner, columns}")
            out = layout_out(cupy.asarray(before, dtype))
            cuda.gemm(*on_gpu, out, accumulate=True)
            np.testing.assert_array_equal(out.get(), before + a @ b, err_msg=f"{rows, inner, columns} accumulated")
        np.testing.assert_array_equal(on_gpu[0].get(), a)
        np.testing.assert_array_equal(on_gpu[1].get(), b)


def test_the_layouts_differ():
    a = integers(3, 5)
    assert all(np.array_equal(layout(a), a) for layout in LAYOUTS)
    assert len({layout(a).strides for layout in LAYOUTS}) == len(LAYOUTS)


def test_gemm_writes_its_columns_only(cupy):
    wide = cupy.full((3, 9), 7.0)
    cuda.gemm(cupy.ones((3, 2)), cupy.ones((2, 4)), wide[:, 3:7])
    assert wide.get().tolist() == [[7] * 3 + [2] * 4 + [7] * 2] * 3


def test_an_output_of_one_column_may_have_any_stride(cupy):
    out = gaps_in_both_axes(cupy.zeros((3, 1)))
    cuda.gemm(cupy.ones((3, 2)), cupy.ones((2, 1)), out)
    assert out.get().tolist() == [[2]] * 3


def test_gemm_of_a_broadcast_matrix(cupy):
    """All its rows, or all its elements, share memory."""
    row, b = integers(1, 5), integers(5, 4)
    for width in (5, 1):
        a = cupy.broadcast_to(cupy.asarray(row)[:, :width], (3, 5))
        np.testing.assert_array_equal(cuda.gemm(a, cupy.asarray(b), cupy.empty((3, 4))).get(), a.get() @ b)


@pytest.mark.parametrize("layout", [transposed, gaps_in_both_axes, reversed_rows, reversed_columns, rows_of_a_taller_matrix_transposed])
def test_an_output_whose_rows_are_not_contiguous_is_refused(cupy, layout):
    out = layout(cupy.zeros((3, 4)))
    with pytest.raises(ValueError, match="cuda.gemm: the rows of `out` must be contiguous in memory"):
        cuda.gemm(cupy.ones((3, 2)), cupy.ones((2, 4)), out)
    assert not out.any()


def test_gemm_of_other_dtypes_is_refused(cupy):
    with pytest.raises(TypeError, match="cuda.gemm: a, b and out must all be float32 or all be float64, got float32, float64 and float64"):
        cuda.gemm(cupy.ones((2, 2), "f"), cupy.ones((2, 2)), cupy.empty((2, 2)))


def test_matmul_of_integers_agrees_with_the_cpu(cupy):
    """They are not interpreted as floats."""
    a, b = np.arange(6).reshape(2, 3), np.arange(12).reshape(3, 4)
    y = ops.matmul(Tensor(a, device="gpu"), Tensor(b, device="gpu"))
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y.numpy(), a @ b)


@pytest.mark.parametrize("shapes", [((0, 2), (2, 3)), ((2, 0), (0, 3)), ((2, 3), (3, 0))])
def test_matmul_of_empty_matrices_agrees_with_the_cpu(device, shapes):
    y = ops.matmul(*(Tensor(np.ones(shape), device=device) for shape in shapes))
    np.testing.assert_array_equal(y.numpy(), np.ones(shapes[0]) @ np.ones(shapes[1]))


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax, ops.dropout, ops.exp])
def test_empty_batches(device, op, monkeypatch):
    """On a GPU no kernel is launched: CUDA refuses an empty grid."""
    def kernel(*args, **options):
        pytest.fail("a kernel was launched")

    get_kernel = cuda.get_kernel
    monkeypatch.setattr(cuda, "get_kernel", lambda *args: (kernel, get_kernel(*args)[1]))
    y = op(Tensor(np.ones((0, 3)), device=device))
    assert y.shape == (0, 3)
    assert y.device == device


def test_rows_are_aligned(cupy):
    """For every number of columns, rows start at multiples of 32 bytes."""
    for dtype in ("float32", "float64"):
        for columns in (1, 3, 4, 7, 8, 9, 363):
            m = cuda.aligned(5, columns, dtype)
            assert m.shape == (5, columns)
            assert m.dtype == dtype
            assert m.strides[0] % 32 == m.data.ptr % 32 == 0
            assert m.strides[0] - m.itemsize * columns < 32


# TF32

@pytest.fixture
def compute_types(cupy, monkeypatch):
    """The compute type passed to cuBLAS for each matrix product. The setting is restored after the test."""
    from cupy.cuda import cublas
    types, gemm_ex = [], cublas.gemmEx

    def gemm(*args):
        types.append(args[-2])
        return gemm_ex(*args)

    monkeypatch.setattr(cuda, "_allow_tf32", False)
    monkeypatch.setattr(cublas, "gemmEx", gemm)
    return types


def test_tf32_is_used_for_float32_and_only_on_request(cupy, compute_types):
    from cupy.cuda import cublas
    assert cuda.allow_tf32() is False
    outputs, x = {}, np.random.default_rng(0).standard_normal((20, 30))
    for tf32 in (False, True, False):
        assert cuda.allow_tf32(tf32) is tf32
        assert cuda.allow_tf32() is tf32
        for dtype in ("float32", "float64"):
            a = cupy.asarray(x, dtype)
            outputs[tf32, dtype] = cuda.gemm(a, a.T, cupy.empty((20, 20), dtype)).get()
            np.testing.assert_allclose(outputs[tf32, dtype], x @ x.T, rtol=0, atol=60 * 2.0 ** -11 if tf32 else 1e-4)
    single, double, fast = cublas.CUBLAS_COMPUTE_32F, cublas.CUBLAS_COMPUTE_64F, cublas.CUBLAS_COMPUTE_32F_FAST_TF32
    assert compute_types == [single, double, fast, double, single, double]
    assert len({single, double, fast}) == 3
    np.testing.assert_array_equal(outputs[True, "float64"], outputs[False, "float64"])


def test_every_matrix_product_of_a_network_uses_tf32(cupy, compute_types):
    """Three for each group of filters and for a linear layer: forward and two gradients; but not the gradient of the images."""
    from cupy.cuda import cublas
    cuda.allow_tf32(True)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 3)).to("gpu")
    ops.cross_entropy(net(Tensor(cupy.ones((2, 1, 6, 6), "f"))), [0, 2]).backward()
    assert compute_types == [cublas.CUBLAS_COMPUTE_32F_FAST_TF32] * (2 + 3 * 2 + 3)


# The workspace

def test_chunks_cover_every_image_once_within_the_workspace(monkeypatch):
    monkeypatch.setattr(cuda, "WORKSPACE_BYTES", 1000)
    for N in (1, 2, 7, 10, 128, 129, 1000):
        for bytes_per_image in (0, 1, 3, 10, 99, 100, 101, 499, 500, 501, 999, 1000, 1001, 5000):
            slices = threads.chunks(N, bytes_per_image)
            assert [i for n in slices for i in range(n.start, n.stop)] == list(range(N))
            lengths = [n.stop - n.start for n in slices]
            assert max(lengths) * bytes_per_image <= 1000 or max(lengths) == 1
            assert len(lengths) <= ceil_div(N, max(1, 1000 // max(1, bytes_per_image)))         # no more than needed
            assert set(lengths[:-1]) <= {max(lengths)}


CONVOLUTIONS = {        # x              w             stride  padding groups
    "conv2":            ((7, 8, 9, 9), (8, 4, 5, 5), (1, 1), (2, 2), 2),
    "conv1":            ((5, 3, 17, 15), (4, 3, 5, 5), (4, 4), (0, 0), 1),
    "uneven":           ((6, 4, 5, 6), (3, 4, 3, 2), (2, 3), (0, 1), 1),
    "three images":     ((3, 4, 5, 6), (4, 1, 3, 3), (1, 1), (1, 1), 4),
}


def convolve(x, w, b, g, *args):
    """y, gx, gw and gb computed on the GPU, as NumPy arrays."""
    tensors = [Tensor(a, requires_grad=True, device="gpu") for a in (x, w, b)]
    y = ops.conv2d(*tensors, *args)
    y.backward(Tensor(g, device="gpu"))
    return [to_device(a, "cpu") for a in (y.data, *(t.grad for t in tensors))]


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_in_chunks_is_the_same(cupy, case, monkeypatch):
    """In chunks of one image, of two, and all at once. With integers the order of additions makes no difference."""
    x_shape, w_shape, *args = CONVOLUTIONS[case]
    x, w, b = integers(*x_shape), integers(*w_shape), integers(w_shape[0])
    g = integers(*ops.conv2d(Tensor(x), Tensor(w), None, *args).shape)
    lengths = []
    im2col, col2im = conv2d_op.im2col, conv2d_op.col2im

    def unfold(images, *rest):
        lengths.append(len(images))
        return im2col(images, *rest)

    def fold(columns, images, *rest):
        lengths.append(len(images))
        return col2im(columns, images, *rest)

    monkeypatch.setattr(conv2d_op, "im2col", unfold)
    monkeypatch.setattr(conv2d_op, "col2im", fold)
    bytes_per_image = g[0, 0].size * (w[0].size + len(w)) * g.itemsize
    outputs = {}
    for chunk in (1, 2, len(x)):
        monkeypatch.setattr(cuda, "WORKSPACE_BYTES", chunk * bytes_per_image + bytes_per_image // 2)
        lengths.clear()
        outputs[chunk] = convolve(x, w, b, g, *args)
        assert max(lengths) == chunk
        assert sum(lengths) == 3 * args[-1] * len(x)            # forward and two gradients, for each group
    monkeypatch.setattr(cuda, "WORKSPACE_BYTES", 1)              # less than one image needs: one at a time nevertheless
    outputs[0] = convolve(x, w, b, g, *args)
    for chunk in (0, 1, 2):
        for got, want in zip(outputs[chunk], outputs[len(x)], strict=True):
            np.testing.assert_array_equal(got, want)


# Between the devices

MEMORY_ORDERS = {
    "contiguous": lambda a: a,
    "channels last": lambda a: a.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
    "batch innermost": lambda a: a.T.copy().T,
    "strided": lambda a: np.repeat(a, 2, axis=3)[..., ::2],
    "reversed columns": lambda a: a[..., ::-1].copy()[..., ::-1],
    "reversed rows, channels last": lambda a: a[:, :, ::-1].transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)[:, :, ::-1],
}


@pytest.mark.parametrize("order", MEMORY_ORDERS)
def test_copies_preserve_the_memory_order(cupy, order):
    a = MEMORY_ORDERS[order](np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5))
    on_gpu = Tensor(a).to("gpu")
    back = on_gpu.to("cpu")
    assert (on_gpu.device, back.device) == ("gpu", "cpu")
    np.testing.assert_array_equal(back.data, a)
    assert axes_by_stride(on_gpu.data) == axes_by_stride(back.data) == axes_by_stride(a)
    for moved in (on_gpu.data, back.data):
        assert moved.transpose(axes_by_stride(a)).flags.c_contiguous
    assert on_gpu.to("gpu") is on_gpu
    assert on_gpu.to("gpu:0") is on_gpu


@pytest.mark.parametrize("a", [np.array(3.0), np.zeros((0, 3)), np.broadcast_to(np.arange(3.0), (4, 3)), np.ones((1, 1, 1)),
                               np.array([True, False]), np.arange(5, dtype=np.uint8)], ids=lambda a: f"{a.dtype}{a.shape}{a.strides}")
def test_any_array_can_be_copied(cupy, a):
    on_gpu = to_device(a, "gpu")
    back = to_device(on_gpu, "cpu")
    assert (on_gpu.shape, on_gpu.dtype, back.shape, back.dtype) == (a.shape, a.dtype) * 2
    np.testing.assert_array_equal(back, a)


def test_a_moved_tensor_is_a_leaf_and_shares_no_memory(cupy):
    x = Tensor(np.ones(3), requires_grad=True)
    on_gpu = (x * 2).to("gpu")
    assert on_gpu.requires_grad
    assert on_gpu.node is None
    on_gpu.data[0] = 7
    assert x.data.tolist() == [1, 1, 1]
    assert on_gpu.numpy().tolist() == [7, 2, 2]
    assert repr(on_gpu) == "Tensor([7. 2. 2.], shape=(3,), float64, gpu, requires_grad=True)"
    assert Tensor(2.5, device="gpu").item() == 2.5
    assert Tensor(np.ones(3), requires_grad=True, device="gpu").device == "gpu"


def test_moving_filters_keeps_channels_last(cupy):
    net = nn.Sequential(conv=nn.Conv2d(3, 4, 2))
    before, strides = net.conv.weight.data.copy(), net.conv.weight.data.strides
    net.to("gpu")
    assert net.conv.weight.device == "gpu"
    assert net.conv.weight.data.strides == strides
    net.to("cpu")
    assert net.conv.weight.data.strides == strides
    np.testing.assert_array_equal(net.conv.weight.data, before)


def small_network():
    """A network with every kind of parameter, and dropout."""
    mc.seed(0)
    return nn.Sequential(conv=nn.Conv2d(2, 4, 3), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(), drop=nn.Dropout(0.5),
                         fc=nn.Linear(16, 3))


def steps(net, optimizer, count, first=0):
    """Take some training steps, each with a batch of its own; returns the losses."""
    losses = []
    for i in range(first, first + count):
        rng = np.random.default_rng(i)
        x = Tensor(rng.standard_normal((6, 2, 6, 6), np.float32), device=net.fc.weight.device)
        loss = ops.cross_entropy(net(x), rng.integers(0, 3, 6))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def uninterrupted():
    """Losses and weights of eight steps on the CPU."""
    net = small_network()
    return steps(net, SGD(net.parameters(), 0.1, 0.9, 0.01), 8), net.state_dict()


def assert_same_training(got, want):
    np.testing.assert_allclose(got[0], want[0], rtol=1e-4)
    for name, w in want[1].items():
        np.testing.assert_allclose(to_device(got[1][name], "cpu"), w, rtol=0, atol=1e-5 * np.abs(w).max(), err_msg=name)


def test_velocities_follow_a_network_that_moves(cupy):
    """Created on the CPU, moved after three steps and back after six: the steps are those of a network that was not moved."""
    net = small_network()
    optimizer = SGD(net.parameters(), 0.1, 0.9, 0.01)
    losses = steps(net, optimizer, 3)
    losses += steps(net.to("gpu"), optimizer, 3, 3)
    assert {device_of(v) for v in optimizer.velocities} == {"gpu"}
    losses += steps(net.to("cpu"), optimizer, 2, 6)
    assert {device_of(v) for v in optimizer.velocities} == {"cpu"}
    assert_same_training((losses, net.state_dict()), uninterrupted())


@pytest.mark.parametrize("first, second", [("cpu", "gpu"), ("gpu", "cpu"), ("gpu", "gpu")])
def test_a_checkpoint_resumes_on_the_other_device(cupy, first, second, tmp_path):
    net = small_network().to(first)
    optimizer = SGD(net.parameters(), 0.1, 0.9, 0.01)
    losses = steps(net, optimizer, 4)
    mc.save_checkpoint(tmp_path / "a.npz", model=net.state_dict(), optimizer=optimizer.state_dict(), random=mc.random.state())
    saved = mc.load_checkpoint(tmp_path / "a.npz")
    for name, w in net.state_dict().items():
        assert type(saved["model"][name]) is np.ndarray
        assert saved["model"][name].dtype == np.float32
        np.testing.assert_array_equal(saved["model"][name], to_device(w, "cpu"))
    for saved_v, v in zip(saved["optimizer"]["velocities"], optimizer.velocities, strict=True):
        np.testing.assert_array_equal(saved_v, to_device(v, "cpu"))

    net = small_network().to(second)
    optimizer = SGD(net.parameters(), 0.3)
    mc.seed(99)
    net.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    mc.random.set_state(saved["random"])
    assert net.fc.weight.device == second
    losses += steps(net, optimizer, 4, 4)
    assert_same_training((losses, net.state_dict()), uninterrupted())


def test_arrays_of_either_device_can_be_loaded(cupy):
    net, other = small_network(), small_network().to("gpu")
    net.fc.weight.data[...] = 3
    other.load_state_dict(net.state_dict())
    assert (other.fc.weight.numpy() == 3).all()
    other.fc.weight.data[...] = 4
    net.load_state_dict(other.state_dict())
    assert (net.fc.weight.data == 4).all()
    assert net.fc.weight.device == "cpu"


def test_the_first_steps_of_training_agree(cupy):
    """Mini on Fashion-MNIST, with dropout: ten losses and the weights after them, on both devices; and not with another seed."""
    def train(device, seed=0):
        mc.seed(seed)
        train = FashionMNIST("train")
        loader = DataLoader(train, 4, Compose(Normalize(train.images.mean(), train.images.std())), shuffle=True, seed=0, device=device)
        net = alexnet("mini", 10, 1)
        mc.nn.init.kaiming_(net)
        optimizer = SGD(net.to(device).parameters(), 0.02, 0.9, 0.001)
        losses = []
        for _, (images, labels) in zip(range(10), loader.epoch(0), strict=False):
            loss = ops.cross_entropy(net(Tensor(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, net.state_dict()

    gpu, cpu, other = train("gpu"), train("cpu"), train("cpu", seed=1)
    np.testing.assert_allclose(gpu[0], cpu[0], rtol=1e-4)
    assert np.abs(np.subtract(other[0], cpu[0])).max() > 0.05
    for name, w in cpu[1].items():
        np.testing.assert_allclose(to_device(gpu[1][name], "cpu"), w, rtol=0, atol=1e-3 * np.abs(w).max(), err_msg=name)


# Mixed devices

@pytest.mark.parametrize("op", [ops.add, ops.matmul, ops.linear])
def test_inputs_on_different_devices_are_refused(cupy, op):
    x, y = Tensor(np.ones((2, 2))), Tensor(np.ones((2, 2)), device="gpu")
    with pytest.raises(ValueError, match=r": its inputs are on different devices \(cpu, gpu\); move them with .to\(device\)"):
        op(x, y)
    with pytest.raises(ValueError, match=r": its inputs are on different devices \(gpu, cpu\); move them with .to\(device\)"):
        op(y, x)


def test_an_array_on_the_other_device_is_not_moved_silently(cupy):
    x = Tensor(np.ones(2), device="gpu")
    for act in (lambda: x * np.ones(2), lambda: np.ones(2) * x, lambda: Tensor(np.ones(2)) + x.data):
        with pytest.raises(ValueError, match="different devices"):
            act()
    assert (2 * x + 1 - x / 2).numpy().tolist() == [2.5, 2.5]               # numbers have no device
    assert (x * x.data).device == "gpu"


@pytest.mark.parametrize("logits", ["cpu", "gpu"])
@pytest.mark.parametrize("labels", ["cpu", "gpu"])
def test_labels_may_be_on_either_device(cupy, logits, labels):
    x = Tensor(integers(3, 4), requires_grad=True, device=logits)
    for wrap in (lambda a: a, Tensor):
        loss = ops.cross_entropy(x, wrap(to_device(np.array([3, 0, 1]), labels)))
        assert loss.device == logits
        assert loss.item() == pytest.approx(ops.cross_entropy(Tensor(integers(3, 4)), [3, 0, 1]).item(), rel=1e-12)
    for wrong, index in (([0, 4, 1], 1), ([0, 1, -1], 2)):
        with pytest.raises(ValueError, match=rf"labels\[{index}\] must be a class from 0 to 3, got {wrong[index]}"):
            ops.cross_entropy(x, to_device(np.array(wrong), labels))


def test_a_nonexistent_gpu_is_refused(cupy):
    count = cupy.cuda.runtime.getDeviceCount()
    for act in (lambda: Tensor(np.ones(2), device=f"gpu:{count}"), lambda: small_network().to(f"gpu:{count + 7}")):
        with pytest.raises(RuntimeError, match=rf"device 'gpu:\d+': this machine has {count} GPU\(s\), counted from 0"):
            act()


ON_THE_SECOND_GPU = """
import numpy as np
import minicnn as mc
from minicnn import Tensor, nn, ops
from minicnn.backend.arrays import device_of, to_device
from minicnn.data import DataLoader, FashionMNIST
from minicnn.optim import SGD

def train(device):
    mc.seed(0)
    net = nn.Sequential(conv=nn.Conv2d(1, 4, 5, stride=3), relu=nn.ReLU(), norm=nn.LocalResponseNorm(3), pool=nn.MaxPool2d(2),
                        flatten=nn.Flatten(), drop=nn.Dropout(), fc=nn.Linear(64, 10)).to(device)
    optimizer = SGD(net.parameters(), 0.1)
    losses = []
    for _, (images, labels) in zip(range(3), DataLoader(FashionMNIST("test"), 8, device=device)):
        assert device_of(images) == device
        logits = net(Tensor(images))
        loss = ops.cross_entropy(logits * 2 + 1, labels) + (ops.exp(logits) + logits).mean()    # logits are used three times
        loss.backward()
        loss = ops.cross_entropy(net(Tensor(images)), labels)                                   # added to the existing gradients
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert loss.device == device
        losses.append(loss.item())
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    net.load_state_dict(net.state_dict())
    assert {device_of(v) for v in state["velocities"]} == {p.device for p in net.parameters()} == {device}
    return losses, {name: to_device(w, "cpu").copy() for name, w in net.state_dict().items()}

cpu, gpu = train("cpu"), train("gpu:1")
np.testing.assert_allclose(gpu[0], cpu[0], rtol=1e-4)
for name, w in cpu[1].items():
    np.testing.assert_allclose(gpu[1][name], w, rtol=0, atol=1e-4, err_msg=name)
x = Tensor(np.ones(3), device="gpu:1")
assert x.to("gpu:1") is x and x.to("gpu").device == "gpu" and x.to("gpu").to("gpu:1").numpy().sum() == 3
try:
    x + x.to("gpu")
except ValueError as error:
    assert "(gpu:1, gpu)" in str(error)
print("the second GPU agrees with the CPU")
"""


def test_a_network_on_the_second_gpu(cupy, tmp_path):
    """While the first is the current one. In a process of its own, which has two devices where they are emulated."""
    if cupy.cuda.runtime.getDeviceCount() < 2 and "CUDA_ON_CPU" not in os.environ:
        pytest.skip("this machine has one GPU")
    (tmp_path / "second.py").write_text(ON_THE_SECOND_GPU)
    done = subprocess.run([*this_python(), tmp_path / "second.py"], capture_output=True, text=True, check=False,
                          env={**os.environ, "CUPY_CPU_DEVICES": "2", "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the second GPU agrees with the CPU\n"


def test_the_program_on_the_second_gpu(cupy, tmp_path):
    if cupy.cuda.runtime.getDeviceCount() < 2 and "CUDA_ON_CPU" not in os.environ:
        pytest.skip("this machine has one GPU")
    (tmp_path / "second.py").write_text("import sys\nfrom minicnn.examples.train_alexnet import main\nsys.exit(main(sys.argv[1:]))")
    done = subprocess.run([*this_python(), tmp_path / "second.py", "--device", "gpu:1", *SMALL, "--max-steps", "2", "--out",
                           tmp_path / "run"], capture_output=True, text=True, check=False,
                          env={**os.environ, "CUPY_CPU_DEVICES": "2", "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "run")) == 2


def this_python():
    """The command that started this process up to `-m pytest`: Python, and any program that wraps it."""
    command = sys.orig_argv
    return command[:command.index("-m")] if "-m" in command else [sys.executable]


# Memory

@pytest.fixture
def limit(cupy):
    """A function that limits CuPy to so many bytes more than it has now; the limit is removed after the test."""
    pool = cupy.get_default_memory_pool()

    def set_limit(extra):
        pool.free_all_blocks()
        pool.set_limit(size=pool.total_bytes() + extra)
        return pool.get_limit()

    before = pool.get_limit()
    yield set_limit
    pool.set_limit(size=before)
    pool.free_all_blocks()


def test_memory_stats(cupy):
    cupy.get_default_memory_pool().free_all_blocks()
    before = cuda.memory_stats()
    assert set(before) == {"used", "cached", "free", "total"}
    x = cupy.empty(3_000_000, "uint8")
    during = cuda.memory_stats()
    assert 3_000_000 <= during["used"] - before["used"] < 3_100_000
    del x
    after = cuda.memory_stats()
    assert after["used"] == before["used"]
    assert after["used"] + after["cached"] == during["used"] + during["cached"]             # CuPy caches freed memory
    assert 0 <= after["free"] <= after["total"]


def test_memory_stats_respect_cupys_limit(cupy, limit):
    """CUPY_GPU_MEMORY_LIMIT, or the pool's own limit."""
    bound = limit(50_000_000)
    now = cuda.memory_stats()
    assert now["total"] == bound
    assert now["used"] + now["cached"] + now["free"] == bound


def test_is_out_of_memory(cupy, limit):
    bound, in_use = limit(1_000_000), cupy.ones(1)
    with pytest.raises(MemoryError) as caught:
        cupy.empty(bound, "uint8")                        # all of it, while some is in use
    assert cuda.is_out_of_memory(caught.value)
    assert not cuda.is_out_of_memory(MemoryError())                      # of the CPU
    assert in_use.nbytes


def test_other_errors_are_not_out_of_memory():
    assert not cuda.is_out_of_memory(MemoryError())
    assert not cuda.is_out_of_memory(RuntimeError("out of memory"))


# The training program

SMALL = ["--max-images", "8", "--batch-size", "2", "--no-report"]


@pytest.fixture
def train(cupy, monkeypatch, capsys):
    """Run train_alexnet.py in this process, without its figures: (exit code, stderr). Its TF32 setting is restored after the test."""
    from minicnn.examples import train_alexnet
    monkeypatch.setattr(cuda, "_allow_tf32", False)
    monkeypatch.setattr("minicnn.examples.bookkeeping.Bookkeeping.draw", lambda self: None)

    def run(*args):
        code = train_alexnet.main([*SMALL, *map(str, args)])
        return code, capsys.readouterr().err

    return run


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines() if '"train"' in line]


@pytest.mark.parametrize("first, second", [("gpu", "cpu"), ("cpu", "gpu")])
def test_a_run_resumes_on_the_other_device(train, first, second, tmp_path):
    """Three steps on each device equal six on the CPU, up to rounding; each step is in the log once."""
    assert train("--device", "cpu", "--max-steps", 6, "--out", tmp_path / "uninterrupted")[0] == 0
    assert train("--device", first, "--max-steps", 3, "--out", tmp_path / "resumed")[0] == 0
    assert train("--device", second, "--max-steps", 6, "--resume", tmp_path / "resumed")[0] == 0
    assert len(losses(tmp_path / "uninterrupted")) == 6
    np.testing.assert_allclose(losses(tmp_path / "resumed"), losses(tmp_path / "uninterrupted"), rtol=1e-4)
    expected, resumed = (mc.load_checkpoint(max((tmp_path / name).glob("checkpoint*.npz"))) for name in ("uninterrupted", "resumed"))
    for name, w in expected["model"].items():
        np.testing.assert_allclose(resumed["model"][name], w, rtol=0, atol=1e-4 * np.abs(w).max(), err_msg=name)
    assert resumed["random"] == expected["random"]
    code, _ = train("--device", "gpu", "--resume", tmp_path / "resumed", "--eval")
    assert code == 0


def test_the_command_line_sets_tf32(train, tmp_path):
    for options, tf32 in (["--tf32"], True), ([], False):
        assert train("--device", "gpu", "--max-steps", 1, "--out", tmp_path / str(tf32), *options)[0] == 0
        assert cuda.allow_tf32() is tf32
    code, stderr = train("--device", "cpu", "--tf32", "--out", tmp_path / "cpu")
    assert code == 2
    assert stderr == "error: --tf32 is for a GPU; remove it to train on the CPU\n"
    assert not (tmp_path / "cpu").exists()


def test_a_diverging_run_reports_the_step(train, tmp_path):
    """Although the losses are read some steps later; the earlier ones are in the log."""
    code, stderr = train("--device", "gpu", "--lr", "1e30", "--max-steps", 8, "--out", tmp_path / "run")
    assert code == 1
    logged = losses(tmp_path / "run")
    assert f"at step {len(logged)}. Try a smaller --lr" in stderr
    assert logged[-1] is None
    assert all(logged[:-1])
    assert not list((tmp_path / "run").glob("checkpoint*"))


def test_losses_are_read_twenty_at_a_time(cupy, tmp_path):
    """Reading a number waits for the GPU. The remaining losses are read at the end."""
    from minicnn.train.log import TrainingLogger

    class Bar:
        def set_postfix_str(self, *args, **more): pass
        def update(self, images): pass

    seen = []
    with TrainingLogger(tmp_path / "log.jsonl", Bar(), "gpu") as log:
        for step in range(1, 46):
            log.train(step, cupy.float32(step / 2) * cupy.ones(()), cupy.asarray([True, False]).mean(), 0.1, 2)
            seen.append(len(losses(tmp_path)))
    assert seen == [0] * 19 + [20] * 20 + [40] * 6
    assert losses(tmp_path) == [step / 2 for step in range(1, 46)]


def test_out_of_memory_suggests_a_batch_size(train, limit, monkeypatch, tmp_path):
    """The error names the batch size, the memory and a batch size that fits. That one works, and twice that does not."""
    monkeypatch.setattr(cuda, "WORKSPACE_BYTES", 1 << 20)
    options = ["--device", "gpu", "--max-steps", 2, "--max-images", 20]
    limit(11_500_000)
    code, stderr = train(*options, "--batch-size", 20, "--out", tmp_path / "a")
    assert code == 2
    message = re.search(r"error: not enough memory for a batch of 20 images of 1x28x28 on the GPU: [\d.]+ GB are in use by arrays, "
                        r"[\d.]+ GB cached for reuse, [\d.]+ GB free of [\d.]+ GB; about (\d+) would fit: "
                        r"try --batch-size (\d+)$", stderr.strip())
    assert message, stderr
    fits = int(message[1])
    assert message[1] == message[2]
    assert 2 < fits < 10
    limit(11_500_000)
    code, stderr = train(*options, "--batch-size", fits, "--out", tmp_path / "b")
    assert code == 0, stderr
    limit(11_500_000)
    assert train(*options, "--batch-size", 2 * fits, "--out", tmp_path / "c")[0] == 2


def test_out_of_memory_with_every_batch_size(train, limit, tmp_path):
    limit(7_500_000)
    code, stderr = train("--device", "gpu", "--max-steps", 1, "--batch-size", 8, "--out", tmp_path / "run")
    assert code == 2
    assert stderr.splitlines()[-1].endswith("no batch would fit; use a smaller network (--arch)")
