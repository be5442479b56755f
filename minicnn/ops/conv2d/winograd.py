"""Winograd (Cook-Toom) convolution: fewer multiplications, by multiplying in a transformed domain.

A convolution is a product of polynomials, and a polynomial of degree d is determined by its values at d+1 points. So:
evaluate both polynomials at some points (the Winograd domain), multiply the values point by point, and transform back. For
m outputs of a filter with r taps, that takes n = m + r - 1 multiplications instead of m*r. In two dimensions a tile of n x n
pixels gives m x m outputs:

    y = A^T [ (G w G^T) * (B^T x B) ] A         * is elementwise

            multiplications for m x m outputs       F(4, 5): 64 instead of 400      F(5, 3): 49 instead of 225

B^T (n, n) transforms the pixels, G (n, r) the filter, and A^T (m, n) transforms back. With many channels the elementwise
product becomes, at each of the n*n points, a matrix product over the channels, (tiles, C) @ (C, O): it takes most of the
time, and BLAS computes it.

A tile is flattened to a row of n*n numbers; multiplying it by a matrix from both sides is then one matrix, the Kronecker
product: B^T x B = kron(B^T, B^T) @ x. So each of the three transforms is a matrix product as well.

Backward needs nothing new. The gradient of the input is the convolution of gy with the rotated filters. The gradient of
the filter follows from reading the formula from right to left: y is linear in w, and the adjoint of that map is

    dL/dw = G^T [ sum over tiles and images of (A gy A^T) * (B^T x B) ] G

Points of small magnitude keep the rounding error small: 0, 1, -1, 2, -2, 1/2, -1/2 and infinity (where the "value" is the
leading coefficient). Errors are measured in benchmarks/ladder.py.

Sources: Winograd, "Arithmetic Complexity of Computations", 1980; Toom 1963, Cook 1966; Lavin and Gray, "Fast Algorithms
for Convolutional Neural Networks", CVPR 2016.
"""

import functools
from fractions import Fraction

import numpy as np

from minicnn.backend.arrays import ceil_div
from minicnn.backend.threads import matmul, over_batch
from minicnn.ops.conv2d.im2col import sliding_windows
from minicnn.ops.layout import group_slices, padded

POINTS = [Fraction(p) for p in (0, 1, -1, 2, -2, "1/2", "-1/2")]
SIZES = range(2, len(POINTS) + 1)       # sides of filters for which the points suffice, with tiles of at least 2 x 2 outputs
WORKSPACE = 24 << 20                    # bytes of transformed tiles in memory at a time, whatever the batch (at least one image's)


def best_tile(r, OH, OW):
    """m, the side of the output tile that takes the fewest multiplications."""
    return min(range(2, len(POINTS) + 3 - r), key=lambda m: ceil_div(OH, m) * ceil_div(OW, m) * (m + r - 1) ** 2)


def multiply_adds(N, OH, OW, O, C, r, groups):
    """The number of multiply-adds for a batch, transforms included."""
    m = best_tile(r, OH, OW)
    points, tiles = (m + r - 1) ** 2, N * ceil_div(OH, m) * ceil_div(OW, m)
    return points * (tiles * (C * points + C * O // groups + O * m * m) + r * r * C * O // groups)


@functools.cache
def matrices(m, r):
    """A^T (m, n), G (n, r) and B^T (n, n) for F(m, r), n = m + r - 1: computed as fractions, then rounded to float64.

    Column i of A^T and row i of G hold the powers of point i. Row i of B^T, Lagrange interpolation, has the coefficients of the
    polynomial that is zero at all points but the i-th, scaled; the last row, for infinity, those of the one that is zero at all.
    """
    n = m + r - 1
    points = POINTS[:n - 1]
    AT = [[p ** k for p in points] + [Fraction(k == m - 1)] for k in range(m)]
    G = [[p ** k for k in range(r)] for p in points] + [[Fraction(k == r - 1) for k in range(r)]]
    BT = []
    for i, p in enumerate(points):
        others = points[:i] + points[i + 1:]
        scale = functools.reduce(lambda a, q: a * (p - q), others, Fraction(1))
        BT.append([c / scale for c in coefficients(others)] + [Fraction(0)])
    BT.append(coefficients(points))
    # A factor may be moved from a row of B^T to the same row of G: make the largest entry of each row of B^T 1.
    for row_b, row_g in zip(BT, G, strict=True):
        largest = max(map(abs, row_b))
        row_b[:] = [c / largest for c in row_b]
        row_g[:] = [c * largest for c in row_g]
    return tuple(np.array(matrix, dtype=np.float64) for matrix in (AT, G, BT))


def coefficients(roots):
    """The coefficients of the polynomial with these roots and leading coefficient 1, lowest power first."""
    poly = [Fraction(1)]
    for root in roots:
        poly = [a - root * b for a, b in zip([Fraction(0), *poly], [*poly, Fraction(0)], strict=True)]
    return poly


@functools.cache
def transforms(m, r, dtype):
    """For flattened tiles: kron(A^T, A^T) (m*m, n*n), kron(G, G) (n*n, r*r) and kron(B^T, B^T) (n*n, n*n)."""
    return tuple(np.kron(M, M).astype(dtype) for M in matrices(m, r))


def correlate(x, w, b, padding, groups):
    """Convolution with stride 1: x (N, H, W, C), w (O, r, r, C/G), b (O,) or None -> y (N, OH, OW, O)."""
    N, H, W, C = x.shape
    O, r, _, _ = w.shape
    OH, OW = H + 2 * padding[0] - r + 1, W + 2 * padding[1] - r + 1
    m, n, TH, TW = tiling(r, OH, OW)
    AA, _, BB = transforms(m, r, x.dtype)
    U = transform_filters(w, m, groups)                                     # (G, n*n, C/G, O/G)
    y = np.empty((N, OH, OW, O), x.dtype)

    def convolve(X, Y, V, M):           # one chunk: V (n*n, tiles, C) the transformed pixels, M (n*n, tiles, O) the products
        def transform_pixels(i):
            transform_tiles(BB, X[i], i, V, padding, n, m, TH, TW)

        def multiply(p):
            for g, (channels, filters) in enumerate(group_slices(groups, C, O)):
                np.matmul(V[p, :, channels], U[g, p], out=M[p, :, filters])

        def transform_back(i):
            block, width = Y[i], TH * TW * O
            tiles = M.reshape(n * n, -1)[:, i.start * width:i.stop * width]
            whole = (AA @ tiles).reshape(m, m, len(block), TH, TW, O).transpose(2, 3, 0, 4, 1, 5)
            whole = whole.reshape(len(block), TH * m, TW * m, O)[:, :OH, :OW]
            np.add(whole, 0 if b is None else b, out=block)

        over_batch(transform_pixels, X, n * n * TH * TW * C * x.itemsize)
        over_batch(multiply, V, V[0].nbytes + M[0].nbytes)
        over_batch(transform_back, Y, n * n * TH * TW * O * x.itemsize)

    for images, V, M in chunks(N, n * n, TH * TW, C, O, x.dtype):
        convolve(x[images], y[images], V, M)
    return y


def filter_gradient(gy, x, w, padding, groups):
    """dL/dw, (O, r, r, C/G), for a convolution with stride 1, from gy (N, OH, OW, O) and x (N, H, W, C)."""
    N, OH, OW, O = gy.shape
    C = x.shape[3]
    r, CG = w.shape[2:]
    m, n, TH, TW = tiling(r, OH, OW)
    AA, GG, BB = transforms(m, r, x.dtype)
    A = np.ascontiguousarray(AA.T)
    total = np.zeros((groups, n * n, CG, O // groups), x.dtype)

    def accumulate(X, GY, V, D):        # one chunk: V (n*n, tiles, C) the transformed pixels, D (n*n, tiles, O) the transformed gy
        def transform(i):
            transform_tiles(BB, X[i], i, V, padding, n, m, TH, TW)
            transform_tiles(A, GY[i], i, D, (0, 0), m, m, TH, TW)

        def multiply(p):
            for g, (channels, filters) in enumerate(group_slices(groups, C, O)):
                total[g, p] += V[p, :, channels].swapaxes(1, 2) @ D[p, :, filters]

        over_batch(transform, X, n * n * TH * TW * (C + O) * x.itemsize)
        over_batch(multiply, V, V[0].nbytes + D[0].nbytes)

    for images, V, D in chunks(N, n * n, TH * TW, C, O, x.dtype):
        accumulate(x[images], gy[images], V, D)
    gw = [matmul(GG.T, t.reshape(n * n, -1)).reshape(r, r, CG, O // groups).transpose(3, 0, 1, 2) for t in total]
    return np.concatenate(gw)                                           # (O, r, r, C/G)


def transform_filters(w, m, groups):
    """w (O, r, r, C/G) -> G w G^T (G, n*n, C/G, O/G): the filters in the Winograd domain, each a right factor (C/G, O/G)."""
    O, r, _, CG = w.shape
    GG = transforms(m, r, w.dtype)[1]
    taps = w.reshape(groups, O // groups, r * r, CG).transpose(0, 2, 3, 1)          # (G, r*r, C/G, O/G)
    return np.stack([matmul(GG, t.reshape(r * r, -1)).reshape(-1, CG, O // groups) for t in taps])


def transform_tiles(transform, images, i, out, padding, size, step, TH, TW):
    """Write the transformed tiles of some images into `out`: tiles of size x size pixels, every `step` pixels from -padding on.

    images (n, H, W, C) are the slice `i` of a chunk, zero outside; out (points, chunk*TH*TW, C) holds the tiles of the whole chunk.
    """
    N, H, W, C = images.shape
    PH, PW = padding
    beyond_H, beyond_W = step * (TH - 1) + size - PH - H, step * (TW - 1) + size - PW - W      # how far the last tile extends past it
    tiles = sliding_windows(padded(images, (PH, beyond_H), (PW, beyond_W)), (size, size), (step, step))     # (n, TH, TW, size, size, C)
    tiles = tiles.transpose(3, 4, 0, 1, 2, 5).reshape(size * size, -1)
    width = TH * TW * C
    np.matmul(transform, tiles, out=out.reshape(len(out), -1)[:, i.start * width:(i.start + N) * width])


def tiling(r, OH, OW):
    """m, n, TH, TW: the side of an output tile and of a pixel tile, and the number of tiles down and across."""
    m = best_tile(r, OH, OW)
    return m, m + r - 1, ceil_div(OH, m), ceil_div(OW, m)


def chunks(N, points, tiles_per_image, C, O, dtype):
    """Slices of the batch, each with two workspaces, (points, tiles, C) and (points, tiles, O): all chunks reuse the same memory."""
    size = min(N, max(1, WORKSPACE // (points * tiles_per_image * (C + O) * dtype.itemsize)))
    memory = [np.empty(points * size * tiles_per_image * channels, dtype) for channels in (C, O)]
    for a in range(0, N, size):
        tiles = min(size, N - a) * tiles_per_image
        V, M = (m[:points * tiles * channels].reshape(points, tiles, channels) for m, channels in zip(memory, (C, O), strict=True))
        yield slice(a, min(a + size, N)), V, M
