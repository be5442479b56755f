"""The mean over OH x OW bins, whatever the size of the image; so one classifier serves many sizes.

    Row i of the output is the mean of rows floor(i*H/OH) to ceil((i+1)*H/OH) - 1, and columns likewise. That is a
    matrix on either side,

        y     = R x S^T             R (OH, H), S (OW, W), each row 1/length inside its bin and 0 outside
        dL/dx = R^T gy S
"""

import numpy as np

from minicnn.autograd import Function
from minicnn.backend import xp_of
from minicnn.ops.layout import check_images, pair


class AdaptiveAvgPool2d(Function):
    def __init__(self, output_size=(1, 1)):
        self.output_size = output_size

    def forward(self, x):                           # x (N, C, H, W)
        xp = xp_of(x)
        rows, columns = (xp.asarray(bins(size, out), x.dtype) for size, out in zip(x.shape[2:], self.output_size, strict=True))
        return rows @ x @ columns.T, (rows, columns)

    def backward(self, gy, rows, columns):
        return rows.T @ gy @ columns


def bins(size, out):
    """(out, size): row i takes the mean of bin i."""
    matrix = np.zeros((out, size))
    for i in range(out):
        start, stop = i * size // out, -(-(i + 1) * size // out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def adaptive_avg_pool2d(x, output_size):
    """The mean over output_size bins (an int or a (rows, columns) pair) of x (N, C, H, W); returns (N, C, OH, OW).

    Bins overlap where the sizes do not divide, and repeat where the output is larger. torchvision's AlexNet uses 6.
    """
    check_images("adaptive_avg_pool2d", x)
    return AdaptiveAvgPool2d(pair("adaptive_avg_pool2d", "output_size", output_size, 1))(x)
