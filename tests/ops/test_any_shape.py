"""Convolution by both algorithms equals the definition for every shape: hypothesis searches for a counterexample."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn import Tensor, ops
from minicnn.ops.conv2d.im2col import sliding_windows

sizes = st.integers(1, 4)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(batch=sizes, channels=sizes, filters=sizes, groups=st.integers(1, 3), r=st.integers(2, 7), extra=st.tuples(*[st.integers(0, 8)] * 2),
       padding=st.tuples(*[st.integers(0, 4)] * 2), algorithm=st.sampled_from(["im2col", "winograd"]))
def test_conv2d_forward_and_backward(batch, channels, filters, groups, r, extra, padding, algorithm):
    """y, gx and gw against einsum over the windows of the padded image, in float64."""
    rng = np.random.default_rng(0)
    H, W = r + extra[0], r + extra[1]
    x = Tensor(rng.standard_normal((batch, channels * groups, H, W)), requires_grad=True)
    w = Tensor(rng.standard_normal((filters * groups, channels, r, r)), requires_grad=True)
    y = ops.conv2d(x, w, padding=padding, groups=groups, algorithm=algorithm)
    g = rng.standard_normal(y.shape)
    y.backward(g)

    around = [(0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2]
    image = np.pad(x.data, around)                                                              # (N, C, H, W)
    seen = sliding_windows(np.ascontiguousarray(image.transpose(0, 2, 3, 1)), (r, r), (1, 1))               # (N, OH, OW, KH, KW, C)
    OH, OW = seen.shape[1:3]
    seen = seen.reshape(batch, OH, OW, r, r, groups, channels)
    parts, g_parts = w.data.reshape(groups, filters, channels, r, r), g.reshape(batch, groups, filters, OH, OW)
    want = np.einsum("nijpqgc,gocpq->ngoij", seen, parts).reshape(y.shape)
    want_gw = np.einsum("nijpqgc,ngoij->gocpq", seen, g_parts).reshape(w.shape)
    want_gx = np.zeros(image.shape).reshape(batch, groups, channels, *image.shape[2:])
    for p in range(r):
        for q in range(r):
            want_gx[..., p:p + OH, q:q + OW] += np.einsum("ngoij,goc->ngcij", g_parts, parts[..., p, q])
    want_gx = want_gx.reshape(image.shape)[:, :, padding[0]:padding[0] + H, padding[1]:padding[1] + W]
    for got, expected in ((y.data, want), (x.grad, want_gx), (w.grad, want_gw)):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10 * max(1, np.abs(expected).max()))
