"""Backpropagation by hand: a few lines of matrix algebra for a network of two layers, compared with autograd, and trained.

Forward computes x -> a -> h -> s -> loss. Backward goes the other way, and each line of it asks: if this grew a little, how
much would the loss grow? g... is dL/d..., and has the same shape as ... N images, D pixels, H hidden units, K classes.
"""

import numpy as np
import threadpoolctl

import minicnn as mc


def forward_backward(x, label, w1, b1, w2, b2):
    """The loss, and its gradients with respect to w1, b1, w2 and b2."""
    n, N = np.arange(len(x)), len(x)
    a = x @ w1.T + b1                               # (N, H)  each hidden unit is a weighted sum of all pixels
    h = np.maximum(a, 0)                            # (N, H)  ReLU
    s = h @ w2.T + b2                               # (N, K)  logits: the score of each class
    e = np.exp(s - s.max(axis=1, keepdims=True))    # (N, K)  at most 1: no overflow
    p = e / e.sum(axis=1, keepdims=True)            # (N, K)  softmax: each row sums to 1
    loss = -np.log(p[n, label]).mean()

    gs = (p - np.identity(10, p.dtype)[label]) / N  # (N, K)  dL/ds  = (p - onehot(label)) / N
    gw2 = gs.T @ h                                  # (K, H)  dL/dw2 = gs^T h       since s = h w2^T + b2
    gb2 = gs.sum(axis=0)                            # (K,)    dL/db2 = sum_n gs     b2 is added to every row
    gh = gs @ w2                                    # (N, H)  dL/dh  = gs w2        h is used by all K scores
    ga = gh * (a > 0)                               # (N, H)  dL/da  = gh [a > 0]   no gradient where ReLU gave 0
    gw1 = ga.T @ x                                  # (H, D)  dL/dw1 = ga^T x       as for w2, one layer earlier
    gb1 = ga.sum(axis=0)                            # (H,)    dL/db1 = sum_n ga
    return loss, (gw1, gb1, gw2, gb2)


def accuracy(x, label, w1, b1, w2, b2):
    """The fraction of images whose highest score is that of their class."""
    return ((np.maximum(x @ w1.T + b1, 0) @ w2.T + b2).argmax(axis=1) == label).mean()


threadpoolctl.threadpool_limits(1)      # matrices this small are multiplied faster by one core
train, test = mc.data.FashionMNIST("train"), mc.data.FashionMNIST("test")
x_train, x_test = (((d.images.reshape(-1, 784) - 73.0) / 90.0).astype(np.float32) for d in (train, test))   # mean 0, variance 1
rng = np.random.default_rng(0)
parameters = [p.astype(np.float32) for p in (rng.normal(0, np.sqrt(2 / 784), (100, 784)), np.zeros(100),    # w1, b1
                                             rng.normal(0, np.sqrt(2 / 100), (10, 100)), np.zeros(10))]     # w2, b2: Kaiming

x, label = x_train[:200], train.labels[:200]
by_hand = forward_backward(x, label, *parameters)[1]
w1, b1, w2, b2 = tensors = [mc.Tensor(p, requires_grad=True) for p in parameters]
scores = mc.ops.linear(mc.ops.relu(mc.ops.linear(mc.Tensor(x), w1, b1)), w2, b2)
mc.ops.cross_entropy(scores, label).backward()
for name, g, tensor in zip(("w1", "b1", "w2", "b2"), by_hand, tensors, strict=True):
    print(f"dL/d{name}: largest {np.abs(g).max():.1e}, by hand and by autograd differ by at most {np.abs(g - tensor.grad).max():.1e}")

for step in range(501):
    batch = rng.integers(len(train), size=100)
    loss, gradients = forward_backward(x_train[batch], train.labels[batch], *parameters)
    if step % 100 == 0:
        print(f"step {step:3}   loss {loss:.3f}   test accuracy {accuracy(x_test, test.labels, *parameters):.1%}")
    for p, g in zip(parameters, gradients, strict=True):
        p -= 0.1 * g                                # gradient descent
