// Max pooling and its backward, one thread for each element of the output. Images are (N, H, W, C), channels last; T is float or
// double, Index an unsigned type for a position p*KW + q in the window. See max_pool2d.py.

// y = the maximum of the window, argmax = its first position. NaN is larger than every number, as in NumPy.
extern "C" __global__ void max_pool(int rows, int C, const T* x, T* y, Index* argmax, int H, int W,
                                    int KH, int KW, int SH, int SW, int PH, int PW, int OH, int OW)
{
    int row = blockIdx.x * blockDim.y + threadIdx.y;        // of y: row (n, oh, ow)
    if (row >= rows)
        return;
    int ow = row % OW, oh = row / OW % OH, n = row / (OW * OH);
    int top = oh * SH - PH, left = ow * SW - PW;
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        T best = 0;
        int index = -1;                                     // no pixel so far
        for (int p = 0; p < KH; p++)
            for (int q = 0; q < KW; q++) {
                int h = top + p, w = left + q;
                if (h < 0 || h >= H || w < 0 || w >= W)     // padding is skipped
                    continue;
                T value = x[(((long long)n * H + h) * W + w) * C + c];
                if (index < 0 || value > best || value != value) {
                    best = value;
                    index = p * KW + q;
                }
            }
        y[(long long)row * C + c] = best;
        argmax[(long long)row * C + c] = index;
    }
}

// Each pixel gathers the gradients of the windows whose argmax it is. (Windows that overlap may share an argmax: a scatter, one
// thread for each window, would need atomics.)
extern "C" __global__ void max_pool_backward(int rows, int C, const T* gy, const Index* argmax, T* gx, int H, int W,
                                             int KH, int KW, int SH, int SW, int PH, int PW, int OH, int OW)
{
    int row = blockIdx.x * blockDim.y + threadIdx.y;        // of gx: pixel (n, h, w)
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
                long long i = (((long long)n * OH + oh) * OW + ow) * C + c;
                if (ow < OW && argmax[i] == p * KW + q)
                    sum += gy[i];
            }
        }
        gx[(long long)row * C + c] = sum;
    }
}
