"""im2col and its adjoint: every window of an image as one row of a matrix, and back.

im2col turns convolution into a matrix product. Row (n, oh, ow) of the matrix holds the KH*KW*C pixels under
the kernel when it lies at output (oh, ow). A pixel is in many windows; so in the adjoint, which backward
needs, each pixel gets the sum of what all its windows send back.
(The idea: Chellapilla, Puri, Simard, "High performance convolutional neural networks for document
processing", 2006.)
"""

from minicnn.backend import xp_of


def output_size(size, kernel, stride, padding):
    """How many windows fit along one side."""
    return (size + 2 * padding - kernel) // stride + 1


def windows(x, KH, KW, SH, SW):
    """x (N, H, W, C) -> (N, OH, OW, KH, KW, C): every window, as a view (pixels under two windows are seen twice)."""
    N, H, W, C = x.shape
    OH, OW = output_size(H, KH, SH, 0), output_size(W, KW, SW, 0)
    n, h, w, c = x.strides
    return xp_of(x).lib.stride_tricks.as_strided(x, (N, OH, OW, KH, KW, C), (n, SH * h, SW * w, h, w, c))


def im2col(x, KH, KW, SH, SW):
    """x (N, H, W, C), padded already -> (N*OH*OW, KH*KW*C)."""
    view = windows(x, KH, KW, SH, SW)
    N, OH, OW, KH, KW, C = view.shape
    return view.reshape(N * OH * OW, KH * KW * C)


def col2im(columns, N, H, W, C, KH, KW, SH, SW):
    """The adjoint of im2col: (N*OH*OW, KH*KW*C) -> (N, H, W, C), each pixel the sum over its windows.

    One strided addition for each place in the kernel: at one place no two windows share a pixel.
    """
    OH, OW = output_size(H, KH, SH, 0), output_size(W, KW, SW, 0)
    columns = columns.reshape(N, OH, OW, KH, KW, C)
    x = xp_of(columns).zeros((N, H, W, C), columns.dtype)
    for i in range(KH):
        for j in range(KW):
            x[:, i:i + SH * OH:SH, j:j + SW * OW:SW] += columns[:, :, :, i, j]
    return x
