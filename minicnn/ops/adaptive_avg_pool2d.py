"""Adaptive average pooling: the mean over OH x OW bins, for any size of the image, so that one classifier serves many sizes.

    Row i of the output is the mean of rows floor(i*H/OH) to ceil((i+1)*H/OH) - 1, and columns likewise. Each axis is
    a matrix product:

        y     = R x S^T             R (OH, H), S (OW, W): row i is 1/length inside bin i and 0 outside
        dL/dx = R^T gy S
"""

import numpy as np

from minicnn.autograd import Function
from minicnn.backend.arrays import ceil_div, xp_of
from minicnn.ops.checks import check_images, check_pair
from minicnn.tensor import Tensor


class AdaptiveAvgPool2d(Function):
    def __init__(self, output_size: tuple[int, int] = (1, 1)) -> None:
        self.output_size = output_size

    def forward(self, x):                           # x (N, C, H, W)
        xp, (OH, OW), (H, W) = xp_of(x), self.output_size, x.shape[2:]
        R, S = xp.asarray(averaging_matrix(H, OH), x.dtype), xp.asarray(averaging_matrix(W, OW), x.dtype)
        return R @ x @ S.T, (R, S)

    def backward(self, gy, R, S):
        return R.T @ gy @ S


def averaging_matrix(size, out):
    """(out, size): row i averages over bin i."""
    matrix = np.zeros((out, size))
    for i in range(out):
        start, stop = i * size // out, ceil_div((i + 1) * size, out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def adaptive_avg_pool2d(x: Tensor, output_size: int | tuple[int, int]) -> Tensor:
    """Adaptive average pooling: the mean over each of output_size bins that cover the image.

    Args:
        x: images, (N, C, H, W), float32 or float64.
        output_size: the number of bins, an int or an (OH, OW) pair. Bins overlap where OH does not divide H, and repeat pixels
            where OH is larger than H. torchvision's AlexNet uses 6.

    Returns (N, C, OH, OW). Raises ValueError if x is not a batch of images or output_size is not positive, TypeError for another dtype.
    Source of bins in proportion to the image: He et al. 2014, "Spatial pyramid pooling in deep convolutional networks for visual
    recognition", arXiv:1406.4729; of their exact borders: PyTorch.
    """
    check_images("adaptive_avg_pool2d", x)
    return AdaptiveAvgPool2d(check_pair("adaptive_avg_pool2d", "output_size", output_size, 1))(x)
