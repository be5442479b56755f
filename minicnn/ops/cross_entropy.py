"""How surprised the network is by the right answer: the loss of a classifier.

    p     = softmax(logits)                     (N, K)
    L     = -1/N * sum_n log p[n, label_n]
    dL/dx = (p - onehot(label)) / N

A network that knows nothing gives every class 1/K and has the loss ln K: 6.908 for the 1000 classes of ImageNet.
"""

import numpy as np

from minicnn import gpu
from minicnn.autograd import Function
from minicnn.backend import by_device, is_array, to_device, xp_of
from minicnn.ops.layout import check_float
from minicnn.ops.softmax import log_softmax_of
from minicnn.tensor import Tensor


class CrossEntropy(Function):
    def __init__(self, labels):
        self.labels = labels                            # (N,) ints, on the device of the logits

    def forward(self, logits):
        log_p = log_softmax_of(logits, axis=1)
        return mean_loss(log_p, self.labels), (log_p,)

    def backward(self, gy, log_p):
        return mean_loss_gradient(log_p, self.labels, gy)


def mean_loss_cpu(log_p, labels):
    return -log_p[np.arange(len(log_p)), labels].mean()


def mean_loss_gradient_cpu(log_p, labels, gy):
    gx = np.exp(log_p)
    gx[np.arange(len(gx)), labels] -= 1
    return gx * (gy / len(gx))


def mean_loss_gpu(log_p, labels):
    loss = xp_of(log_p).empty((), log_p.dtype)
    gpu.run_together("ops/softmax.cu", "mean_loss", 1, *log_p.shape, log_p, labels.astype("int64", copy=False), loss, dtype=log_p.dtype)
    return loss


def mean_loss_gradient_gpu(log_p, labels, gy):
    gx = xp_of(log_p).empty_like(log_p)
    gpu.run_together("ops/softmax.cu", "mean_loss_backward", len(gx), *gx.shape, gy, log_p, labels.astype("int64", copy=False), gx,
                     dtype=gx.dtype)
    return gx


mean_loss = by_device(mean_loss_cpu, mean_loss_gpu)
mean_loss_gradient = by_device(mean_loss_gradient_cpu, mean_loss_gradient_gpu)


def cross_entropy(logits, labels):
    """The mean over the batch of -log softmax(logits)[label].

    Args:
        logits: scores, (N, K), not yet through softmax.
        labels: the right classes, (N,) integers from 0 to K-1, a plain array or a Tensor.

    Returns one number. Raises TypeError for labels that are not integers, ValueError for shapes that do not fit
    and for labels out of range (naming the first).
    """
    check_float("cross_entropy", logits)
    if logits.ndim != 2 or logits.size == 0:
        raise ValueError(f"cross_entropy: logits are a non-empty (N, classes), but these have shape {logits.shape}")
    N, K = logits.shape
    labels = labels.data if isinstance(labels, Tensor) else labels
    labels = labels if is_array(labels) else np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: labels are integers, not {labels.dtype}"
                        + ("; for one-hot labels pass labels.argmax(axis=1)" if labels.ndim == 2 else ""))
    if labels.shape != (N,):
        raise ValueError(f"cross_entropy: {N} rows of logits want labels of shape ({N},), but these have {labels.shape}")
    host = to_device(labels, "cpu")                     # a label out of range would wrap around in silence on a GPU
    wrong = np.flatnonzero((host < 0) | (host >= K))
    if len(wrong):
        raise ValueError(f"cross_entropy: labels[{wrong[0]}] is {host[wrong[0]]}, but there are {K} classes: 0 to {K - 1}")
    return CrossEntropy(to_device(host, logits.device))(logits)
