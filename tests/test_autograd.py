"""The engine: gradients of a tensor used twice add up, memory is freed when it is no longer needed, and misuse is reported by name."""

import gc
import math
import threading
import weakref

import numpy as np
import pytest

import minicnn as mc
from minicnn import Function, Tensor, nn, no_grad, ops, optim
from minicnn.backend import random
from minicnn.backend.arrays import gpu_unavailable_reason
from minicnn.hooks import Hook, active_hooks, hooks_disabled


def leaf(*numbers, dtype=np.float64):
    return Tensor(np.array(numbers, dtype), requires_grad=True)


class Double(Function):
    """y = 2x, saving its output, which its backward does not need."""

    def forward(self, x):
        y = 2 * x
        return y, (y,)

    def backward(self, gy, y):
        return 2 * gy


# Adding up gradients

def test_a_tensor_used_twice_gets_both_gradients():
    x = leaf(3.0)
    (x * x + x).backward([1])
    assert x.grad.tolist() == [7]


def test_a_tensor_used_twice_by_one_op():
    a = Tensor(np.arange(4.0).reshape(2, 2), requires_grad=True)
    (a @ a).backward(np.ones((2, 2)))
    one = np.ones((2, 2))
    assert np.array_equal(a.grad, one @ a.data.T + a.data.T @ one)


def test_a_diamond():
    """Both paths from y back to x meet in one node, which must wait for both: y = (2x)^2 * e^(2x)."""
    x = leaf(0.5)
    middle = Double()(x)
    (middle ** 2 * ops.exp(middle)).backward([1])
    assert x.grad[0] == pytest.approx(2 * (2 * 1 + 1) * math.e)


def test_diamonds_in_a_row():
    """Forty diamonds have 2^40 paths; each node is visited once."""
    x = y = leaf(1.0)
    for _ in range(40):
        y = y + y
    y.backward([1])
    assert x.grad.tolist() == [2.0 ** 40]


def test_a_short_path_and_a_long_path():
    """The gradient along the long path arrives late; the op of x must wait for it."""
    x = leaf(1.0)
    once = Double()(x)
    long_path = once
    for _ in range(5):
        long_path = Double()(long_path)
    (once + long_path).backward([1])
    assert x.grad.tolist() == [2 * (1 + 32)]


def test_ten_thousand_ops_in_a_row():
    """No recursion, neither in backward nor when the graph is freed."""
    x = y = leaf(1.0)
    for _ in range(10_000):
        y = y + 1
    y.backward([5])
    del y
    assert x.grad.tolist() == [5]


def test_adding_gradients_does_not_modify_a_shared_array():
    """u + v passes the same array to both; what is added to it for u must not reach v."""
    for combine in (lambda u, v: (u + v) + ops.exp(u), lambda u, v: ops.exp(u) + (u + v),
                    lambda u, v: (v + u) + ops.exp(u), lambda u, v: ops.exp(u) + (v + u)):
        x, z, g = leaf(0.1, 0.2), leaf(0.3, 0.4), np.array([1.0, 10.0])
        combine(Double()(x), Double()(z)).backward(g)
        np.testing.assert_allclose(x.grad, 2 * g * (1 + np.exp([0.2, 0.4])))
        assert z.grad.tolist() == [2, 20]
        assert g.tolist() == [1, 10]


def test_two_backwards_add_up():
    x = leaf(1.0, 2.0)
    (x * 3).sum().backward()
    (x * x).sum().backward()
    assert x.grad.tolist() == [3 + 2, 3 + 4]


def test_only_leaves_that_require_it_get_a_gradient():
    x, fixed = leaf(1.0), Tensor(np.array([2.0]))
    middle = x * fixed
    (middle * 3).backward([1])
    assert x.grad.tolist() == [6]
    assert fixed.grad is None
    assert middle.grad is None


@pytest.mark.parametrize(("op", "x", "w"), [(ops.conv2d, (1, 1, 3, 3), (1, 1, 3, 3)), (ops.linear, (2, 3), (4, 3)), (ops.mul, (2,), (2,)),
                                            (ops.matmul, (2, 3), (3, 2))])
def test_gradients_that_are_not_needed_are_not_computed(op, x, w):
    """As in the first layer of a network, where the gradient of the images is not needed."""
    x, w, gradients = Tensor(np.ones(x)), Tensor(np.ones(w), requires_grad=True), []

    class Collect(Hook):
        def after_backward(self, function, gy, gxs):
            gradients.append(gxs)

    with Collect():
        op(x, w).sum().backward()
    gx, gw = gradients[-1]
    assert gx is None
    assert np.array_equal(gw, w.grad)


SCALARS = {
    "sum":              lambda x: x.sum(),
    "mean":             lambda x: x.mean(),
    "mean of mean":     lambda x: x.mean(axis=0).mean(),
    "element":          lambda x: x[0, 1],
    "difference":       lambda x: x[0, 0] - x[1, 2],
    "quotient":         lambda x: x.sum() / x[1, 1],
    "square":           lambda x: (-x.sum()) ** 2,
    "exp":              lambda x: ops.exp(x[1, 1]),
    "log":              lambda x: ops.log(x.sum()),
    "tanh":             lambda x: ops.tanh(x.mean()),
    "sigmoid":          lambda x: ops.sigmoid(x.mean()),
    "dropout":          lambda x: ops.dropout(x.mean(), 0.5, rng=random.generator(random.SAMPLES, 3)),   # this draw keeps it
    "loss":             lambda x: ops.cross_entropy(x, [0, 2]),
    "matrix product":   lambda x: (x[:1] @ x[1:].transpose()).reshape(()),
    "transposed":       lambda x: x.sum().transpose(),
}


@pytest.mark.parametrize("scalar", SCALARS)
def test_a_scalar_computed_from_an_array_is_combined_with_it(scalar):
    """As in x - x.mean(): the gradient of the scalar is a sum over the array, a NumPy scalar, and every op must accept it."""
    x = np.array([[1.0, 2.5, 0.7], [1.8, 0.4, 1.1]])
    for use in (lambda x, n: x + n, lambda x, n: n - x, lambda x, n: x * n, lambda x, n: n / x):
        mc.gradcheck(lambda x, use=use: use(x, SCALARS[scalar](x)), x)


# Memory

@pytest.fixture
def no_collector():
    """The garbage collector is off: memory is freed by reference counting alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_graph_is_freed_with_its_last_tensor():
    x, w = Tensor(np.ones((2, 1, 6, 6)), requires_grad=True), Tensor(np.ones((2, 1, 3, 3)), requires_grad=True)
    y = ops.relu(ops.conv2d(x, w))
    loss = ops.max_pool2d(ops.local_response_norm(y), 2).sum()
    refs = [weakref.ref(y), weakref.ref(y.data), weakref.ref(y.node), weakref.ref(loss.node), weakref.ref(loss.node.inputs[0])]
    del y
    assert refs[1]() is not None                # LRN saved it for backward
    del loss
    assert [ref() for ref in refs] == [None] * 5


@pytest.mark.usefixtures("no_collector")
def test_after_backward_a_graph_is_freed_too():
    x = leaf(1.0)
    y = Double()(Double()(x))
    nodes = [weakref.ref(y.node), weakref.ref(y.node.inputs[0])]
    y.backward([1])
    del y
    assert [ref() for ref in nodes] == [None, None]
    assert x.grad.tolist() == [4]


@pytest.mark.usefixtures("no_collector")
def test_backward_frees_each_saved_array_once_it_is_used():
    """While the first op's backward runs, the second op's array is already freed."""
    alive = []

    class Probe(Double):
        def backward(self, gy, y):
            alive.append(saved_by_the_second() is not None)
            return 2 * gy

    x = leaf(1.0)
    second = Double()
    y = second(Probe()(x))
    saved_by_the_second = weakref.ref(second.saved[0])
    root = y * 1
    del y, second
    assert saved_by_the_second() is not None
    root.backward([1])
    assert alive == [False]


@pytest.mark.usefixtures("no_collector")
def test_under_no_grad_nothing_is_recorded_and_nothing_saved():
    x = leaf(1.0)
    with no_grad():
        middle = Double()(x)
        output = ops.exp(middle)
    array = weakref.ref(middle.data)
    del middle
    assert array() is None
    assert not output.requires_grad
    assert output.node is None
    with pytest.raises(RuntimeError, match="backward: this tensor does not depend on any tensor with requires_grad=True$"):
        output.sum().backward()


def test_no_grad_ends_with_its_block_even_after_an_error():
    x = leaf(1.0)
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (x * 2).requires_grad
    with no_grad():
        with no_grad():
            pass
        assert not (x * 2).requires_grad


def test_no_grad_is_a_decorator_too():
    x = leaf(1.0)

    @no_grad()
    def double(x):
        return x * 2

    assert not double(x).requires_grad
    assert (x * 2).requires_grad


def test_no_grad_affects_its_own_thread_only():
    x, seen = leaf(1.0), []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append((x * 2).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]


def test_constants_leave_no_graph():
    y = ops.relu(Tensor(np.ones(3)) * 2)
    assert not y.requires_grad
    assert y.node is None


# Gradients that must not share memory

def shared(*arrays):
    return [(i, j) for i, a in enumerate(arrays) for j, b in enumerate(arrays) if i < j and np.shares_memory(a, b)]


class SameForBoth(Function):
    """y = a + b, whose backward returns one new array for both inputs."""

    def forward(self, a, b):
        return a + b, ()

    def backward(self, gy):
        gx = gy * 1
        return gx, gx


COMBINATIONS = {
    "sum":                  lambda a, b: a + b,
    "difference":           lambda a, b: a - b,
    "one reshaped":         lambda a, b: a.reshape(2, 1).reshape(2) + b,
    "both rearranged":           lambda a, b: a[::-1] + b.reshape(2),
    "rearranged afterwards":     lambda a, b: (a + b).reshape(1, 2).transpose().reshape(2),
    "one used twice":       lambda a, b: a + (b + a),
    "one array for both":   lambda a, b: SameForBoth()(a, b),
}


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_leaf_gradients_share_no_memory(combination):
    """Modifying one gradient in place, as clipping does, changes no other, nor the array that was passed to backward."""
    a, b, g = leaf(1.0, 2.0), leaf(3.0, 4.0), np.array([1.0, 10.0])
    COMBINATIONS[combination](a, b).backward(g)
    assert shared(a.grad, b.grad, g, a.data, b.data) == []
    assert a.grad.flags.writeable
    assert b.grad.flags.writeable


def test_a_leaf_used_several_times_owns_its_gradient():
    """With every aliasing use of it: in one op, in several, and together with another leaf."""
    for combine in (lambda a, b: a + a, lambda a, b: (a + b) + (a + b), lambda a, b: a.reshape(2) + (a.transpose() + b)):
        a, b, g = leaf(1.0, 2.0), leaf(3.0, 4.0), np.array([1.0, 10.0])
        combine(a, b).backward(g)
        assert a.grad.tolist() == [2, 20]
        assert g.tolist() == [1, 10]
        assert shared(*(array for array in (a.grad, b.grad, g) if array is not None)) == []


def test_gradients_of_a_sum_can_be_modified():
    a = leaf(1.0, 2.0)
    a.sum().backward()
    a.grad *= 2
    assert a.grad.tolist() == [2, 2]


def test_a_leaf_as_root_stores_a_copy():
    x, g = leaf(1.0, 2.0), np.array([3.0, 4.0])
    x.backward(g)
    assert x.grad.tolist() == [3, 4]
    assert shared(x.grad, g) == []
    x.backward(g)
    assert x.grad.tolist() == [6, 8]


# The cotangent

def test_backward_of_a_scalar_starts_from_one():
    x = leaf(2.0)
    (x * x).sum().backward()
    assert x.grad.tolist() == [4]
    x = leaf(2.0)
    (x * x).backward()                  # an array of one element counts as a number
    assert x.grad.tolist() == [4]


def test_backward_takes_an_array_a_list_or_a_tensor():
    for g in (np.array([1.0, 2.0]), [1, 2], np.array([1, 2]), np.array([1, 2], np.float32), Tensor(np.array([1.0, 2.0]))):
        x = leaf(3.0, 4.0)
        (x * x).backward(g)
        assert x.grad.tolist() == [6, 16]
        assert x.grad.dtype == np.float64


def test_a_cotangent_of_another_dtype_leaves_float32_alone():
    for g in (np.array([1.0, 2.0]), Tensor(np.array([1.0, 2.0]))):
        x = leaf(3.0, 4.0, dtype=np.float32)
        (x * x).backward(g)
        assert x.grad.dtype == np.float32


def test_backward_without_a_valid_grad_is_refused():
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=r"backward: a tensor of shape \(2,\) needs a grad of that shape; call backward\(grad\)"):
        (x * x).backward()
    with pytest.raises(ValueError, match=r"backward: grad must have the tensor's shape \(2,\), got \(3,\)"):
        (x * x).backward([1, 2, 3])
    with pytest.raises(RuntimeError, match="backward: this tensor does not depend on any tensor with requires_grad=True$"):
        Tensor(np.ones(1)).backward()
    with no_grad(), pytest.raises(RuntimeError, match=r"requires_grad=True \(backward was called under no_grad\)"):
        (x * x).sum().backward()
    assert x.grad is None


def test_backward_twice_through_one_graph_is_refused():
    x = leaf(1.0)
    y = ops.exp(Double()(x))
    y.backward([1])
    with pytest.raises(RuntimeError, match=r"Exp: backward\(\) has already been through this graph .*; run the forward pass again"):
        y.backward([1])
    y = Double()(x)
    y.sum().backward()
    with pytest.raises(RuntimeError, match=r"Double: backward\(\) has already been through this graph"):
        (y * 2).sum().backward()        # a new graph on top of a used one
    y = x + 1                           # an op that saves nothing can be used once as well
    y.backward([1])
    with pytest.raises(RuntimeError, match=r"Add: backward\(\) has already been through this graph"):
        y.backward([1])


# Wrong ops

class Returns(Function):
    """y = a * b, whose backward returns the constructor's argument."""

    def __init__(self, result):
        self.result = result

    def forward(self, a, b):
        return a * b, ()

    def backward(self, gy):
        return self.result


G = np.ones(2)


@pytest.mark.parametrize(("result", "message"), [
    (G, "Returns.backward returned 1 gradients for 2 inputs"),
    ((G, G, G), "Returns.backward returned 3 gradients for 2 inputs"),
    ((G, np.ones(3)), r"Returns.backward returned a gradient of shape \(3,\) and dtype float64 for input 1 of shape \(2,\) and"),
    ((np.ones((1, 2)), G), r"Returns.backward returned a gradient of shape \(1, 2\) and dtype float64 for input 0 of shape \(2,\)"),
    ((G, G.astype(np.float32)), r"Returns.backward returned a gradient of shape \(2,\) and dtype float32 for input 1 of shape \(2,\) and"),
    ((G, None), "Returns.backward returned no gradient for input 1, which needs one"),
    (None, "Returns.backward returned 1 gradients for 2 inputs"),
])
def test_a_backward_that_returns_wrong_gradients_is_named(result, message):
    y = Returns(result)(leaf(1.0, 2.0), leaf(3.0, 4.0))
    with pytest.raises(RuntimeError, match=message):
        y.backward([1, 1])


def test_none_is_valid_where_no_gradient_is_needed():
    a = leaf(1.0, 2.0)
    Returns((G, None))(a, Tensor(np.ones(2))).backward([1, 1])
    assert a.grad.tolist() == [1, 1]


def test_a_missing_forward_or_backward_is_named():
    class Nothing(Function):
        pass

    class OnlyForward(Function):
        def forward(self, x):
            return x, ()

    with pytest.raises(NotImplementedError, match="Nothing has no forward"):
        Nothing()(leaf(1.0))
    with pytest.raises(NotImplementedError, match="OnlyForward has no backward"):
        OnlyForward()(leaf(1.0)).backward()


def test_an_instance_is_used_once():
    double = Double()
    double(leaf(1.0))
    with pytest.raises(RuntimeError, match="Double: an instance of a Function is one node of one graph; make a new one for each call"):
        double(leaf(1.0))


def test_mixed_dtypes_are_refused():
    with pytest.raises(TypeError, match=r"Add: its inputs have different dtypes \(float64, float32\); convert one, for instance Tensor"):
        leaf(1.0) + leaf(1.0, dtype=np.float32)


# Hooks

class Recorder(Hook):
    """Records every call."""

    def __init__(self):
        self.lines = []

    def before_module(self, module, inputs):
        self.lines.append(f"{type(module).__name__} {inputs[0].shape}")

    def after_module(self, module, inputs, output):
        self.lines.append(f"{type(module).__name__} gave {output.shape}")

    def before_forward(self, function, arrays):
        self.lines.append(f"forward {function} of {len(arrays)}")

    def after_forward(self, function, arrays, y, saved):
        self.lines.append(f"{function} saved {len(saved)}")

    def before_backward(self, function, gy):
        self.lines.append(f"backward {function}")

    def after_backward(self, function, gy, gxs):
        self.lines.append(f"{function} returned {len(gxs)}")


def test_hooks_are_called_in_order():
    x = leaf([1.0, -1.0])
    with Recorder() as recorder:
        nn.ReLU()(x * 2).sum().backward()
    assert recorder.lines == [
        "forward Mul of 2", "Mul saved 2", "ReLU (1, 2)", "forward ReLU of 1", "ReLU saved 1", "ReLU gave (1, 2)",
        "forward Sum of 1", "Sum saved 0",
        "backward Sum", "Sum returned 1", "backward ReLU", "ReLU returned 1", "backward Mul", "Mul returned 2"]


def test_hooks_are_removed_after_their_block():
    recorder = Recorder()
    with pytest.raises(KeyError), recorder, Recorder():
        raise KeyError
    assert active_hooks() == []
    leaf(1.0) + 1
    assert recorder.lines == []
    with recorder:
        with Recorder():
            pass
        assert active_hooks() == [recorder]


def test_under_no_grad_hooks_get_no_saved_arrays():
    with no_grad(), Recorder() as recorder:
        ops.exp(leaf(1.0))
    assert recorder.lines == ["forward Exp of 1", "Exp saved 0"]


# Tensors

def test_integers_have_no_gradient():
    assert Tensor(np.arange(3)).dtype == np.int64
    with pytest.raises(TypeError, match=r"Tensor: only float32 and float64 have gradients, got int64; use array.astype\('float32'\)"):
        Tensor(np.arange(3), requires_grad=True)
    with pytest.raises(TypeError, match="only float32 and float64 have gradients, got float16"):
        Tensor(np.ones(3, np.float16), requires_grad=True)


@pytest.mark.parametrize(("value", "dtype"), [
    (1.5, np.float32), ([[1, 2.5]], np.float32), (3, np.int64), ([1, 2], np.int64), (np.float64(1.5), np.float64), (np.ones(2), np.float64),
    (np.ones(2, np.float32), np.float32), (True, np.bool_),
])
def test_dtype_of_a_new_tensor(value, dtype):
    assert Tensor(value).dtype == dtype
    assert np.array_equal(Tensor(value).data, value)


def test_an_array_is_not_copied():
    array = np.zeros((2, 3)).T
    assert Tensor(array).data is array
    assert Tensor(array).numpy() is array


def test_invalid_contents_are_refused():
    with pytest.raises(TypeError, match=r"Tensor\(tensor\): pass its .data, or use .detach\(\)"):
        Tensor(leaf(1.0))
    with pytest.raises(TypeError, match="Tensor: array must hold numbers, got dtype <U3"):
        Tensor("abc")
    with pytest.raises(TypeError, match="Tensor: array must hold numbers, got dtype complex128"):
        Tensor(np.ones(2, complex))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_and_numbers_on_either_side(dtype):
    """A number, NumPy's scalars too, is converted to the tensor's dtype; an array keeps its own."""
    a, b = np.array([1, 2], dtype), np.array([4, 8], dtype)
    for other in (b, 4, 4.0, np.float64(4), np.float32(4), np.int64(4), True):
        x = Tensor(a, requires_grad=True)
        for y, expected in ((x + other, a + other), (other + x, other + a), (x - other, a - other * 1), (other - x, other * 1 - a),
                            (x * other, a * other), (other * x, other * a), (x / other, a / other), (other / x, other / a)):
            assert isinstance(y, Tensor)
            assert y.dtype == dtype
            assert y.requires_grad
            np.testing.assert_allclose(y.data, expected, rtol=1e-6)
    m = np.eye(2, dtype=dtype) * 3
    assert np.array_equal((m @ Tensor(m)).data, m @ m)
    assert np.array_equal((Tensor(m) @ m).data, m @ m)


def test_detach_leaves_the_graph_and_keeps_the_array():
    x = leaf(1.0, 2.0)
    y = x * 2
    cut = y.detach()
    assert cut.data is y.data
    assert not cut.requires_grad
    (cut * x).sum().backward()
    assert x.grad.tolist() == [2, 4]            # as if 2x were a constant


def test_item_and_len():
    assert Tensor(np.array([[2.5]])).item() == 2.5
    assert type(Tensor(np.float32(2.5)).item()) is float
    with pytest.raises(ValueError, match=r"item: the tensor must hold one number, got 2 \(shape \(2,\)\)"):
        leaf(1.0, 2.0).item()
    assert len(leaf(1.0, 2.0, 3.0)) == 3


def test_truth_value_is_refused():
    with pytest.raises(TypeError, match=r"the truth value of a Tensor is not defined; compare .data or .item\(\)"):
        bool(leaf(1.0))


def test_repr_names_the_op_that_computed_it():
    x = leaf(1.0)
    assert repr(x) == "Tensor([1.], shape=(1,), float64, cpu, requires_grad=True)"
    assert repr(x * 2) == "Tensor([2.], shape=(1,), float64, cpu, made by Mul)"
    assert repr(x.detach()) == "Tensor([1.], shape=(1,), float64, cpu)"


def test_device_names():
    x = leaf(1.0)
    assert x.device == "cpu"
    assert x.to("cpu") is x
    for name in ("cuda", "GPU", "gpu:", "gpu:x", "", 0):
        with pytest.raises(ValueError, match='device must be "cpu", "gpu" or "gpu:1", got '):
            x.to(name)
        with pytest.raises(ValueError, match='device must be "cpu", "gpu" or "gpu:1", got '):
            Tensor(np.ones(1), device=name)


@pytest.mark.skipif(gpu_unavailable_reason() is None, reason="there is a GPU")
def test_without_a_gpu_the_error_says_what_to_do():
    for act in (lambda: leaf(1.0).to("gpu"), lambda: Tensor(np.ones(2), device="gpu:1"), lambda: nn.Linear(2, 2).to("gpu")):
        with pytest.raises(RuntimeError, match=r"^no GPU: CuPy .*(Run|Install)"):
            act()
    assert not mc.has_gpu()


# A step of training

def test_numpys_global_generator_is_left_alone():
    before = np.random.get_state()
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 3))
    step = optim.SGD(model.parameters(), lr=0.1)
    ops.cross_entropy(model(Tensor(np.ones((2, 1, 4, 4), np.float32))), [0, 2]).backward()
    step.step()
    mc.gradcheck(ops.tanh, np.ones(2))
    after = np.random.get_state()
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


@pytest.mark.parametrize("result", ["x * x", "(x * x, x)", "(x * x,)", "(x * x, (x,), 1)"])
def test_a_forward_that_does_not_return_output_and_saved_is_refused(result):
    class Wrong(mc.Function):
        def forward(self, x):
            return eval(result)

    with pytest.raises(TypeError, match=r"Wrong.forward must return \(output, saved\), saved a tuple of what backward needs"):
        Wrong()(Tensor(np.ones(2), True))


@pytest.mark.parametrize("call", [lambda a: mc.ops.exp(a), lambda a: mc.ops.conv2d(Tensor(a), a), lambda a: mc.ops.relu(a)])
def test_a_plain_array_as_input_is_refused(call):
    with pytest.raises(TypeError, match=r"write minicnn\.Tensor\(x\)"):
        call(np.ones((1, 1, 2, 2), np.float32))


def test_the_largest_seeds_differ():
    from minicnn.backend import random
    draws = {random.generator(random.SHUFFLE, seed=s).integers(2 ** 60) for s in (0, 2 ** 63, 2 ** 63 + 1, 2 ** 63 + 1000, 2 ** 64 - 1)}
    assert len(draws) == 5


# Arrays that are modified between forward and backward

@pytest.mark.parametrize("modify", [
    lambda x: np.add(x, 1, out=x), lambda x: x.fill(0), lambda x: np.copyto(x, x[::-1].copy()),
])
@pytest.mark.parametrize("shape", [(3,), (40, 50), (2, 3, 20, 20)])
def test_an_array_modified_before_backward_is_detected_and_named(modify, shape):
    x = Tensor(-np.arange(float(np.prod(shape))).reshape(shape), requires_grad=True)
    y = ops.exp(x * x * 1e-9).sum()
    modify(x.data)
    with pytest.raises(RuntimeError, match=r"^Mul: saved array \d, of shape .* was modified between forward and backward.*"
                                           r"make a new array instead"):
        y.backward()


def test_an_optimiser_step_before_backward_is_detected():
    net = mc.nn.Sequential(mc.nn.Linear(4, 300), mc.nn.ReLU(), mc.nn.Linear(300, 2))
    optimizer = mc.optim.SGD(net.parameters(), 0.1)
    first, second = (net(Tensor(np.ones((3, 4), np.float32))).sum() for _ in range(2))
    first.backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"^Linear: saved array 1, of shape \(2, 300\).*optimizer.step\(\)"):
        second.backward()


def test_in_a_small_array_every_modified_element_is_detected():
    for i in range(200):
        x = Tensor(np.ones(200), requires_grad=True)
        y = (x * x).sum()
        x.data[i] = 2
        with pytest.raises(RuntimeError, match="was modified between forward and backward"):
            y.backward()


def test_arrays_that_backward_does_not_need_may_be_modified():
    x = Tensor(np.ones((3, 4)), requires_grad=True)
    y = ops.relu(x).sum() + (x + 1).sum()           # relu saves its output, a sum nothing
    x.data += 5
    y.backward()
    np.testing.assert_array_equal(x.grad, np.full((3, 4), 2.0))


def test_hooks_can_be_disabled():
    class Count(Hook):
        seen = 0

        def after_forward(self, function, arrays, y, saved):
            self.seen += 1

    with Count() as outer:
        with pytest.raises(KeyError), hooks_disabled():
            ops.exp(Tensor([1.0]))
            with Count() as inner:
                ops.exp(Tensor([1.0]))
            raise KeyError
        assert (outer.seen, inner.seen) == (0, 1)
        ops.exp(Tensor([1.0]))
        assert outer.seen == 1
    assert active_hooks() == []
