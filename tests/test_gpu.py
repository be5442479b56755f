"""What only a GPU has: kernels that are given what they read, cuBLAS's view of a matrix, portions of memory; and a network that goes there.

The ops themselves are asked the same questions on both devices in tests/ops.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from alexnet import alexnet

import minicnn as mc
from minicnn import Tensor, gpu, nn, ops, parallel
from minicnn.backend import device_of, memory_order, to_device, xp_of
from minicnn.data import DataLoader, FashionMNIST
from minicnn.data.transforms import Compose, Normalize
from minicnn.optim import SGD

MINICNN = pathlib.Path(mc.__file__).parent
KERNELS = [(path.relative_to(MINICNN).as_posix(), name) for path in sorted(MINICNN.rglob("*.cu"))
           for name in re.findall(r"__global__ void (\w+)\(", path.read_text())]
CONSTANTS = (("Place", "unsigned char"), ("Word", "unsigned long long"), ("WIDTH", 4))      # what ops define for their kernels


def whole(*shape):
    """Small whole numbers: however they are added up, the sum is exact, in float32 too."""
    return np.random.default_rng(sum(shape)).integers(-8, 9, shape).astype(np.float64)


# Kernels

def test_there_are_kernels_to_look_at():
    assert {("ops/windows.cu", "im2col"), ("ops/softmax.cu", "mean_loss"), ("data/images.cu", "finish")} <= set(KERNELS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("file, name", KERNELS)
def test_every_kernel_compiles_and_its_signature_is_read(cupy, file, name, dtype):
    """Each parameter is of a type that NumPy has, or an array of what the file itself defines; and none is left out."""
    kernel, types = gpu.compiled(file, name, dtype, CONSTANTS)
    kernel.compile()
    source = (MINICNN / file).read_text()
    parameters = re.search(rf"__global__ void {name}\(([^)]*)\)", source)[1].split(",")
    assert len(types) == len(parameters)
    for c_type, parameter in zip(types, parameters, strict=True):
        word = c_type.rstrip("*")
        assert c_type.endswith("*") == ("*" in parameter)
        own = c_type.endswith("*") and re.search(rf"\btypedef \w+ {word};|\bstruct .*\b{word} {{", source)
        assert own or word in gpu.DTYPES, parameter
        if re.search(r"\bT\b", parameter):
            assert gpu.DTYPES[word] == dtype


def add_rows(cupy, x_dtype="float32", sums_dtype="float32", dtype="float32", more=(2, 128)):
    """Run a small kernel on arrays of these dtypes: sums = the sum of two rows of ones."""
    sums = cupy.empty((1, 3), sums_dtype)
    gpu.run("ops/bias.cu", "add_rows", 1, 3, cupy.ones((2, 3), x_dtype), sums, *more, dtype=dtype)
    return sums.get()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kernel_is_given_what_it_reads(cupy, dtype):
    """Numbers are made what the signature says: Python's own, and NumPy's of another dtype."""
    for more in ((2, 128), (np.int64(2), 128.0), (np.uint8(2), np.float32(128))):
        assert add_rows(cupy, dtype, dtype, dtype, more).tolist() == [[2, 2, 2]]


def test_a_kernel_refuses_what_it_would_misread(cupy):
    with pytest.raises(TypeError, match=r"add_rows: the kernel reads float\*, but was given an array of float64"):
        add_rows(cupy, x_dtype="float64")
    with pytest.raises(TypeError, match=r"add_rows: the kernel reads float\*, but was given an array of int32"):
        add_rows(cupy, sums_dtype="int32")
    with pytest.raises(TypeError, match=r"add_rows: the kernel reads double\*, but was given an array of float32"):
        add_rows(cupy, dtype="float64")
    with pytest.raises(TypeError, match=r"mean_loss: the kernel reads longlong\*, but was given an array of int32"):
        gpu.run_together("ops/softmax.cu", "mean_loss", 1, 2, 3, cupy.ones((2, 3), "f"), cupy.zeros(2, "int32"), cupy.empty((), "f"),
                         dtype="float32")
    with pytest.raises(TypeError, match="Implicit conversion"):         # an array for a number
        add_rows(cupy, more=(cupy.ones(3), 128))
    with pytest.raises(TypeError):                                      # an array that is not on the GPU
        gpu.run("ops/bias.cu", "add_rows", 1, 3, np.ones((2, 3), "f"), cupy.empty((1, 3), "f"), 2, 128, dtype="float32")


@pytest.mark.parametrize("more", [(), (2,), (2, 128, 1)])
def test_a_kernel_refuses_too_few_and_too_many_arguments(cupy, more):
    with pytest.raises(ValueError, match="zip"):
        add_rows(cupy, more=more)


# Products

def in_rows(a):
    return a


def transposed(a):
    return a.T.copy().T


def columns_of_a_wider_one(a):
    return every(a, (0, 1), (3, 1))


def rows_of_a_taller_one_transposed(a):
    return every(a.T, (0, 1), (2, 1)).T


def every_other_row(a):
    return every(a, (0, 2), (0, 1))


def gaps_both_ways(a):
    return every(a, (1, 3), (2, 2))


def backwards(a):
    return a[::-1].copy()[::-1]


def right_to_left(a):
    return a[:, ::-1].copy()[:, ::-1]


def every(a, rows, columns):
    """`a` as a view of a larger array that begins at (row, column) and takes steps of so many; between is NaN, which would be seen."""
    (top, down), (left, across) = rows, columns
    around = xp_of(a).full((top + down * a.shape[0] + 2, left + across * a.shape[1] + 5), np.nan, a.dtype)
    view = around[top::down, left::across][:a.shape[0], :a.shape[1]]
    view[...] = a
    return view


LAYOUTS = [in_rows, transposed, columns_of_a_wider_one, rows_of_a_taller_one_transposed, every_other_row, gaps_both_ways, backwards,
           right_to_left]
SIZES = [(3, 5, 4), (1, 5, 4), (3, 1, 4), (3, 5, 1), (1, 1, 4), (1, 5, 1), (3, 1, 1), (1, 1, 1)]       # rows, inner, columns


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lay_b", LAYOUTS)
@pytest.mark.parametrize("lay_a", LAYOUTS)
def test_product(cupy, lay_a, lay_b, dtype):
    """However both lie in memory, into a matrix or into some columns of one, instead of what is there or on top of it."""
    for rows, inner, columns in SIZES:
        a, b, before = whole(rows, inner), whole(inner, columns), whole(rows, columns)
        here = [lay(cupy.asarray(m, dtype)) for lay, m in ((lay_a, a), (lay_b, b))]
        for lay_out in (in_rows, columns_of_a_wider_one, every_other_row):
            out = lay_out(cupy.full((rows, columns), np.nan, dtype))
            assert gpu.product(*here, out) is out
            np.testing.assert_array_equal(out.get(), a @ b, err_msg=f"{rows, inner, columns}")
            out = lay_out(cupy.asarray(before, dtype))
            gpu.product(*here, out, accumulate=True)
            np.testing.assert_array_equal(out.get(), before + a @ b, err_msg=f"{rows, inner, columns} on top")
        np.testing.assert_array_equal(here[0].get(), a)
        np.testing.assert_array_equal(here[1].get(), b)


def test_the_layouts_differ():
    a = whole(3, 5)
    assert all(np.array_equal(lay(a), a) for lay in LAYOUTS)
    assert len({lay(a).strides for lay in LAYOUTS}) == len(LAYOUTS)


def test_a_product_stays_within_its_columns(cupy):
    wide = cupy.full((3, 9), 7.0)
    gpu.product(cupy.ones((3, 2)), cupy.ones((2, 4)), wide[:, 3:7])
    assert wide.get().tolist() == [[7] * 3 + [2] * 4 + [7] * 2] * 3


def test_an_answer_of_one_column_may_lie_anywhere_in_wide_rows(cupy):
    out = gaps_both_ways(cupy.zeros((3, 1)))
    gpu.product(cupy.ones((3, 2)), cupy.ones((2, 1)), out)
    assert out.get().tolist() == [[2]] * 3


def test_the_same_row_again_and_again(cupy):
    """A broadcast matrix, whose rows, or all of whose numbers, are in one place."""
    row, b = whole(1, 5), whole(5, 4)
    for width in (5, 1):
        a = cupy.broadcast_to(cupy.asarray(row)[:, :width], (3, 5))
        np.testing.assert_array_equal(gpu.product(a, cupy.asarray(b), cupy.empty((3, 4))).get(), a.get() @ b)


@pytest.mark.parametrize("lay", [transposed, gaps_both_ways, backwards, right_to_left, rows_of_a_taller_one_transposed])
def test_an_answer_that_is_not_in_rows_is_refused(cupy, lay):
    out = lay(cupy.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"gpu.product: the rows of `out` must lie in memory one after the other"):
        gpu.product(cupy.ones((3, 2)), cupy.ones((2, 4)), out)
    assert not out.any()


def test_products_of_whole_numbers_are_those_of_the_cpu(cupy):
    """They are not read as if they were floats."""
    a, b = np.arange(6).reshape(2, 3), np.arange(12).reshape(3, 4)
    y = ops.matmul(Tensor(a, device="gpu"), Tensor(b, device="gpu"))
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y.numpy(), a @ b)


@pytest.mark.parametrize("shapes", [((0, 2), (2, 3)), ((2, 0), (0, 3)), ((2, 3), (3, 0))])
def test_products_of_nothing_are_those_of_the_cpu(device, shapes):
    y = ops.matmul(*(Tensor(np.ones(shape), device=device) for shape in shapes))
    np.testing.assert_array_equal(y.numpy(), np.ones(shapes[0]) @ np.ones(shapes[1]))


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax, ops.dropout, ops.exp])
def test_no_rows_are_no_work(device, op, monkeypatch):
    """On a GPU no kernel is started either: CUDA refuses to start one of no blocks."""
    def start(*args, **more):
        pytest.fail("a kernel was started")

    compiled = gpu.compiled
    monkeypatch.setattr(gpu, "compiled", lambda *args: (start, compiled(*args)[1]))
    y = op(Tensor(np.ones((0, 3)), device=device))
    assert y.shape == (0, 3)
    assert y.device == device


def test_rows_are_aligned(cupy):
    """Whatever their length, they begin at multiples of 32 bytes."""
    for dtype in ("float32", "float64"):
        for columns in (1, 3, 4, 7, 8, 9, 363):
            m = gpu.aligned(5, columns, dtype)
            assert m.shape == (5, columns)
            assert m.dtype == dtype
            assert m.strides[0] % 32 == m.data.ptr % 32 == 0
            assert m.strides[0] - m.itemsize * columns < 32


# TF32

@pytest.fixture
def asked(cupy, monkeypatch):
    """What kind of arithmetic cuBLAS was asked for, product by product. Whatever a test sets is undone."""
    from cupy.cuda import cublas
    how, multiply = [], cublas.gemmEx

    def gemm(*args):
        how.append(args[-2])
        return multiply(*args)

    monkeypatch.setattr(gpu, "_tf32", False)
    monkeypatch.setattr(cublas, "gemmEx", gemm)
    return how


def test_tf32_is_for_products_of_float32_and_only_on_request(cupy, asked):
    from cupy.cuda import cublas
    assert gpu.tf32() is False
    answers, x = {}, np.random.default_rng(0).standard_normal((20, 30))
    for tf32 in (False, True, False):
        assert gpu.tf32(tf32) is tf32
        assert gpu.tf32() is tf32
        for dtype in ("float32", "float64"):
            a = cupy.asarray(x, dtype)
            answers[tf32, dtype] = gpu.product(a, a.T, cupy.empty((20, 20), dtype)).get()
            np.testing.assert_allclose(answers[tf32, dtype], x @ x.T, rtol=0, atol=60 * 2.0 ** -11 if tf32 else 1e-4)
    single, double, fast = cublas.CUBLAS_COMPUTE_32F, cublas.CUBLAS_COMPUTE_64F, cublas.CUBLAS_COMPUTE_32F_FAST_TF32
    assert asked == [single, double, fast, double, single, double]
    assert len({single, double, fast}) == 3
    np.testing.assert_array_equal(answers[True, "float64"], answers[False, "float64"])


def test_every_product_of_a_network_is_asked_for_that_way(cupy, asked):
    """Three for each group of filters and for a linear layer: forward, and two gradients; nobody wants that of the images."""
    from cupy.cuda import cublas
    gpu.tf32(True)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 3)).to("gpu")
    ops.cross_entropy(net(Tensor(cupy.ones((2, 1, 6, 6), "f"))), [0, 2]).backward()
    assert asked == [cublas.CUBLAS_COMPUTE_32F_FAST_TF32] * (2 + 3 * 2 + 3)


# The workspace

def test_portions_cover_every_image_once_and_keep_to_the_bound(monkeypatch):
    monkeypatch.setattr(gpu, "WORKSPACE_BYTES", 1000)
    for N in (1, 2, 7, 10, 128, 129, 1000):
        for bytes_each in (0, 1, 3, 10, 99, 100, 101, 499, 500, 501, 999, 1000, 1001, 5000):
            slices = parallel.portions(N, bytes_each)
            assert [i for n in slices for i in range(n.start, n.stop)] == list(range(N))
            lengths = [n.stop - n.start for n in slices]
            assert max(lengths) * bytes_each <= 1000 or max(lengths) == 1
            assert len(lengths) <= -(-N // max(1, 1000 // max(1, bytes_each)))              # no more of them than it takes
            assert set(lengths[:-1]) <= {max(lengths)}


CONVOLUTIONS = {        # x              w             stride  padding groups
    "conv2":            ((7, 8, 9, 9), (8, 4, 5, 5), (1, 1), (2, 2), 2),
    "conv1":            ((5, 3, 17, 15), (4, 3, 5, 5), (4, 4), (0, 0), 1),
    "uneven":           ((6, 4, 5, 6), (3, 4, 3, 2), (2, 3), (0, 1), 1),
    "three images":     ((3, 4, 5, 6), (4, 1, 3, 3), (1, 1), (1, 1), 4),
}


def convolve(x, w, b, g, *how):
    """y, gx, gw, gb on the GPU, back on the CPU."""
    tensors = [Tensor(a, requires_grad=True, device="gpu") for a in (x, w, b)]
    y = ops.conv2d(*tensors, *how)
    y.backward(Tensor(g, device="gpu"))
    return [to_device(a, "cpu") for a in (y.data, *(t.grad for t in tensors))]


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_in_portions_is_the_same(cupy, case, monkeypatch):
    """In portions of one image, of two, and all at once. With whole numbers the order of additions cannot show."""
    x_shape, w_shape, *how = CONVOLUTIONS[case]
    x, w, b = whole(*x_shape), whole(*w_shape), whole(w_shape[0])
    g = whole(*ops.conv2d(Tensor(x), Tensor(w), None, *how).shape)
    lengths, conv2d = [], sys.modules["minicnn.ops.conv2d"]
    im2col, col2im = conv2d.im2col, conv2d.col2im

    def unfold(images, *rest):
        lengths.append(len(images))
        return im2col(images, *rest)

    def fold(columns, images, *rest):
        lengths.append(len(images))
        return col2im(columns, images, *rest)

    monkeypatch.setattr(conv2d, "im2col", unfold)
    monkeypatch.setattr(conv2d, "col2im", fold)
    each = g[0, 0].size * (w[0].size + len(w)) * g.itemsize
    answers = {}
    for most in (1, 2, len(x)):
        monkeypatch.setattr(gpu, "WORKSPACE_BYTES", most * each + each // 2)
        lengths.clear()
        answers[most] = convolve(x, w, b, g, *how)
        assert max(lengths) == most
        assert sum(lengths) == 3 * how[-1] * len(x)             # forward and two gradients, for each group
    monkeypatch.setattr(gpu, "WORKSPACE_BYTES", 1)              # less than one image needs: one at a time all the same
    answers[0] = convolve(x, w, b, g, *how)
    for most in (0, 1, 2):
        for got, want in zip(answers[most], answers[len(x)], strict=True):
            np.testing.assert_array_equal(got, want)


# There and back

MEMORY = {
    "in rows": lambda a: a,
    "channels last": lambda a: a.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
    "batch innermost": lambda a: a.T.copy().T,
    "with gaps": lambda a: np.repeat(a, 2, axis=3)[..., ::2],
    "mirrored": lambda a: a[..., ::-1].copy()[..., ::-1],
    "upside down, channels last": lambda a: a[:, :, ::-1].transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)[:, :, ::-1],
}


@pytest.mark.parametrize("memory", MEMORY)
def test_an_array_comes_back_as_it_lay_in_memory(cupy, memory):
    a = MEMORY[memory](np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5))
    there = Tensor(a).to("gpu")
    back = there.to("cpu")
    assert (there.device, back.device) == ("gpu", "cpu")
    np.testing.assert_array_equal(back.data, a)
    assert memory_order(there.data) == memory_order(back.data) == memory_order(a)
    for moved in (there.data, back.data):
        assert moved.transpose(memory_order(a)).flags.c_contiguous
    assert there.to("gpu") is there
    assert there.to("gpu:0") is there


@pytest.mark.parametrize("a", [np.array(3.0), np.zeros((0, 3)), np.broadcast_to(np.arange(3.0), (4, 3)), np.ones((1, 1, 1)),
                               np.array([True, False]), np.arange(5, dtype=np.uint8)], ids=lambda a: f"{a.dtype}{a.shape}{a.strides}")
def test_any_array_can_travel(cupy, a):
    there = to_device(a, "gpu")
    back = to_device(there, "cpu")
    assert (there.shape, there.dtype, back.shape, back.dtype) == (a.shape, a.dtype) * 2
    np.testing.assert_array_equal(back, a)


def test_a_moved_tensor_is_a_leaf_and_shares_nothing(cupy):
    x = Tensor(np.ones(3), requires_grad=True)
    there = (x * 2).to("gpu")
    assert there.requires_grad
    assert there.node is None
    there.data[0] = 7
    assert x.data.tolist() == [1, 1, 1]
    assert there.numpy().tolist() == [7, 2, 2]
    assert repr(there) == "Tensor([7. 2. 2.], shape=(3,), float64, gpu, requires_grad=True)"
    assert Tensor(2.5, device="gpu").item() == 2.5
    assert Tensor(np.ones(3), requires_grad=True, device="gpu").device == "gpu"


def test_filters_keep_channels_last_on_their_way(cupy):
    net = nn.Sequential(conv=nn.Conv2d(3, 4, 2))
    before, strides = net.conv.weight.data.copy(), net.conv.weight.data.strides
    net.to("gpu")
    assert net.conv.weight.device == "gpu"
    assert net.conv.weight.data.strides == strides
    net.to("cpu")
    assert net.conv.weight.data.strides == strides
    np.testing.assert_array_equal(net.conv.weight.data, before)


def small_network():
    """With everything that trains, and dropout."""
    mc.seed(0)
    return nn.Sequential(conv=nn.Conv2d(2, 4, 3), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(), drop=nn.Dropout(0.5),
                         fc=nn.Linear(16, 3))


def steps(net, optimizer, many, first=0):
    """Take some steps, each with a batch of its own; the losses."""
    losses = []
    for i in range(first, first + many):
        rng = np.random.default_rng(i)
        x = Tensor(rng.standard_normal((6, 2, 6, 6), np.float32), device=net.fc.weight.device)
        loss = ops.cross_entropy(net(x), rng.integers(0, 3, 6))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def straight_on():
    """Eight steps on the CPU: losses and weights."""
    net = small_network()
    return steps(net, SGD(net.parameters(), 0.1, 0.9, 0.01), 8), net.state_dict()


def alike(got, want):
    np.testing.assert_allclose(got[0], want[0], rtol=1e-4)
    for name, w in want[1].items():
        np.testing.assert_allclose(to_device(got[1][name], "cpu"), w, rtol=0, atol=1e-5 * np.abs(w).max(), err_msg=name)


def test_velocities_follow_a_network_that_moves(cupy):
    """Made on the CPU, moved after three steps and back after six: the steps are those of a network that stayed."""
    net = small_network()
    optimizer = SGD(net.parameters(), 0.1, 0.9, 0.01)
    losses = steps(net, optimizer, 3)
    losses += steps(net.to("gpu"), optimizer, 3, 3)
    assert {device_of(v) for v in optimizer.velocities} == {"gpu"}
    losses += steps(net.to("cpu"), optimizer, 2, 6)
    assert {device_of(v) for v in optimizer.velocities} == {"cpu"}
    alike((losses, net.state_dict()), straight_on())


@pytest.mark.parametrize("here, there", [("cpu", "gpu"), ("gpu", "cpu"), ("gpu", "gpu")])
def test_a_checkpoint_goes_on_on_the_other_device(cupy, here, there, tmp_path):
    net = small_network().to(here)
    optimizer = SGD(net.parameters(), 0.1, 0.9, 0.01)
    losses = steps(net, optimizer, 4)
    mc.save_checkpoint(tmp_path / "a.npz", model=net.state_dict(), optimizer=optimizer.state_dict(), random=mc.random.state())
    saved = mc.load_checkpoint(tmp_path / "a.npz")
    for name, w in net.state_dict().items():
        assert type(saved["model"][name]) is np.ndarray
        assert saved["model"][name].dtype == np.float32
        np.testing.assert_array_equal(saved["model"][name], to_device(w, "cpu"))
    for kept, v in zip(saved["optimizer"]["velocities"], optimizer.velocities, strict=True):
        np.testing.assert_array_equal(kept, to_device(v, "cpu"))

    net = small_network().to(there)
    optimizer = SGD(net.parameters(), 0.3)
    mc.seed(99)
    net.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    mc.random.set_state(saved["random"])
    assert net.fc.weight.device == there
    losses += steps(net, optimizer, 4, 4)
    alike((losses, net.state_dict()), straight_on())


def test_arrays_of_either_device_can_be_loaded(cupy):
    net, other = small_network(), small_network().to("gpu")
    net.fc.weight.data[...] = 3
    other.load_state_dict(net.state_dict())
    assert (other.fc.weight.numpy() == 3).all()
    other.fc.weight.data[...] = 4
    net.load_state_dict(other.state_dict())
    assert (net.fc.weight.data == 4).all()
    assert net.fc.weight.device == "cpu"


def test_the_first_steps_of_training_are_the_same(cupy):
    """Mini on Fashion-MNIST, with dropout: ten losses and the weights after them, on both devices; and not with another seed."""
    def train(device, seed=0):
        mc.seed(seed)
        train = FashionMNIST("train")
        loader = DataLoader(train, 4, Compose(Normalize(train.images.mean(), train.images.std())), shuffle=True, seed=0, device=device)
        net = alexnet("mini", 10, 1)
        mc.init.he(net)
        optimizer = SGD(net.to(device).parameters(), 0.02, 0.9, 0.001)
        losses = []
        for _, (images, labels) in zip(range(10), loader.epoch(0), strict=False):
            loss = ops.cross_entropy(net(Tensor(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, net.state_dict()

    there, here, other = train("gpu"), train("cpu"), train("cpu", seed=1)
    np.testing.assert_allclose(there[0], here[0], rtol=1e-4)
    assert np.abs(np.subtract(other[0], here[0])).max() > 0.05
    for name, w in here[1].items():
        np.testing.assert_allclose(to_device(there[1][name], "cpu"), w, rtol=0, atol=1e-3 * np.abs(w).max(), err_msg=name)


# Devices that differ

@pytest.mark.parametrize("op", [ops.add, ops.matmul, ops.linear])
def test_one_op_has_one_device(cupy, op):
    x, y = Tensor(np.ones((2, 2))), Tensor(np.ones((2, 2)), device="gpu")
    with pytest.raises(ValueError, match=r": its inputs live on different devices \(cpu, gpu\); move them with .to\(device\)"):
        op(x, y)
    with pytest.raises(ValueError, match=r": its inputs live on different devices \(gpu, cpu\); move them with .to\(device\)"):
        op(y, x)


def test_an_array_of_the_other_device_is_not_moved_in_silence(cupy):
    x = Tensor(np.ones(2), device="gpu")
    for act in (lambda: x * np.ones(2), lambda: np.ones(2) * x, lambda: Tensor(np.ones(2)) + x.data):
        with pytest.raises(ValueError, match="different devices"):
            act()
    assert (2 * x + 1 - x / 2).numpy().tolist() == [2.5, 2.5]               # a number is at home everywhere
    assert (x * x.data).device == "gpu"


@pytest.mark.parametrize("logits", ["cpu", "gpu"])
@pytest.mark.parametrize("labels", ["cpu", "gpu"])
def test_labels_may_be_on_either_device(cupy, logits, labels):
    x = Tensor(whole(3, 4), requires_grad=True, device=logits)
    for wrap in (lambda a: a, Tensor):
        loss = ops.cross_entropy(x, wrap(to_device(np.array([3, 0, 1]), labels)))
        assert loss.device == logits
        assert loss.item() == pytest.approx(ops.cross_entropy(Tensor(whole(3, 4)), [3, 0, 1]).item(), rel=1e-12)
    for wrong, place in (([0, 4, 1], 1), ([0, 1, -1], 2)):
        with pytest.raises(ValueError, match=rf"labels\[{place}\] is {wrong[place]}, but there are 4 classes"):
            ops.cross_entropy(x, to_device(np.array(wrong), labels))


def test_a_gpu_that_is_not_there(cupy):
    there = cupy.cuda.runtime.getDeviceCount()
    for act in (lambda: Tensor(np.ones(2), device=f"gpu:{there}"), lambda: small_network().to(f"gpu:{there + 7}")):
        with pytest.raises(RuntimeError, match=rf"device 'gpu:\d+': this machine has {there} GPU\(s\), counted from 0"):
            act()


ON_THE_SECOND = """
import numpy as np
import minicnn as mc
from minicnn import Tensor, nn, ops
from minicnn.backend import device_of, to_device
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
        loss = ops.cross_entropy(net(Tensor(images)), labels)                                   # on top of the gradients there are
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

here, there = train("cpu"), train("gpu:1")
np.testing.assert_allclose(there[0], here[0], rtol=1e-4)
for name, w in here[1].items():
    np.testing.assert_allclose(there[1][name], w, rtol=0, atol=1e-4, err_msg=name)
x = Tensor(np.ones(3), device="gpu:1")
assert x.to("gpu:1") is x and x.to("gpu").device == "gpu" and x.to("gpu").to("gpu:1").numpy().sum() == 3
try:
    x + x.to("gpu")
except ValueError as error:
    assert "(gpu:1, gpu)" in str(error)
print("the same on the second")
"""


def test_a_network_on_the_second_gpu(cupy, tmp_path):
    """While the first is the current one. In a process of its own, which finds two devices where they are emulated."""
    if cupy.cuda.runtime.getDeviceCount() < 2 and "CUDA_ON_CPU" not in os.environ:
        pytest.skip("this machine has one GPU")
    (tmp_path / "second.py").write_text(ON_THE_SECOND)
    done = subprocess.run([*this_python(), tmp_path / "second.py"], capture_output=True, text=True, check=False,
                          env={**os.environ, "CUPY_CPU_DEVICES": "2", "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the same on the second\n"


def test_the_program_on_the_second_gpu(cupy, tmp_path):
    if cupy.cuda.runtime.getDeviceCount() < 2 and "CUDA_ON_CPU" not in os.environ:
        pytest.skip("this machine has one GPU")
    (tmp_path / "second.py").write_text("import sys, train_alexnet\nsys.exit(train_alexnet.main(sys.argv[1:]))")
    done = subprocess.run([*this_python(), tmp_path / "second.py", "--device", "gpu:1", *SMALL, "--steps", "2", "--out", tmp_path / "run"],
                          capture_output=True, text=True, check=False,
                          env={**os.environ, "CUPY_CPU_DEVICES": "2", "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "run")) == 2


def this_python():
    """The words that started this process, up to what it was to run (`-m pytest`): Python, and whatever it was started by."""
    words = sys.orig_argv
    return words[:words.index("-m")] if "-m" in words else [sys.executable]


# Memory

@pytest.fixture
def limit(cupy):
    """A function that lets CuPy take so many bytes more than it has; nothing is limited afterwards."""
    pool = cupy.get_default_memory_pool()

    def set_limit(more):
        pool.free_all_blocks()
        pool.set_limit(size=pool.total_bytes() + more)
        return pool.get_limit()

    before = pool.get_limit()
    yield set_limit
    pool.set_limit(size=before)
    pool.free_all_blocks()


def test_memory_is_counted(cupy):
    cupy.get_default_memory_pool().free_all_blocks()
    before = gpu.memory()
    assert set(before) == {"used", "kept", "free", "total"}
    x = cupy.empty(3_000_000, "uint8")
    during = gpu.memory()
    assert 3_000_000 <= during["used"] - before["used"] < 3_100_000
    del x
    after = gpu.memory()
    assert after["used"] == before["used"]
    assert after["used"] + after["kept"] == during["used"] + during["kept"]             # freed for CuPy, kept from the others
    assert 0 <= after["free"] <= after["total"]


def test_memory_is_no_more_than_cupy_may_take(cupy, limit):
    """CUPY_GPU_MEMORY_LIMIT, or the pool's own limit."""
    bound = limit(50_000_000)
    now = gpu.memory()
    assert now["total"] == bound
    assert now["used"] + now["kept"] + now["free"] == bound


def test_only_the_end_of_a_gpus_memory_is_out_of_memory(cupy, limit):
    bound, kept = limit(1_000_000), cupy.ones(1)
    with pytest.raises(MemoryError) as caught:
        cupy.empty(bound, "uint8")                        # all of it; but something is in use
    assert gpu.is_out_of_memory(caught.value)
    assert not gpu.is_out_of_memory(MemoryError())                      # the computer's own
    assert kept.nbytes


def test_other_errors_are_not_about_a_gpus_memory():
    assert not gpu.is_out_of_memory(MemoryError())
    assert not gpu.is_out_of_memory(RuntimeError("out of memory"))


# The training program

SMALL = ["--limit", "8", "--batch-size", "2", "--no-report"]


@pytest.fixture
def train(cupy, monkeypatch, capsys):
    """train_alexnet.py in this process, without its pictures: (exit code, what it complained). What it sets for all products is undone."""
    import train_alexnet
    monkeypatch.setattr(gpu, "_tf32", False)
    monkeypatch.setattr(train_alexnet, "draw", lambda *args: None)

    def run(*args):
        code = train_alexnet.main([*SMALL, *map(str, args)])
        return code, capsys.readouterr().err

    return run


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines() if '"train"' in line]


@pytest.mark.parametrize("first, then", [("gpu", "cpu"), ("cpu", "gpu")])
def test_a_run_goes_on_on_the_other_device(train, first, then, tmp_path):
    """Three steps here and three there are six on the CPU, up to rounding; each step in the log once."""
    assert train("--device", "cpu", "--steps", 6, "--out", tmp_path / "straight")[0] == 0
    assert train("--device", first, "--steps", 3, "--out", tmp_path / "parts")[0] == 0
    assert train("--device", then, "--steps", 6, "--resume", tmp_path / "parts")[0] == 0
    assert len(losses(tmp_path / "straight")) == 6
    np.testing.assert_allclose(losses(tmp_path / "parts"), losses(tmp_path / "straight"), rtol=1e-4)
    straight, parts = (mc.load_checkpoint(max((tmp_path / name).glob("checkpoint*.npz"))) for name in ("straight", "parts"))
    for name, w in straight["model"].items():
        np.testing.assert_allclose(parts["model"][name], w, rtol=0, atol=1e-4 * np.abs(w).max(), err_msg=name)
    assert parts["random"] == straight["random"]
    code, _ = train("--device", "gpu", "--resume", tmp_path / "parts", "--eval")
    assert code == 0


def test_tf32_is_what_the_command_line_says(train, tmp_path):
    for more, tf32 in (["--tf32"], True), ([], False):
        assert train("--device", "gpu", "--steps", 1, "--out", tmp_path / str(tf32), *more)[0] == 0
        assert gpu.tf32() is tf32
    code, complaint = train("--device", "cpu", "--tf32", "--out", tmp_path / "cpu")
    assert code == 2
    assert complaint == "error: --tf32 is for a GPU; leave it out to train on the CPU\n"
    assert not (tmp_path / "cpu").exists()


def test_a_diverging_run_says_at_which_step(train, tmp_path):
    """Although the losses are read some steps later; those before are in the log."""
    code, complaint = train("--device", "gpu", "--lr", "1e30", "--steps", 8, "--out", tmp_path / "run")
    assert code == 1
    kept = losses(tmp_path / "run")
    assert f"at step {len(kept)}. Try a smaller --lr" in complaint
    assert kept[-1] is None
    assert all(kept[:-1])
    assert not list((tmp_path / "run").glob("checkpoint*"))


def test_losses_are_read_twenty_at_a_time(cupy, tmp_path):
    """To look at a number means to wait for it. What is left at the end is not forgotten."""
    from minicnn.study.log import RunLog

    class Bar:
        def set_postfix_str(self, *args, **more): pass
        def update(self, images): pass

    seen = []
    with RunLog(tmp_path / "log.jsonl", Bar(), "gpu") as log:
        for step in range(1, 46):
            log.train(step, cupy.float32(step / 2) * cupy.ones(()), cupy.asarray([True, False]).mean(), 0.1, 2)
            seen.append(len(losses(tmp_path)))
    assert seen == [0] * 19 + [20] * 20 + [40] * 6
    assert losses(tmp_path) == [step / 2 for step in range(1, 46)]


def test_a_gpu_that_is_full_says_what_would_fit(train, limit, monkeypatch, tmp_path):
    """It names the batch, the memory and a batch that fits; and that one does, training and validation, and not many more do."""
    monkeypatch.setattr(gpu, "WORKSPACE_BYTES", 1 << 20)
    many = ["--device", "gpu", "--steps", 2, "--limit", 20]
    limit(11_500_000)
    code, complaint = train(*many, "--batch-size", 20, "--out", tmp_path / "a")
    assert code == 2
    message = re.search(r"error: not enough memory for a batch of 20 images of 1x28x28 on the GPU: [\d.]+ GB are in use by arrays, "
                        r"[\d.]+ GB kept for reuse, [\d.]+ GB free of [\d.]+ GB; about (\d+) would fit: "
                        r"try --batch-size (\d+)$", complaint.strip())
    assert message, complaint
    fits = int(message[1])
    assert message[1] == message[2]
    assert 2 < fits < 10
    limit(11_500_000)
    code, complaint = train(*many, "--batch-size", fits, "--out", tmp_path / "b")
    assert code == 0, complaint
    limit(11_500_000)
    assert train(*many, "--batch-size", 2 * fits, "--out", tmp_path / "c")[0] == 2


def test_a_gpu_that_is_too_small_says_so(train, limit, tmp_path):
    limit(7_500_000)
    code, complaint = train("--device", "gpu", "--steps", 1, "--batch-size", 8, "--out", tmp_path / "run")
    assert code == 2
    assert complaint.splitlines()[-1].endswith("no batch would fit; use a smaller network (--arch)")
