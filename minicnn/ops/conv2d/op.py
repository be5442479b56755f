"""2-D convolution: a window slides over the image, and at each position every filter computes one weighted sum of the pixels under it.

    y[n, o, i, j] = b[o] + sum_{c, p, q} w[o, c, p, q] * x[n, c, S*i + p - P, S*j + q - P]

With the windows as rows of a matrix (im2col), this is one matrix product, and so are both gradients:

    columns = im2col(x)                 (N*OH*OW, KH*KW*C)
    y       = columns @ w^T + b         (N*OH*OW, O)
    dL/dw   = gy^T @ columns            (O, KH*KW*C)
    dL/dx   = col2im(gy @ w)            the adjoint of im2col: the sum over the windows of a pixel
    dL/db   = gy, summed over n, i, j

With stride 1, dL/dx is itself a convolution, of gy with the filters rotated by 180 degrees: pixel (i, j) was under
w[p, q] in the window at (i - p, j - q). That gathers where col2im scatters, which is faster on a CPU. (On a GPU col2im gathers
too, and is better: its matrix is the smaller one, since AlexNet's layers have more filters than channels.)

With groups (AlexNet, section 3.2 and figure 2: two GPUs, each with half of the filters), channels and filters are split
into G groups, and the filters of a group see the channels of that group only.

The column matrix of conv2 for a batch of 128 would take 0.9 GB. So it is computed for a few images at a time (on every core of
a CPU, or in chunks of `cuda.WORKSPACE_BYTES`), and recomputed in backward instead of saved.

This module is the reference. With stride 1 and many channels, all three products can be computed with fewer
multiplications: see `minicnn.ops.conv2d.winograd`.
"""

import numpy as np

from minicnn.autograd import Function
from minicnn.backend.arrays import xp_of
from minicnn.backend.threads import gemm, matmul, over_batch, sum_over_batch
from minicnn.ops.bias import bias_gradient
from minicnn.ops.checks import check_images, check_pair
from minicnn.ops.conv2d import winograd
from minicnn.ops.conv2d.im2col import col2im, im2col, output_sizes
from minicnn.ops.layout import group_slices, nchw, nhwc
from minicnn.tensor import Tensor


class Conv2d(Function):
    def __init__(self, stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (0, 0), groups: int = 1,
                 algorithm: str = "auto") -> None:
        self.stride, self.padding, self.groups, self.algorithm = stride, padding, groups, algorithm

    def forward(self, x, w, b=None):                # x (N, C, H, W)   w (O, C/G, KH, KW)   b (O,)
        x, w = nhwc(x), nhwc(w)                     # x (N, H, W, C)   w (O, KH, KW, C/G)
        return nchw(correlate(x, w, b, self.stride, self.padding, self.groups, self.algorithm)), (x, w)

    def backward(self, gy, x, w):                   # gy (N, O, OH, OW)   x, w as forward saved them
        gy = nhwc(gy)
        options = self.stride, self.padding, self.groups, self.algorithm
        gx = nchw(input_gradient(gy, x, w, *options)) if self.needs_input_grad[0] else None
        gw = nchw(filter_gradient(gy, x, w, *options)) if self.needs_input_grad[1] else None
        if len(self.inputs) == 2:
            return gx, gw
        return gx, gw, bias_gradient(gy)

    def multiply_adds(self, y, x, w, b=None):
        """Each output uses each weight of its filter once."""
        return y.size * w[0].size


def correlate(x, w, b, stride, padding, groups, algorithm="auto"):
    """x (N, H, W, C), w (O, KH, KW, C/G), b (O,) or None -> y (N, OH, OW, O)."""
    xp = xp_of(x)
    N, C = len(x), x.shape[3]
    O, KH, KW, _ = w.shape
    OH, OW = output_sizes(x, (KH, KW), stride, padding)
    if select_algorithm(algorithm, x, w, (N, OH, OW, O), stride) == "winograd":
        return winograd.correlate(x, w, b, padding, groups)
    y = xp.empty((N, OH, OW, O), x.dtype)
    if N == 1:                      # no batch to split over the cores: split the matrix product itself
        for channels, filters in group_slices(groups, C, O):
            columns = im2col(x[..., channels], (KH, KW), stride, padding)
            y[..., filters] = matmul(columns, w[filters].reshape(-1, columns.shape[1]).T).reshape(1, OH, OW, -1)
        return y if b is None else xp.add(y, b, out=y)

    def block(n):
        rows = y[n].reshape(-1, O)                                              # (n*OH*OW, O)
        for channels, filters in group_slices(groups, C, O):
            columns = im2col(x[n][..., channels], (KH, KW), stride, padding)
            gemm(columns, w[filters].reshape(-1, columns.shape[1]).T, out=rows[:, filters])
        if b is not None:
            rows += b

    over_batch(block, x, bytes_per_image(w, y))
    return y


def filter_gradient(gy, x, w, stride, padding, groups, algorithm="auto"):
    """dL/dw, (O, KH, KW, C/G), from gy (N, OH, OW, O) and x (N, H, W, C)."""
    if select_algorithm(algorithm, x, w, gy.shape, stride) == "winograd":
        return winograd.filter_gradient(gy, x, w, padding, groups)
    xp = xp_of(x)
    O, KH, KW, _ = w.shape

    def block(n):
        gw, g = xp.empty(w.shape, w.dtype), gy[n].reshape(-1, O)                # g (n*OH*OW, O)
        for channels, filters in group_slices(groups, x.shape[3], O):
            columns = im2col(x[n][..., channels], (KH, KW), stride, padding)
            gemm(g[:, filters].T, columns, out=gw[filters].reshape(-1, columns.shape[1]))
        return gw

    return sum_over_batch(block, x, bytes_per_image(w, gy), w.shape, w.dtype)


def input_gradient(gy, x, w, stride, padding, groups, algorithm="auto"):
    """dL/dx, (N, H, W, C), from gy (N, OH, OW, O) and w (O, KH, KW, C/G)."""
    xp = xp_of(x)
    O, KH, KW, CG = w.shape
    (PH, PW), on_cpu = padding, isinstance(x, np.ndarray)
    if on_cpu and stride == (1, 1) and PH < KH and PW < KW:
        return correlate(gy, rotate180(w, groups), None, stride, (KH - 1 - PH, KW - 1 - PW), groups, algorithm)
    gx = xp.empty(x.shape, x.dtype)

    def block(n):
        g = gy[n].reshape(-1, O)
        for channels, filters in group_slices(groups, x.shape[3], O):
            columns = xp.empty((len(g), KH * KW * CG), g.dtype)
            gemm(g[:, filters], w[filters].reshape(O // groups, -1), out=columns)        # the gradient of each window
            col2im(columns, gx[n][..., channels], (KH, KW), stride, padding)

    over_batch(block, gy, bytes_per_image(w, gy))
    return gx


def rotate180(w, groups):
    """(O, KH, KW, C/G) -> (C, KH, KW, O/G): the filters rotated by 180 degrees, inputs and outputs exchanged within each group."""
    O, KH, KW, CG = w.shape
    return w.reshape(groups, O // groups, KH, KW, CG)[:, :, ::-1, ::-1].transpose(0, 4, 2, 3, 1).reshape(CG * groups, KH, KW, O // groups)


def select_algorithm(algorithm, x, w, y_shape, stride):
    """"im2col" or "winograd"; for "auto", Winograd where the CPU has enough channels and it takes < 0.6 of the multiply-adds."""
    if algorithm != "auto" or not isinstance(x, np.ndarray):
        return algorithm
    N, OH, OW, O = y_shape
    _, KH, KW, CG = w.shape
    groups = x.shape[3] // CG
    if stride != (1, 1) or KH != KW or KH not in winograd.SIZES or min(CG, O // groups) < 48 or N * OH * OW < 128:
        return "im2col"                         # with few channels or positions the transforms cost more than they save
    direct = N * OH * OW * O * KH * KW * CG
    return "winograd" if winograd.multiply_adds(N, OH, OW, O, x.shape[3], KH, groups) < 0.6 * direct else "im2col"


def bytes_per_image(w, y):
    """The memory that one image takes: its column matrix (of one group) and its output."""
    O, KH, KW, CG = w.shape
    return y[0, :, :, 0].size * (KH * KW * CG + O) * y.itemsize


def conv2d(x: Tensor, w: Tensor, b: Tensor | None = None, stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0,
           groups: int = 1, algorithm: str = "auto") -> Tensor:
    """2-D convolution (in deep learning's sense: cross-correlation, the kernel is not flipped).

    Args:
        x: images, (N, C, H, W), float32 or float64.
        w: filters, (O, C/groups, KH, KW).
        b: one bias per filter, (O,), or None.
        stride, padding: in pixels, an int or a (vertical, horizontal) pair. Padding is with zeros, on both sides.
        groups: the number of groups that channels and filters are split into; the filters of a group see its channels only.
        algorithm: "im2col", "winograd" (square filters of 2 to 7, stride 1, on the CPU), or "auto": whichever takes far fewer
            multiplications. Winograd's output differs by rounding, about 1e-5 of the largest value in float32.

    Returns (N, O, OH, OW) with OH = floor((H + 2*padding - KH) / stride) + 1, likewise OW.
    Raises ValueError for shapes, groups or sizes that do not match, TypeError for other dtypes.
    Source: LeCun et al. 1989, "Backpropagation applied to handwritten zip code recognition"; groups: AlexNet, section 3.2.
    """
    check_images("conv2d", x)
    stride, padding = check_pair("conv2d", "stride", stride, 1), check_pair("conv2d", "padding", padding, 0)
    _, C, H, W = x.shape
    if w.ndim != 4 or 0 in w.shape:
        raise ValueError(f"conv2d: w must be a non-empty (O, C/groups, KH, KW), got shape {w.shape}")
    O, CG, KH, KW = w.shape
    if not isinstance(groups, int) or groups < 1 or O % groups:
        raise ValueError(f"conv2d: groups must be a positive int that divides the {O} filters of w, got {groups!r}")
    if C != CG * groups:
        guess = f"; did you mean groups={C // CG}?" if C % CG == 0 and O % (C // CG) == 0 else ""
        raise ValueError(f"conv2d: x has {C} channels, w expects {CG} x groups={groups}{guess}")
    if H + 2 * padding[0] < KH or W + 2 * padding[1] < KW:
        raise ValueError(f"conv2d: the {KH}x{KW} window is larger than the {H}x{W} image with padding {padding}; "
                         "use a larger image, more padding or a smaller kernel")
    if b is not None and b.shape != (O,):
        raise ValueError(f"conv2d: b must have shape ({O},), one for each filter, got {b.shape}")
    if algorithm not in ("auto", "im2col", "winograd"):
        raise ValueError(f'conv2d: algorithm must be "auto", "im2col" or "winograd", got {algorithm!r}')
    if algorithm == "winograd" and (stride != (1, 1) or KH != KW or KH not in winograd.SIZES or x.device != "cpu"):
        raise ValueError(f'conv2d: algorithm "winograd" needs square filters of 2 to 7 with stride 1 on the CPU, got {KH}x{KW} with '
                         f'stride {stride} on {x.device}; use "auto"')
    return Conv2d(stride, padding, groups, algorithm)(*((x, w) if b is None else (x, w, b)))
