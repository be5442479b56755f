// Every window of an image as one row of a matrix (im2col), and its adjoint, the sum over the windows of a pixel (col2im).
// T is float or double. Images are (N, H, W, C), channels last; the matrix is (N*OH*OW, KH*KW*C). See im2col.py.

// Vectorized copies: a thread moves WIDTH elements at a time. With WIDTH = 4 (16 bytes of float), C, `ld` and the strides are
// counted in vectors of 4 elements.
#if WIDTH == 4
struct alignas(4 * sizeof(T)) Vector { T a, b, c, d; };
#else
typedef T Vector;
#endif

// Row (n, oh, ow) of the matrix gets the KH*KW*C elements under the window there; outside the image they are 0.
// Pixel (n, h, w) of x starts at n*sn + h*sh + w*sw, row r of the matrix at r*ld.
extern "C" __global__ void im2col(int rows, int columns, const Vector* x, Vector* matrix, long long ld,
                                  long long sn, long long sh, long long sw, int H, int W, int C,
                                  int KW, int SH, int SW, int PH, int PW, int OH, int OW)
{
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows)
        return;
    int ow = row % OW, oh = row / OW % OH, n = row / (OW * OH);
    int top = oh * SH - PH, left = ow * SW - PW;            // the window's first pixel; negative in the padding
    for (int k = threadIdx.x; k < columns; k += blockDim.x) {
        int c = k % C, q = k / C % KW, p = k / (C * KW);
        int h = top + p, w = left + q;
        bool inside = 0 <= h && h < H && 0 <= w && w < W;
        matrix[row * ld + k] = inside ? x[n * sn + h * sh + w * sw + c] : Vector();
    }
}

// The adjoint: pixel (n, h, w) of x becomes the sum of its copies, the elements of the matrix where im2col would put it.
// Each thread gathers one element, in a fixed order: there are no atomics, and every run has the same bits.
extern "C" __global__ void col2im(int rows, int C, const T* matrix, T* x, long long ld, long long sn, long long sh, long long sw,
                                  int H, int W, int KH, int KW, int SH, int SW, int PH, int PW, int OH, int OW)
{
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows)
        return;
    int w = row % W, h = row / W % H, n = row / (W * H);
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        T sum = 0;
        for (int p = (h + PH) % SH; p < KH && p <= h + PH; p += SH) {       // the rows of a window where this pixel can be:
            int oh = (h + PH - p) / SH;                                     // then the window starts at row oh*SH - PH
            if (oh >= OH)
                continue;
            for (int q = (w + PW) % SW; q < KW && q <= w + PW; q += SW) {
                int ow = (w + PW - q) / SW;
                if (ow < OW)
                    sum += matrix[(((long long)n * OH + oh) * OW + ow) * ld + (p * KW + q) * C + c];
            }
        }
        x[n * sn + h * sh + w * sw + c] = sum;
    }
}
