"""im2col and its adjoint, col2im: every window of an image as one row of a matrix, and back.

im2col turns a convolution into a matrix product. Row (n, oh, ow) of the matrix holds the KH*KW*C pixels under the kernel
when it is at output position (oh, ow). A pixel is in several windows; so in the adjoint, which backward needs, each pixel
gets the sum of the gradients of all its copies.

Source: Chellapilla, Puri, Simard, "High performance convolutional neural networks for document processing", 2006.
"""

from minicnn.backend import cuda
from minicnn.backend.arrays import by_device, xp_of
from minicnn.ops.layout import padded


def output_size(size, kernel, stride, padding):
    """The number of windows along one axis."""
    return (size + 2 * padding - kernel) // stride + 1


def output_sizes(x, kernel, stride, padding):
    """OH, OW for images x (N, H, W, C)."""
    return tuple(output_size(*along) for along in zip(x.shape[1:3], kernel, stride, padding, strict=True))


def sliding_windows(x, kernel, stride):
    """x (N, H, W, C) -> (N, OH, OW, KH, KW, C): every window, as a view (windows that overlap share memory)."""
    N, _, _, C = x.shape
    OH, OW = output_sizes(x, kernel, stride, (0, 0))
    n, h, w, c = x.strides
    return xp_of(x).lib.stride_tricks.as_strided(x, (N, OH, OW, *kernel, C), (n, stride[0] * h, stride[1] * w, h, w, c))


def im2col_cpu(x, kernel, stride, padding):
    """x (N, H, W, C) -> (N*OH*OW, KH*KW*C): one row for each window of the image, zero-padded by `padding`."""
    view = sliding_windows(padded(x, *padding), kernel, stride)
    N, OH, OW, KH, KW, C = view.shape
    return view.reshape(N * OH * OW, KH * KW * C)


def im2col_gpu(x, kernel, stride, padding):
    N, H, W, C = x.shape
    OH, OW = output_sizes(x, kernel, stride, padding)
    columns = cuda.aligned(N * OH * OW, kernel[0] * kernel[1] * C, x.dtype)
    steps = [*element_strides(x), columns.strides[0] // x.itemsize, C]
    width = 4 if all(step % 4 == 0 for step in steps) and x.data.ptr % (4 * x.itemsize) == 0 else 1     # elements that move together
    sn, sh, sw, ld, C = (step // width for step in steps)
    cuda.launch_rows("ops/conv2d/im2col.cu", "im2col", len(columns), columns.shape[1] // width, x, columns, ld, sn, sh, sw, H, W, C,
                     kernel[1], *stride, *padding, OH, OW, dtype=x.dtype, constants=(("WIDTH", width),))
    return columns


def col2im_cpu(columns, x, kernel, stride, padding):
    """The adjoint of im2col: write into x (N, H, W, C), at each pixel, the sum of its copies in `columns`.

    One strided addition for each position in the kernel: at one position, no two windows have the same pixel.
    """
    N, H, W, C = x.shape
    (KH, KW), (SH, SW), (PH, PW), (OH, OW) = kernel, stride, padding, output_sizes(x, kernel, stride, padding)
    columns = columns.reshape(N, OH, OW, KH, KW, C)
    image = xp_of(x).zeros((N, H + 2 * PH, W + 2 * PW, C), x.dtype)
    for i in range(KH):
        for j in range(KW):
            image[:, i:i + SH * OH:SH, j:j + SW * OW:SW] += columns[:, :, :, i, j]
    x[...] = image[:, PH:PH + H, PW:PW + W]


def col2im_gpu(columns, x, kernel, stride, padding):
    N, H, W, C = x.shape
    cuda.launch_rows("ops/conv2d/im2col.cu", "col2im", N * H * W, C, columns, x, columns.strides[0] // x.itemsize, *element_strides(x),
                     H, W, *kernel, *stride, *padding, *output_sizes(x, kernel, stride, padding), dtype=x.dtype, constants=(("WIDTH", 1),))


def element_strides(x):
    """The strides along N, H and W in elements instead of bytes; along C it is 1."""
    return [stride // x.itemsize for stride in x.strides[:3]]


im2col = by_device(im2col_cpu, im2col_gpu)
col2im = by_device(col2im_cpu, col2im_gpu)
