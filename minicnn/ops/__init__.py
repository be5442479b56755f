"""The ops, one module each: its formula, forward and backward. This file is their table of contents."""

import sys

from minicnn import tensor
from minicnn.ops.adaptive_avg_pool2d import adaptive_avg_pool2d
from minicnn.ops.arithmetic import add, div, exp, log, matmul, mul, power, sub
from minicnn.ops.conv2d.op import conv2d
from minicnn.ops.cross_entropy import cross_entropy
from minicnn.ops.dropout import dropout
from minicnn.ops.linear import linear
from minicnn.ops.local_response_norm import local_response_norm
from minicnn.ops.max_pool2d import max_pool2d
from minicnn.ops.relu import relu
from minicnn.ops.shape import flatten, getitem, mean, reshape, sum, transpose
from minicnn.ops.sigmoid import sigmoid
from minicnn.ops.softmax import log_softmax, softmax
from minicnn.ops.tanh import tanh

__all__ = ["adaptive_avg_pool2d", "add", "conv2d", "cross_entropy", "div", "dropout", "exp", "flatten", "getitem", "linear",
           "local_response_norm", "log", "log_softmax", "matmul", "max_pool2d", "mean", "mul", "power", "relu", "reshape",
           "sigmoid", "softmax", "sub", "sum", "tanh", "transpose"]

tensor.ops = sys.modules[__name__]          # for the operators and methods of Tensor: see minicnn.tensor
