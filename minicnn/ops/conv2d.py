"""A small window slides over the image; each filter answers with one number per place.

    y[n, o, i, j] = b[o] + sum_{c, p, q} w[o, c, p, q] * x[n, c, S*i + p - P, S*j + q - P]

With the windows as rows of a matrix (im2col), this is one matrix product, and so are both gradients:

    columns = im2col(x)                 (N*OH*OW, KH*KW*C)
    y       = columns @ w^T + b         (N*OH*OW, O)
    dL/dw   = gy^T @ columns            (O, KH*KW*C)
    dL/dx   = col2im(gy @ w)            the adjoint of im2col adds up what the windows of a pixel send back
    dL/db   = gy summed over n, i, j

With groups (AlexNet, section 3.2 and figure 2: two GPUs, each with half of the filters), the channels are cut
into G parts, and the filters of part g see the channels of part g only.

The column matrix of conv2 for a batch of 128 would be 0.9 GB, so it is made for a few images at a time, on every
core, and made again in backward rather than kept.
"""

from minicnn.autograd import Function
from minicnn.backend import xp_of
from minicnn.ops.layout import check_images, empty_like_nhwc, nchw, nhwc, padded, pair
from minicnn.ops.windows import col2im, im2col, output_size
from minicnn.parallel import over_batch, sum_over_batch


class Conv2d(Function):
    def __init__(self, stride=(1, 1), padding=(0, 0), groups=1):
        self.stride, self.padding, self.groups = stride, padding, groups

    def forward(self, x, w, b=None):                # x (N, C, H, W)   w (O, C/G, KH, KW)   b (O,)
        xp = xp_of(x)
        N, C, H, W = x.shape
        O, _, KH, KW = w.shape
        OH, OW = (output_size(s, k, st, p) for s, k, st, p in zip((H, W), (KH, KW), self.stride, self.padding, strict=True))
        x, w = nhwc(x), nhwc(w)                     # x (N, H, W, C)   w (O, KH, KW, C/G)
        y = xp.empty((N, OH, OW, O), x.dtype)

        def block(n):
            image, answer = padded(x[n], *self.padding), y[n].reshape(-1, O)
            for channels, filters in self.parts(C, O):
                columns = im2col(image[..., channels], KH, KW, *self.stride)
                xp.matmul(columns, w[filters].reshape(-1, columns.shape[1]).T, out=answer[:, filters])
            if b is not None:
                answer += b

        over_batch(block, x, bytes_each=self.bytes_each(x, w, y))
        return nchw(y), (x, w)

    def backward(self, gy, x, w):                   # gy (N, O, OH, OW)   x, w as forward saved them
        xp = xp_of(x)
        N, H, W, C = x.shape
        O, KH, KW, _ = w.shape
        gy = nhwc(gy)
        gx = empty_like_nhwc(x) if self.needs[0] else None
        PH, PW = self.padding

        def block(n):
            """gx of these images, and their part of gw."""
            image, g = padded(x[n], PH, PW), gy[n].reshape(-1, O)
            gw = xp.empty(w.shape, w.dtype)
            for channels, filters in self.parts(C, O):
                columns = im2col(image[..., channels], KH, KW, *self.stride)
                K = columns.shape[1]
                xp.matmul(g[:, filters].T, columns, out=gw[filters].reshape(-1, K))
                if gx is not None:
                    columns = xp.matmul(g[:, filters], w[filters].reshape(-1, K), out=columns)
                    part = col2im(columns, *image.shape[:3], w.shape[3], KH, KW, *self.stride)
                    gx[n][..., channels] = part[:, PH:PH + H, PW:PW + W]
            return gw

        gw = sum_over_batch(block, x, self.bytes_each(x, w, gy), lambda: xp.zeros(w.shape, w.dtype))
        gradients = None if gx is None else nchw(gx), nchw(gw)
        if len(self.inputs) == 2:
            return gradients
        gb = sum_over_batch(lambda n: gy[n].sum(axis=(0, 1, 2)), gy, gy[0].nbytes, lambda: xp.zeros(O, gy.dtype))
        return *gradients, gb

    def parts(self, C, O):
        """For each group, the slice of the C input channels and the slice of the O filters."""
        G = self.groups
        return [(slice(g * C // G, (g + 1) * C // G), slice(g * O // G, (g + 1) * O // G)) for g in range(G)]

    def bytes_each(self, x, w, y):
        """What one image brings into the cache: its columns (of one group) and its answer."""
        O, KH, KW, C = w.shape
        OH, OW = y.shape[1:3]
        return OH * OW * (KH * KW * C + O) * x.itemsize

    def multiply_adds(self, y, x, w, b=None):
        return y.size * w[0].size


def conv2d(x, w, b=None, stride=1, padding=0, groups=1):
    """2-D convolution (as the field says it: correlation, the kernel is not flipped).

    Args:
        x: images, (N, C, H, W).
        w: filters, (O, C/groups, KH, KW).
        b: one bias per filter, (O,), or None.
        stride, padding: pixels, an int or a (vertical, horizontal) pair. Padding is with zeros, on both sides.
        groups: how many parts channels and filters are cut into; part g of the filters sees part g of the channels.

    Returns (N, O, OH, OW) with OH = floor((H + 2*padding - KH) / stride) + 1.
    Raises ValueError where shapes, groups or sizes do not fit together.
    Source: LeCun et al. 1989; groups: AlexNet, section 3.2.
    """
    check_images("conv2d", x)
    stride, padding = pair("conv2d", "stride", stride, 1), pair("conv2d", "padding", padding, 0)
    N, C, H, W = x.shape
    if w.ndim != 4 or 0 in w.shape:
        raise ValueError(f"conv2d: w is (O, C/groups, KH, KW), but this w has shape {w.shape}")
    O, CG, KH, KW = w.shape
    if not isinstance(groups, int) or groups < 1 or O % groups:
        raise ValueError(f"conv2d: groups is a positive int that divides the {O} filters of w, not {groups!r}")
    if C != CG * groups:
        guess = f"; did you mean groups={C // CG}?" if C % CG == 0 and O % (C // CG) == 0 else ""
        raise ValueError(f"conv2d: x has {C} channels, w expects {CG} x groups={groups}{guess}")
    if H + 2 * padding[0] < KH or W + 2 * padding[1] < KW:
        raise ValueError(f"conv2d: the {KH}x{KW} window is larger than the {H}x{W} image with padding {padding}; "
                         "use a larger image, more padding or a smaller kernel")
    if b is not None and b.shape != (O,):
        raise ValueError(f"conv2d: b has shape {b.shape}, but {O} filters want ({O},)")
    return Conv2d(stride, padding, groups)(*((x, w) if b is None else (x, w, b)))
