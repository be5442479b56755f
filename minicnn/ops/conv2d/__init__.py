"""2-D convolution: the op (op.py), and two algorithms for it, im2col (im2col.py) and Winograd (winograd.py)."""

from minicnn.ops.conv2d.op import Conv2d, conv2d

__all__ = ["Conv2d", "conv2d"]
