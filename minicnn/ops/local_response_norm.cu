// LRN and its backward, one pass over memory each, one thread for each element of the output. Rows are pixels, columns are channels;
// T is float or double. The formulas are at the top of local_response_norm.py.

// s_c = k + alpha * (the sum of x_j^2 over the channels |j-c| <= r), for one pixel.
__device__ T scale(const T* x, int c, int C, int r, T alpha, T k)
{
    T sum = 0;
    for (int j = max(c - r, 0); j <= min(c + r, C - 1); j++)
        sum += x[j] * x[j];
    return k + alpha * sum;
}

// s^-beta; for beta = 3/4 by square roots, which are much faster than pow.
__device__ T negative_power(T s, T beta)
{
    if (beta != T(0.75))
        return pow(s, -beta);
    T root = sqrt(s);
    return 1 / (root * sqrt(root));
}

extern "C" __global__ void lrn(int pixels, int C, const T* x, T* y, int r, T alpha, T beta, T k)
{
    int pixel = blockIdx.x * blockDim.y + threadIdx.y;
    if (pixel >= pixels)
        return;
    x += (long long)pixel * C;
    y += (long long)pixel * C;
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        y[c] = x[c] * negative_power(scale(x, c, C, r, alpha, k), beta);
}

// The gradient of a channel has a sum over its neighbours: first every thread computes the term of its channel and writes it to
// shared memory; then, after a barrier, each adds up the terms of its neighbours.
extern "C" __global__ void lrn_backward(int pixels, int C, const T* x, const T* gy, T* gx, int r, T alpha, T beta, T k)
{
    extern __shared__ T shared[];
    int pixel = blockIdx.x * blockDim.y + threadIdx.y;
    bool inside = pixel < pixels;                           // (no early return: every thread must reach the barrier)
    T* own = shared + 2 * C * threadIdx.y;                  // g_c * s_c^-b
    T* term = own + C;                                      // g_c * y_c / s_c
    x += (long long)pixel * C;
    gy += (long long)pixel * C;
    gx += (long long)pixel * C;
    for (int c = threadIdx.x; inside && c < C; c += blockDim.x) {
        T s = scale(x, c, C, r, alpha, k);
        own[c] = gy[c] * negative_power(s, beta);
        term[c] = own[c] * x[c] / s;
    }
    __syncthreads();
    for (int c = threadIdx.x; inside && c < C; c += blockDim.x) {
        T neighbours = 0;
        for (int j = max(c - r, 0); j <= min(c + r, C - 1); j++)
            neighbours += term[j];
        gx[c] = own[c] - 2 * alpha * beta * x[c] * neighbours;
    }
}
