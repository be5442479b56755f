"""Convolution: strides, paddings, groups, and kernels from 1x1 to the size of the image."""

import numpy as np

from minicnn.learn.cases import Remembers, randn
from minicnn.ops.conv2d.op import Conv2d

CASES = {                               # stride   padding groups               x             w             b
    "3x3":                              (((1, 1), (0, 0), 1), randn((2, 2, 3, 4), (2, 2, 3, 3), (2,))),
    "no bias":                          (((1, 1), (0, 0), 1), randn((2, 2, 3, 3), (3, 2, 2, 2))),
    "stride 2":                         (((2, 2), (0, 0), 1), randn((2, 1, 5, 5), (2, 1, 3, 3), (2,))),
    "stride 2, a column not covered":   (((2, 2), (1, 1), 1), randn((1, 2, 3, 4), (2, 2, 3, 3), (2,))),
    "unequal strides":                  (((1, 3), (0, 0), 1), randn((2, 1, 3, 7), (2, 1, 2, 2), (2,))),
    "gaps between the windows":         (((3, 3), (1, 1), 1), randn((2, 1, 4, 6), (2, 1, 2, 2), (2,))),
    "padding":                          (((1, 1), (1, 1), 1), randn((2, 2, 2, 3), (2, 2, 3, 3), (2,))),
    "unequal paddings":                 (((2, 1), (0, 2), 1), randn((2, 1, 4, 3), (2, 1, 2, 4), (2,))),
    "a kernel as large as the image":   (((1, 1), (0, 0), 1), randn((2, 2, 2, 3), (3, 2, 2, 3), (3,))),
    "a kernel as large as the padding": (((1, 1), (2, 2), 1), randn((2, 1, 1, 2), (2, 1, 2, 2), (2,))),
    "1x1":                              (((1, 1), (0, 0), 1), randn((2, 3, 2, 2), (2, 3, 1, 1), (2,))),
    "1x1 with stride 2":                (((2, 2), (0, 0), 1), randn((2, 2, 3, 3), (2, 2, 1, 1), (2,))),
    "1x1 with two groups":              (((1, 1), (0, 0), 2), randn((2, 4, 2, 2), (2, 2, 1, 1), (2,))),
    "two groups":                       (((1, 1), (1, 1), 2), randn((1, 4, 2, 3), (4, 2, 3, 3), (4,))),
    "three groups":                     (((2, 1), (0, 0), 3), randn((2, 3, 4, 2), (6, 1, 2, 2), (6,))),
    "depthwise":                        (((1, 1), (0, 0), 4), randn((2, 4, 2, 3), (4, 1, 2, 2), (4,))),
    "one image, one filter":            (((1, 1), (1, 1), 1), randn((1, 2, 3, 3), (1, 2, 3, 3), (1,))),
    "conv1 of AlexNet, smaller":        (((4, 4), (0, 0), 1), randn((1, 2, 9, 5), (1, 2, 5, 5), (1,))),
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
        first = o // (O // G) * CG                          # the first channel of the group of filter o
        for c, p, q in np.ndindex(CG, KH, KW):
            row, column = SH * i + p - PH, SW * j + q - PW
            if 0 <= row < H and 0 <= column < W:
                total += w[o, c, p, q] * x[n, first + c, row, column]
        y[n, o, i, j] = total
    return y


def scatter_windows(gy, w, shape, stride, padding, groups, add=True):
    """dL/dx by loops: the gradient of every window added at its pixels; or, without `add`, that of the last window only."""
    (SH, SW), (PH, PW) = stride, padding
    N, C, H, W = shape
    O, CG, KH, KW = w.shape
    gy_groups = gy.reshape(N, groups, O // groups, *gy.shape[2:])
    filters = w.reshape(groups, O // groups, CG, KH, KW)
    gx = np.zeros(shape)
    for i, j, p, q in np.ndindex(*gy.shape[2:], KH, KW):
        row, column = SH * i + p - PH, SW * j + q - PW
        if 0 <= row < H and 0 <= column < W:
            g = np.einsum("ngo,goc->ngc", gy_groups[..., i, j], filters[..., p, q]).reshape(N, C)
            gx[..., row, column] = gx[..., row, column] + g if add else g
    return gx


class WrongConv(Remembers, Conv2d):
    """A correct backward with one method for each gradient; each mistake breaks one of them."""

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
    "The padding is not cropped from dL/dx: it is cut off at the far edges only, so the gradient is shifted by the padding."
    def wrong_gx(self, gx, gy, x, w):
        (PH, PW), (H, W) = self.padding, gx.shape[2:]
        return np.pad(gx, ((0, 0), (0, 0), (PH, 0), (PW, 0)))[:, :, :H, :W]

    @staticmethod
    def affects(args, x, w, *b):
        return args[1] != (0, 0)


class StrideIgnored(WrongConv):
    "The stride is ignored: the windows are added into dL/dx one pixel apart."
    def wrong_gx(self, gx, gy, x, w):
        return scatter_windows(gy, w, x.shape, (1, 1), self.padding, self.groups)

    @staticmethod
    def affects(args, x, w, *b):
        return args[0] != (1, 1)


class KernelRotated(WrongConv):
    "The kernel is rotated by 180 degrees, as in the convolution of mathematics; the op is a cross-correlation."
    def wrong_gx(self, gx, gy, x, w):
        return scatter_windows(gy, w[:, :, ::-1, ::-1], x.shape, self.stride, self.padding, self.groups)

    @staticmethod
    def affects(args, x, w, *b):
        return w.shape[2:] != (1, 1)


class OverlapOverwritten(WrongConv):
    "A pixel under several windows gets the gradient of the last window only: = instead of +=."
    def wrong_gx(self, gx, gy, x, w):
        return scatter_windows(gy, w, x.shape, self.stride, self.padding, self.groups, add=False)

    @staticmethod
    def affects(args, x, w, *b):          # whether windows overlap
        (stride, padding, _), kernel, size = args, w.shape[2:], x.shape[2:]
        return any(S < K and (n + 2 * P - K) // S > 0 for S, P, K, n in zip(stride, padding, kernel, size, strict=True))


class GroupsMixedUp(WrongConv):
    "The groups are mixed up: the input gradient of each group goes to the channels of the next group."
    def wrong_gx(self, gx, gy, x, w):
        return np.roll(gx, x.shape[1] // self.groups, axis=1)

    @staticmethod
    def affects(args, x, w, *b):
        return args[2] > 1


class WeightGroupsMixedUp(WrongConv):
    "The groups are mixed up: the weight gradient of each group goes to the filters of the next group."
    def wrong_gw(self, gw, gy):
        return np.roll(gw, gw.shape[0] // self.groups, axis=0)

    @staticmethod
    def affects(args, x, w, *b):
        return args[2] > 1


class WeightGradientAveraged(WrongConv):
    "The weight gradient is averaged over the batch instead of summed; the loss has averaged already."
    def wrong_gw(self, gw, gy):
        return gw / len(gy)

    @staticmethod
    def affects(args, x, w, *b):
        return len(x) > 1


class BiasGradientOfOnePosition(WrongConv):
    "The bias gradient is summed over the batch but not over the output positions."
    def wrong_gb(self, gb, gy):
        return gy[:, :, 0, 0].sum(axis=0)

    @staticmethod
    def affects(args, x, w, *b):
        return len(b) > 0 and naive(args, x, w).shape[2:] != (1, 1)


class BiasGradientAveraged(WrongConv):
    "The bias gradient is averaged over the batch and the output positions instead of summed."
    def wrong_gb(self, gb, gy):
        return gy.mean(axis=(0, 2, 3))

    @staticmethod
    def affects(args, x, w, *b):
        return len(b) > 0 and naive(args, x, w)[:, 0].size > 1


class BiasGradientOverFilters(WrongConv):
    "The bias gradient is summed over the filters too: every filter gets the total."
    def wrong_gb(self, gb, gy):
        return np.full_like(gb, gy.sum())

    @staticmethod
    def affects(args, x, w, *b):
        return len(b) > 0 and len(w) > 1


WRONG = [PaddingNotCropped, StrideIgnored, KernelRotated, OverlapOverwritten, GroupsMixedUp, WeightGroupsMixedUp,
         WeightGradientAveraged, BiasGradientOfOnePosition, BiasGradientAveraged, BiasGradientOverFilters]


OPS = {
    Conv2d: (Conv2d, CASES, naive, WRONG),
}
