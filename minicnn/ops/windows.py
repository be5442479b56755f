"""im2col and its adjoint: every window of an image as one row of a matrix, and back.

im2col turns convolution into a matrix product. Row (n, oh, ow) of the matrix holds the KH*KW*C pixels under
the kernel when it lies at output (oh, ow). A pixel is in many windows; so in the adjoint, which backward
needs, each pixel gets the sum of what all its windows send back.
(The idea: Chellapilla, Puri, Simard, "High performance convolutional neural networks for document
processing", 2006.)
"""

from minicnn import gpu
from minicnn.backend import by_device, xp_of
from minicnn.ops.layout import padded


def output_size(size, kernel, stride, padding):
    """How many windows fit along one side."""
    return (size + 2 * padding - kernel) // stride + 1


def output_sizes(x, kernel, stride, padding):
    """OH, OW for images x (N, H, W, C)."""
    return tuple(output_size(*along) for along in zip(x.shape[1:3], kernel, stride, padding, strict=True))


def windows(x, kernel, stride):
    """x (N, H, W, C) -> (N, OH, OW, KH, KW, C): every window, as a view (pixels under two windows are seen twice)."""
    N, _, _, C = x.shape
    OH, OW = output_sizes(x, kernel, stride, (0, 0))
    n, h, w, c = x.strides
    return xp_of(x).lib.stride_tricks.as_strided(x, (N, OH, OW, *kernel, C), (n, stride[0] * h, stride[1] * w, h, w, c))


def im2col_cpu(x, kernel, stride, padding):
    """x (N, H, W, C) -> (N*OH*OW, KH*KW*C), one row for each window; `padding` zeros are around the image."""
    view = windows(padded(x, *padding), kernel, stride)
    N, OH, OW, KH, KW, C = view.shape
    return view.reshape(N * OH * OW, KH * KW * C)


def col2im_cpu(columns, x, kernel, stride, padding):
    """The adjoint of im2col: into x (N, H, W, C) goes, for each pixel, the sum over its windows, rows of `columns`.

    One strided addition for each place in the kernel: at one place no two windows share a pixel.
    """
    N, H, W, C = x.shape
    (KH, KW), (SH, SW), (PH, PW), (OH, OW) = kernel, stride, padding, output_sizes(x, kernel, stride, padding)
    columns = columns.reshape(N, OH, OW, KH, KW, C)
    image = xp_of(x).zeros((N, H + 2 * PH, W + 2 * PW, C), x.dtype)
    for i in range(KH):
        for j in range(KW):
            image[:, i:i + SH * OH:SH, j:j + SW * OW:SW] += columns[:, :, :, i, j]
    x[...] = image[:, PH:PH + H, PW:PW + W]


def im2col_gpu(x, kernel, stride, padding):
    N, H, W, C = x.shape
    OH, OW = output_sizes(x, kernel, stride, padding)
    columns = gpu.aligned(N * OH * OW, kernel[0] * kernel[1] * C, x.dtype)
    numbers = [*steps(x), columns.strides[0] // x.itemsize, C]
    wide = 4 if all(n % 4 == 0 for n in numbers) and x.data.ptr % (4 * x.itemsize) == 0 else 1
    sn, sh, sw, ld, C = (n // wide for n in numbers)
    gpu.run("ops/windows.cu", "im2col", len(columns), columns.shape[1] // wide, x, columns, ld, sn, sh, sw, H, W, C,
            kernel[1], *stride, *padding, OH, OW, dtype=x.dtype, constants=(("WIDTH", wide),))
    return columns


def col2im_gpu(columns, x, kernel, stride, padding):
    N, H, W, C = x.shape
    gpu.run("ops/windows.cu", "col2im", N * H * W, C, columns, x, columns.strides[0] // x.itemsize, *steps(x), H, W,
            *kernel, *stride, *padding, *output_sizes(x, kernel, stride, padding), dtype=x.dtype, constants=(("WIDTH", 1),))


def steps(x):
    """How far apart in memory, in numbers, neighbours along N, H and W are; the channels of a pixel lie side by side."""
    return [stride // x.itemsize for stride in x.strides[:3]]


im2col = by_device(im2col_cpu, im2col_gpu)
col2im = by_device(col2im_cpu, col2im_gpu)
