"""At the full size of AlexNet's layers: <A x, g> = <x, A^T g>, for every op that is linear.

If forward is a matrix A, backward must be its transpose, and then both products are the same number. There are no finite
differences, so little is lost to rounding, and it takes one forward and one backward: the layers have their full size, where the
gradient check would take hours. If all values are integers, the two sides are bitwise equal.

That A itself is the correct matrix is checked at some positions of the output, which are computed by the formula: with both,
backward is correct everywhere.
"""

import numpy as np
import pytest

from minicnn import Tensor, nn
from minicnn.examples import alexnet
from minicnn.hooks import Hook
from minicnn.nn import init
from minicnn.ops.conv2d.im2col import col2im, im2col
from minicnn.ops.conv2d.op import Conv2d
from minicnn.ops.max_pool2d import MaxPool2d

N = 2
LAYERS = {      # input size             filters          stride padding groups
    "conv1":                (3, 227, 227, 96, 3, 11, 11, 4, 0, 1),
    "conv2, one tower":     (96, 27, 27, 256, 96, 5, 5, 1, 2, 1),
    "conv3":                (256, 13, 13, 384, 256, 3, 3, 1, 1, 1),
    "conv4, one tower":     (384, 13, 13, 384, 384, 3, 3, 1, 1, 1),
    "conv5, one tower":     (384, 13, 13, 256, 384, 3, 3, 1, 1, 1),
    "conv2, two groups":    (96, 27, 27, 256, 48, 5, 5, 1, 2, 2),
    "conv4, two groups":    (384, 13, 13, 384, 192, 3, 3, 1, 1, 2),
    "conv5, two groups":    (384, 13, 13, 256, 192, 3, 3, 1, 1, 2),
}
POOLS = {       # input size          kernel stride padding ceil_mode
    "pool1":                (96, 55, 55, 3, 2, 0, False),
    "pool2":                (256, 27, 27, 3, 2, 0, False),
    "pool5":                (256, 13, 13, 3, 2, 0, False),
    "pool2, padded":        (256, 27, 27, 3, 2, 1, False),
    "pool1, rounded up":    (96, 54, 54, 3, 2, 0, True),
}
TOLERANCE = {"float64": 1e-15, "float32": 1e-7}         # as a fraction of |Ax| * |g|, to which rounding errors are proportional
ROUNDING = {"float64": 1e-13, "float32": 2e-5}          # of one output, as a fraction of the largest |y|


def images(rng, C, H, W, dtype="float64"):
    """(N, C, H, W), with channels last in memory."""
    return rng.standard_normal((N, H, W, C), dtype).transpose(0, 3, 1, 2)


def inner(a, b):
    """<a, b>, summed in float64."""
    return float(np.sum(a * b, dtype=np.float64))


def both_ways(conv, x, w, b, g):
    """<conv(x), g>; the same by the adjoint in x, and in w, from the gradients of backward; and |conv(x)| * |g|, the scale of rounding."""
    tensors = [Tensor(a, requires_grad=True) for a in (x, w, b)]
    y = conv(*tensors)
    y.backward(g)
    gx, gw, gb = (t.grad for t in tensors)
    bias = inner(b, gb)
    return inner(y.data, g), inner(x, gx) + bias, inner(w, gw) + bias, np.linalg.norm(y.data) * np.linalg.norm(g)


def formula(x, w, b, S, P, G, positions):
    """y at these positions (n, o, i, j), in float64."""
    x = np.pad(x, ((0, 0), (0, 0), (P, P), (P, P)))
    O, CG, KH, KW = w.shape
    channels = [slice(o // (O // G) * CG, o // (O // G) * CG + CG) for _, o, _, _ in positions]
    return np.array([b[o] + inner(w[o], x[n, c, S * i:S * i + KH, S * j:S * j + KW])
                     for c, (n, o, i, j) in zip(channels, positions, strict=True)])


class LastRowLost(Conv2d):
    "The last row of pixels gets no gradient."
    def backward(self, gy, *saved):
        gx, *others = super().backward(gy, *saved)
        gx[:, :, -1] = 0
        return gx, *others


class LastColumnOfFiltersLost(Conv2d):
    "The last column of every filter gets no gradient."
    def backward(self, gy, *saved):
        gx, gw, gb = super().backward(gy, *saved)
        gw[..., -1] = 0
        return gx, gw, gb


def layer_arrays(layer, dtype):
    """x, w, b and a cotangent."""
    C, H, W, O, CG, KH, KW, S, P, _ = LAYERS[layer]
    rng = np.random.default_rng(0)
    return (images(rng, C, H, W, dtype), rng.standard_normal((O, CG, KH, KW), dtype), rng.standard_normal(O, dtype),
            images(rng, O, (H + 2 * P - KH) // S + 1, (W + 2 * P - KW) // S + 1, dtype))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layer", LAYERS)
def test_conv2d_forward(layer, dtype):
    """At random positions, on the edges and in the corners."""
    S, P, G = LAYERS[layer][-3:]
    x, w, b, g = layer_arrays(layer, dtype)
    y = Conv2d((S, S), (P, P), G)(Tensor(x), Tensor(w), Tensor(b)).data
    positions = np.random.default_rng(1).integers(0, y.shape, (300, 4))
    positions[:200, 2] = [0, -1] * 100
    positions[100:, 3] = [0, 0, -1, -1] * 50
    positions %= y.shape
    expected = formula(x, w, b, S, P, G, positions)
    assert y.shape == g.shape
    assert np.abs(y[tuple(positions.T)] - expected).max() <= ROUNDING[dtype] * np.abs(expected).max()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layer", LAYERS)
def test_conv2d_backward(layer, dtype):
    S, P, G = LAYERS[layer][-3:]
    x, w, b, g = layer_arrays(layer, dtype)
    y_g, x_gx, w_gw, size = both_ways(Conv2d((S, S), (P, P), G), x, w, b, g)
    assert abs(y_g - x_gx) <= TOLERANCE[dtype] * size, "in x"
    assert abs(y_g - w_gw) <= TOLERANCE[dtype] * size, "in w"


def test_a_wrong_adjoint_is_detected():
    """conv5 without the gradient of a row or a column: far outside the tolerance, in float32 too."""
    x, w, b, g = layer_arrays("conv5, two groups", "float32")
    y_g, x_gx, _, size = both_ways(LastRowLost((1, 1), (1, 1), 2), x, w, b, g)
    assert abs(y_g - x_gx) > 100 * TOLERANCE["float32"] * size
    y_g, _, w_gw, size = both_ways(LastColumnOfFiltersLost((1, 1), (1, 1), 2), x, w, b, g)
    assert abs(y_g - w_gw) > 100 * TOLERANCE["float32"] * size


@pytest.mark.parametrize("pool", POOLS)
def test_max_pool2d(pool):
    """For a given argmax, pooling only copies elements: with integers the two sides are equal."""
    C, H, W, K, S, P, ceil_mode = POOLS[pool]
    rng = np.random.default_rng(0)
    x = Tensor(np.round(100 * images(rng, C, H, W)), requires_grad=True)
    y = MaxPool2d((K, K), (S, S), (P, P), ceil_mode)(x)
    g = np.round(10 * rng.standard_normal(y.shape))
    y.backward(g)
    assert inner(y.data, g) == inner(x.data, x.grad) != 0


@pytest.mark.parametrize("layer", ["conv1", "conv2, two groups", "conv5, two groups"])
def test_im2col(layer):
    C, H, W, _, _, KH, KW, S, P, _ = LAYERS[layer]
    rng = np.random.default_rng(0)
    x = np.round(10 * rng.standard_normal((N, H + 2 * P, W + 2 * P, C)))
    columns = im2col(x, (KH, KW), (S, S), (0, 0))
    g = np.round(10 * rng.standard_normal(columns.shape))
    back = np.empty_like(x)
    col2im(g, back, (KH, KW), (S, S), (0, 0))
    assert inner(columns, g) == inner(x, back) != 0


@pytest.mark.parametrize(("variant", "convolutions"), [
    ("one-tower", ["conv1", "conv2, one tower", "conv3", "conv4, one tower", "conv5, one tower"]),
    ("paper", ["conv1", "conv2, two groups", "conv3", "conv4, two groups", "conv5, two groups"]),
])
def test_these_are_the_layers_of_alexnet(variant, convolutions, monkeypatch):
    """The table above is what examples/alexnet.py builds."""
    class Shapes(Hook):
        def __init__(self):
            self.seen = []

        def before_forward(self, function, arrays):
            if isinstance(function, Conv2d):
                x, w, _ = arrays
                self.seen.append((*x.shape[1:], *w.shape, function.stride[0], function.padding[0], function.groups))

    monkeypatch.setattr(init, "normal_", lambda p, std: p.data.fill(0))          # the values of 60 million weights do not matter here
    network = alexnet.alexnet(variant, num_classes=1)
    features = nn.Sequential(*list(network)[:network.names.index("flatten")])
    with Shapes() as shapes:
        features(Tensor(np.zeros((1, 3, 227, 227), np.float32)))
    assert shapes.seen == [LAYERS[name] for name in convolutions]
