// Max-pool and its backward, one thread for each number of the answer. Images are (N, H, W, C), channels last; T is float or
// double, Place an unsigned type that holds a place in the window, counted row by row. See max_pool2d.py.

// y = the largest of the window, winner = the first place that holds it. A NaN is the largest of all, as in NumPy.
extern "C" __global__ void max_pool(int rows, int C, const T* x, T* y, Place* winner, int H, int W,
                                    int KH, int KW, int SH, int SW, int PH, int PW, int OH, int OW)
{
    int row = blockIdx.x * blockDim.y + threadIdx.y;        // of y: row (n, oh, ow)
    if (row >= rows)
        return;
    int ow = row % OW, oh = row / OW % OH, n = row / (OW * OH);
    int top = oh * SH - PH, left = ow * SW - PW;
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        T best = 0;
        int place = -1;                                     // none so far
        for (int p = 0; p < KH; p++)
            for (int q = 0; q < KW; q++) {
                int h = top + p, w = left + q;
                if (h < 0 || h >= H || w < 0 || w >= W)     // the padding never wins
                    continue;
                T value = x[(((long long)n * H + h) * W + w) * C + c];
                if (place < 0 || value > best || value != value) {
                    best = value;
                    place = p * KW + q;
                }
            }
        y[(long long)row * C + c] = best;
        winner[(long long)row * C + c] = place;
    }
}

// Each pixel gathers the gradients of the windows that it won. Windows that overlap may have had the same winner; asking each
// pixel for its windows, rather than each window for its winner, no two threads write to one place.
extern "C" __global__ void max_pool_backward(int rows, int C, const T* gy, const Place* winner, T* gx, int H, int W,
                                             int KH, int KW, int SH, int SW, int PH, int PW, int OH, int OW)
{
    int row = blockIdx.x * blockDim.y + threadIdx.y;        // of gx: pixel (n, h, w)
    if (row >= rows)
        return;
    int w = row % W, h = row / W % H, n = row / (W * H);
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        T sum = 0;
        for (int p = (h + PH) % SH; p < KH && p <= h + PH; p += SH) {       // where in a window this pixel can lie:
            int oh = (h + PH - p) / SH;                                     // then the window starts at row oh*SH - PH
            if (oh >= OH)
                continue;
            for (int q = (w + PW) % SW; q < KW && q <= w + PW; q += SW) {
                int ow = (w + PW - q) / SW;
                long long i = (((long long)n * OH + oh) * OW + ow) * C + c;
                if (ow < OW && winner[i] == p * KW + q)
                    sum += gy[i];
            }
        }
        gx[(long long)row * C + c] = sum;
    }
}
