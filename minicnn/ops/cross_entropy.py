"""Cross-entropy, the loss of a classifier: how surprised the network is by the correct class.

    p     = softmax(logits)                     (N, K)
    L     = -1/N * sum_n log p[n, label_n]
    dL/dx = (p - onehot(label)) / N

A network that knows nothing gives every class 1/K and has the loss ln K: 6.908 for the 1000 classes of ImageNet.
"""

from typing import Any

import numpy as np

from minicnn.autograd import Function
from minicnn.backend import cuda
from minicnn.backend.arrays import by_device, is_array, to_device, xp_of
from minicnn.ops.checks import check_float
from minicnn.ops.softmax import log_softmax_of
from minicnn.tensor import Tensor


class CrossEntropy(Function):
    def __init__(self, labels: Any) -> None:
        self.labels = labels                            # (N,) ints, on the device of the logits

    def forward(self, logits):
        log_p = log_softmax_of(logits, axis=1)
        return mean_loss(log_p, self.labels), (log_p,)

    def backward(self, gy, log_p):
        return mean_loss_gradient(log_p, self.labels, gy)


def mean_loss_cpu(log_p, labels):
    return -log_p[np.arange(len(log_p)), labels].mean()


def mean_loss_gpu(log_p, labels):
    loss = xp_of(log_p).empty((), log_p.dtype)
    cuda.launch_block_reduction("ops/softmax.cu", "mean_loss", 1, *log_p.shape, log_p, labels.astype("int64", copy=False), loss,
                                dtype=log_p.dtype)
    return loss


def mean_loss_gradient_cpu(log_p, labels, gy):
    gx = np.exp(log_p)
    gx[np.arange(len(gx)), labels] -= 1
    return gx * (gy / len(gx))


def mean_loss_gradient_gpu(log_p, labels, gy):
    gx = xp_of(log_p).empty_like(log_p)
    cuda.launch_block_reduction("ops/softmax.cu", "mean_loss_backward", len(gx), *gx.shape, gy, log_p, labels.astype("int64", copy=False),
                                gx, dtype=gx.dtype)
    return gx


mean_loss = by_device(mean_loss_cpu, mean_loss_gpu)
mean_loss_gradient = by_device(mean_loss_gradient_cpu, mean_loss_gradient_gpu)


def cross_entropy(logits: Tensor, labels: Any) -> Tensor:
    """The cross-entropy loss: the mean over the batch of -log softmax(logits)[label], in nats.

    Args:
        logits: scores before softmax, (N, K), float32 or float64.
        labels: the correct classes, (N,) integers from 0 to K-1: a list, an array or a Tensor. For one-hot rows pass their argmax.

    Returns a Tensor of shape () with the dtype of the logits.
    Raises TypeError for labels that are not integers; ValueError for shapes that do not match, and for a label out of range (it names
    the first one). Source: Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.4.
    """
    check_float("cross_entropy", logits, "logits")
    if logits.ndim != 2 or logits.size == 0:
        raise ValueError(f"cross_entropy: logits must be a non-empty (N, classes), got shape {logits.shape}")
    N, K = logits.shape
    labels = labels.data if isinstance(labels, Tensor) else labels
    labels = labels if is_array(labels) else np.asarray(labels)
    hint = "; for one-hot labels pass labels.argmax(axis=1)" if labels.shape == logits.shape else ""
    if labels.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: labels must be integers, got {labels.dtype}{hint}")
    if labels.shape != (N,):
        raise ValueError(f"cross_entropy: labels must have shape ({N},), one for each row of the logits, got {labels.shape}{hint}")
    host = to_device(labels, "cpu")                     # checked on the CPU: as an index on a GPU, a label out of range wraps silently
    out_of_range = np.flatnonzero((host < 0) | (host >= K))
    if len(out_of_range):
        first = out_of_range[0]
        raise ValueError(f"cross_entropy: labels[{first}] must be a class from 0 to {K - 1}, got {host[first]}")
    return CrossEntropy(to_device(host, logits.device))(logits)
