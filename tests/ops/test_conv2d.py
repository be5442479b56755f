"""Convolution: strides, paddings, groups, and windows from one pixel to the whole image."""

import numpy as np
import pytest
from check import Remembers, check_each_shows, check_op, values

from minicnn import Tensor, ops
from minicnn.ops.conv2d import Conv2d

CASES = {                               # stride   padding groups               x             w             b
    "3x3":                              (((1, 1), (0, 0), 1), values((2, 2, 3, 4), (2, 2, 3, 3), (2,))),
    "no bias":                          (((1, 1), (0, 0), 1), values((2, 2, 3, 3), (3, 2, 2, 2))),
    "stride 2":                         (((2, 2), (0, 0), 1), values((2, 1, 5, 5), (2, 1, 3, 3), (2,))),
    "stride 2, a column left over":     (((2, 2), (1, 1), 1), values((1, 2, 3, 4), (2, 2, 3, 3), (2,))),
    "another stride each way":          (((1, 3), (0, 0), 1), values((2, 1, 3, 7), (2, 1, 2, 2), (2,))),
    "gaps between the windows":         (((3, 3), (1, 1), 1), values((2, 1, 4, 6), (2, 1, 2, 2), (2,))),
    "padding":                          (((1, 1), (1, 1), 1), values((2, 2, 2, 3), (2, 2, 3, 3), (2,))),
    "another padding each way":         (((2, 1), (0, 2), 1), values((2, 1, 4, 3), (2, 1, 2, 4), (2,))),
    "a window as large as the image":   (((1, 1), (0, 0), 1), values((2, 2, 2, 3), (3, 2, 2, 3), (3,))),
    "a window as large as the padding": (((1, 1), (2, 2), 1), values((2, 1, 1, 2), (2, 1, 2, 2), (2,))),
    "1x1":                              (((1, 1), (0, 0), 1), values((2, 3, 2, 2), (2, 3, 1, 1), (2,))),
    "1x1 with stride 2":                (((2, 2), (0, 0), 1), values((2, 2, 3, 3), (2, 2, 1, 1), (2,))),
    "1x1 with two groups":              (((1, 1), (0, 0), 2), values((2, 4, 2, 2), (2, 2, 1, 1), (2,))),
    "two groups":                       (((1, 1), (1, 1), 2), values((1, 4, 2, 3), (4, 2, 3, 3), (4,))),
    "three groups":                     (((2, 1), (0, 0), 3), values((2, 3, 4, 2), (6, 1, 2, 2), (6,))),
    "each channel a group":             (((1, 1), (0, 0), 4), values((2, 4, 2, 3), (4, 1, 2, 2), (4,))),
    "one image, one filter":            (((1, 1), (1, 1), 1), values((1, 2, 3, 3), (1, 2, 3, 3), (1,))),
    "as conv1 of AlexNet, smaller":     (((4, 4), (0, 0), 1), values((1, 2, 9, 5), (1, 2, 5, 5), (1,))),
}


def naive(args, x, w, b=None):
    """y[n, o, i, j] = b[o] + sum w[o, c, p, q] * x[n, c, S*i + p - P, S*j + q - P], pixel by pixel."""
    (SH, SW), (PH, PW), G = args
    N, _, H, W = x.shape
    O, CG, KH, KW = w.shape
    OH, OW = (H + 2 * PH - KH) // SH + 1, (W + 2 * PW - KW) // SW + 1
    y = np.zeros((N, O, OH, OW))
    for n, o, i, j in np.ndindex(*y.shape):
        total = 0.0 if b is None else b[o]
        first = o // (O // G) * CG                          # the first channel that the group of filter o sees
        for c, p, q in np.ndindex(CG, KH, KW):
            row, column = SH * i + p - PH, SW * j + q - PW
            if 0 <= row < H and 0 <= column < W:
                total += w[o, c, p, q] * x[n, first + c, row, column]
        y[n, o, i, j] = total
    return y


def spread(gy, w, shape, stride, padding, groups, add=True):
    """What every window sends back to its pixels, added up; or, not to `add`, the last window's only."""
    (SH, SW), (PH, PW) = stride, padding
    N, C, H, W = shape
    O, CG, KH, KW = w.shape
    parts = gy.reshape(N, groups, O // groups, *gy.shape[2:])
    filters = w.reshape(groups, O // groups, CG, KH, KW)
    gx = np.zeros(shape)
    for i, j, p, q in np.ndindex(*gy.shape[2:], KH, KW):
        row, column = SH * i + p - PH, SW * j + q - PW
        if 0 <= row < H and 0 <= column < W:
            sent = np.einsum("ngo,goc->ngc", parts[..., i, j], filters[..., p, q]).reshape(N, C)
            gx[..., row, column] = gx[..., row, column] + sent if add else sent
    return gx


class WrongConv(Remembers, Conv2d):
    """Backward as it should be; each mistake spoils one gradient."""

    def backward(self, gy, *saved):
        gx, gw, *gb = super().backward(gy, *saved)
        x, w, *_ = self.arrays
        return self.wrong_gx(gx, gy, x, w), self.wrong_gw(gw, gy), *(self.wrong_gb(g, gy) for g in gb)

    def wrong_gx(self, gx, gy, x, w):
        return gx

    def wrong_gw(self, gw, gy):
        return gw

    def wrong_gb(self, gb, gy):
        return gb


class PaddingNotCropped(WrongConv):
    "The gradient of the padded image is cut to size at its far edges only."
    def wrong_gx(self, gx, gy, x, w):
        (PH, PW), (H, W) = self.padding, gx.shape[2:]
        return np.pad(gx, ((0, 0), (0, 0), (PH, 0), (PW, 0)))[:, :, :H, :W]

    @staticmethod
    def shows(args, x, w, *b):
        return args[1] != (0, 0)


class StrideIgnored(WrongConv):
    "The windows are put back one pixel apart, whatever the stride."
    def wrong_gx(self, gx, gy, x, w):
        return spread(gy, w, x.shape, (1, 1), self.padding, self.groups)

    @staticmethod
    def shows(args, x, w, *b):
        return args[0] != (1, 1)


class KernelTurned(WrongConv):
    "The kernel is turned by 180 degrees, because the convolution of mathematics does that."
    def wrong_gx(self, gx, gy, x, w):
        return spread(gy, w[:, :, ::-1, ::-1], x.shape, self.stride, self.padding, self.groups)

    @staticmethod
    def shows(args, x, w, *b):
        return w.shape[2:] != (1, 1)


class OverlapOverwritten(WrongConv):
    "A pixel under several windows keeps what the last one sent: = where += belongs."
    def wrong_gx(self, gx, gy, x, w):
        return spread(gy, w, x.shape, self.stride, self.padding, self.groups, add=False)

    @staticmethod
    def shows(args, x, w, *b):          # the middle of the image lies under several windows
        (stride, padding, _), kernel, size = args, w.shape[2:], x.shape[2:]
        return any(S < K and (n + 2 * P - K) // S > 0 for S, P, K, n in zip(stride, padding, kernel, size, strict=True))


class GroupsMixedUp(WrongConv):
    "Each group's gradient goes to the channels of the next group."
    def wrong_gx(self, gx, gy, x, w):
        return np.roll(gx, x.shape[1] // self.groups, axis=1)

    @staticmethod
    def shows(args, x, w, *b):
        return args[2] > 1


class FiltersOfAnotherGroup(WrongConv):
    "The weight gradient of each group is added to the filters of the next group."
    def wrong_gw(self, gw, gy):
        return np.roll(gw, gw.shape[0] // self.groups, axis=0)

    @staticmethod
    def shows(args, x, w, *b):
        return args[2] > 1


class WeightGradientAveraged(WrongConv):
    "The weight gradient is the mean over the batch; but the loss has averaged already."
    def wrong_gw(self, gw, gy):
        return gw / len(gy)

    @staticmethod
    def shows(args, x, w, *b):
        return len(x) > 1


class BiasGradientOfOnePlace(WrongConv):
    "The bias gradient adds up the images and forgets that a filter answers at many places."
    def wrong_gb(self, gb, gy):
        return gy[:, :, 0, 0].sum(axis=0)

    @staticmethod
    def shows(args, x, w, *b):
        return len(b) > 0 and naive(args, x, w).shape[2:] != (1, 1)


class BiasGradientAveraged(WrongConv):
    "The bias gradient is a mean over images and places instead of a sum."
    def wrong_gb(self, gb, gy):
        return gy.mean(axis=(0, 2, 3))

    @staticmethod
    def shows(args, x, w, *b):
        return len(b) > 0 and naive(args, x, w)[:, 0].size > 1


class BiasGradientOverFilters(WrongConv):
    "The bias gradient is summed over the filters too, and every filter gets all of it."
    def wrong_gb(self, gb, gy):
        return np.full_like(gb, gy.sum())

    @staticmethod
    def shows(args, x, w, *b):
        return len(b) > 0 and len(w) > 1


WRONG = [PaddingNotCropped, StrideIgnored, KernelTurned, OverlapOverwritten, GroupsMixedUp, FiltersOfAnotherGroup,
         WeightGradientAveraged, BiasGradientOfOnePlace, BiasGradientAveraged, BiasGradientOverFilters]


@pytest.mark.parametrize("case", CASES)
def test_conv2d(case, device):
    check_op(Conv2d, *CASES[case], naive, WRONG, device)


def test_each_mistake_shows():
    check_each_shows(WRONG, CASES)


def test_the_loops_that_mistakes_use_are_right_themselves():
    """Unspoiled, `spread` is the gradient: so what is refused in StrideIgnored is its stride, not its loops."""
    for args, (x, w, *_) in CASES.values():
        x, w = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
        y = Conv2d(*args)(x, w)
        gy = np.random.default_rng(0).standard_normal(y.shape)
        y.backward(gy)
        np.testing.assert_allclose(spread(gy, w.data, x.shape, *args), x.grad, atol=1e-12)


def test_an_int_is_the_same_both_ways():
    x, w = (Tensor(a) for a in values((1, 2, 7, 7), (2, 1, 3, 3)))
    pairs = ops.conv2d(x, w, stride=(2, 2), padding=(1, 1), groups=2)
    assert np.array_equal(ops.conv2d(x, w, None, 2, 1, 2).data, pairs.data)


def test_answer_has_channels_last_in_memory():
    x, w = (Tensor(a) for a in values((2, 3, 5, 5), (4, 3, 3, 3)))
    assert ops.conv2d(x, w).data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_multiply_adds():
    """Each of the 2*3*2*2 outputs is a sum of 2*3*3 products."""
    x, w, b = (Tensor(a) for a in values((2, 4, 4, 4), (4, 2, 3, 3), (4,)))
    conv = Conv2d((1, 1), (0, 0), 2)
    y = conv(x, w, b)
    assert conv.multiply_adds(y.data, x.data, w.data, b.data) == (2 * 4 * 2 * 2) * (2 * 3 * 3)


X, W, B = (1, 4, 5, 5), (6, 4, 3, 3), (6,)


@pytest.mark.parametrize(("shapes", "options", "message"), [
    (((4, 5, 5), W), {}, r"conv2d: x is \(N, C, H, W\), but this x has shape \(4, 5, 5\); for one image use x.reshape\(1, \*x.shape\)"),
    (((4, 5), W), {}, r"conv2d: x is \(N, C, H, W\), but this x has shape \(4, 5\)$"),
    (((0, 4, 5, 5), W), {}, r"conv2d: x is empty, its shape is \(0, 4, 5, 5\)"),
    ((X, (6, 4, 3)), {}, r"conv2d: w is \(O, C/groups, KH, KW\), but this w has shape \(6, 4, 3\)"),
    ((X, (6, 4, 0, 3)), {}, r"conv2d: w is \(O, C/groups, KH, KW\), but this w has shape \(6, 4, 0, 3\)"),
    ((X, (6, 2, 3, 3)), {}, r"conv2d: x has 4 channels, w expects 2 x groups=1; did you mean groups=2\?"),
    ((X, (6, 3, 3, 3)), {}, r"conv2d: x has 4 channels, w expects 3 x groups=1$"),
    ((X, W), {"groups": 2}, r"conv2d: x has 4 channels, w expects 4 x groups=2; did you mean groups=1\?"),
    ((X, W), {"groups": 4}, r"conv2d: groups is a positive int that divides the 6 filters of w, not 4"),
    ((X, W), {"groups": 0}, r"conv2d: groups is a positive int that divides the 6 filters of w, not 0"),
    ((X, W), {"groups": 1.0}, r"conv2d: groups is a positive int .* not 1.0"),
    ((X, (6, 4, 6, 3)), {}, r"conv2d: the 6x3 window is larger than the 5x5 image with padding \(0, 0\); use a larger image, more padding"),
    ((X, (6, 4, 3, 8)), {"padding": 1}, r"conv2d: the 3x8 window is larger than the 5x5 image with padding \(1, 1\)"),
    ((X, W), {"stride": 0}, r"conv2d: stride is an int or a pair of ints, each at least 1, not 0"),
    ((X, W), {"stride": (1, 2, 3)}, r"conv2d: stride is an int or a pair of ints, each at least 1, not \(1, 2, 3\)"),
    ((X, W), {"stride": 1.5}, r"conv2d: stride is an int or a pair of ints, each at least 1, not 1.5"),
    ((X, W), {"padding": -1}, r"conv2d: padding is an int or a pair of ints, each at least 0, not -1"),
    ((X, W, (4,)), {}, r"conv2d: b has shape \(4,\), but 6 filters want \(6,\)"),
    ((X, W, (6, 1)), {}, r"conv2d: b has shape \(6, 1\), but 6 filters want \(6,\)"),
])
def test_what_does_not_fit_is_refused(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        ops.conv2d(*(Tensor(np.zeros(s, np.float32)) for s in shapes), **options)


def test_wrong_dtypes_are_refused():
    x, w = np.zeros(X, np.float32), np.zeros(W, np.float32)
    with pytest.raises(TypeError, match=r"conv2d: x is uint8; float32 or float64 is wanted: Tensor\(array.astype\('float32'\)\)"):
        ops.conv2d(Tensor(x.astype("uint8")), Tensor(w))
    with pytest.raises(TypeError, match=r"Conv2d: its inputs have different dtypes \(float32, float64\); convert one"):
        ops.conv2d(Tensor(x), Tensor(w.astype("float64")))
