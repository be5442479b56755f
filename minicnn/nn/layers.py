"""Layers: modules that own the parameters of one op and call it.

Constructor arguments have PyTorch's names and order, where PyTorch has the argument.
"""

import numpy as np

from minicnn import ops
from minicnn.nn import init
from minicnn.nn.module import Module
from minicnn.ops.checks import check_pair
from minicnn.tensor import Tensor

IntOrPair = int | tuple[int, int]       # (vertical, horizontal)


class Conv2d(Module):
    """2-D convolution, (N, in_channels, H, W) -> (N, out_channels, OH, OW): see `ops.conv2d`.

    Args: kernel_size, stride and padding are ints or (vertical, horizontal) pairs; groups divides both numbers of channels.
    Parameters: weight (out_channels, in_channels / groups, KH, KW), initialised by He's rule, and bias (out_channels,), by 0, or None.
    Raises ValueError for an argument out of its range.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: IntOrPair, stride: IntOrPair = 1, padding: IntOrPair = 0, *,
                 groups: int = 1, bias: bool = True) -> None:
        KH, KW = check_pair("Conv2d", "kernel_size", kernel_size, 1)
        if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv2d: groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}")
        self.stride, self.padding = check_pair("Conv2d", "stride", stride, 1), check_pair("Conv2d", "padding", padding, 0)
        self.groups = groups
        # channels-last in memory like the images, so that the filters need not be rearranged for the matrix product
        self.weight = Tensor(np.empty((out_channels, KH, KW, in_channels // groups), np.float32).transpose(0, 3, 1, 2), True)
        self.bias = Tensor(np.zeros(out_channels, np.float32), True) if bias else None
        init.kaiming_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.groups)

    def extra_repr(self) -> str:
        O, C, KH, KW = self.weight.shape
        return (f"{C * self.groups}, {O}, kernel_size={(KH, KW)}, stride={self.stride}, padding={self.padding}"
                + (f", groups={self.groups}" if self.groups > 1 else "") + ("" if self.bias is not None else ", bias=False"))


class Linear(Module):
    """Fully connected layer, (N, in_features) -> (N, out_features): see `ops.linear`.

    Parameters: weight (out_features, in_features), initialised by He's rule, and bias (out_features,), by 0, or None.
    Raises ValueError for sizes below 1.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        if min(in_features, out_features) < 1:
            raise ValueError(f"Linear: in_features={in_features} and out_features={out_features} must be positive")
        self.weight = Tensor(np.empty((out_features, in_features), np.float32), True)
        self.bias = Tensor(np.zeros(out_features, np.float32), True) if bias else None
        init.kaiming_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        O, I = self.weight.shape
        return f"{I}, {O}" + ("" if self.bias is not None else ", bias=False")


class MaxPool2d(Module):
    """Max pooling, (N, C, H, W) -> (N, C, OH, OW): the maximum of each window; see `ops.max_pool2d`. stride None: the kernel size."""

    def __init__(self, kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0, *,
                 ceil_mode: bool = False) -> None:
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode}"


class AdaptiveAvgPool2d(Module):
    """Adaptive average pooling, (N, C, H, W) -> (N, C, *output_size): the mean of each bin; see `ops.adaptive_avg_pool2d`."""

    def __init__(self, output_size: IntOrPair) -> None:
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return ops.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"{self.output_size}"


class LocalResponseNorm(Module):
    """Local response normalisation of (N, C, H, W), by default with the paper's constants and formula: see `ops.local_response_norm`.

    (PyTorch's layer divides alpha by size and has k = 1: LocalResponseNorm(5, k=1.0, alpha_over_size=True).)
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, *, alpha_over_size: bool = False) -> None:
        self.size, self.alpha, self.beta, self.k, self.alpha_over_size = size, alpha, beta, k, alpha_over_size

    def forward(self, x: Tensor) -> Tensor:
        return ops.local_response_norm(x, self.size, self.alpha, self.beta, self.k, self.alpha_over_size)

    def extra_repr(self) -> str:
        return (f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
                + (", alpha_over_size=True" if self.alpha_over_size else ""))


class ReLU(Module):
    """Rectified linear unit, max(x, 0), of any shape. `inplace` is accepted as in PyTorch, and ignored: ops never modify their inputs."""

    def __init__(self, inplace: bool = False) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class Tanh(Module):
    """Hyperbolic tangent, of any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class Sigmoid(Module):
    """Logistic function, 1 / (1 + exp(-x)), of any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)


class Dropout(Module):
    """Dropout: in training mode each element is zero with probability `p`, and the others are scaled by 1 / (1 - p); see `ops.dropout`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return ops.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Flatten(Module):
    """Merge all axes from `start_dim` on: (N, C, H, W) -> (N, C*H*W)."""

    def __init__(self, start_dim: int = 1) -> None:
        self.start_dim = start_dim

    def forward(self, x: Tensor) -> Tensor:
        return ops.flatten(x, self.start_dim)
