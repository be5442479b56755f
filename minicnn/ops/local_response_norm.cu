// LRN and its backward, one pass over memory each, one thread for each number of the answer. Rows are pixels, columns channels;
// T is float or double. The formulas are at the head of local_response_norm.py.

// s_c = k + alpha * (the sum of x_j^2 over the channels j at most r away from c), for one pixel.
__device__ T energy(const T* x, int c, int C, int r, T alpha, T k)
{
    T sum = 0;
    for (int j = max(c - r, 0); j <= min(c + r, C - 1); j++)
        sum += x[j] * x[j];
    return k + alpha * sum;
}

// s^-beta; for 3/4 by square roots, which are much faster than pow.
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
        y[c] = x[c] * negative_power(energy(x, c, C, r, alpha, k), beta);
}

// A channel needs what its neighbours make of their own gradients: first every thread works that out for its channel and
// lays it into memory that the block shares, then, when all have done so, each adds up what its neighbours left there.
extern "C" __global__ void lrn_backward(int pixels, int C, const T* x, const T* gy, T* gx, int r, T alpha, T beta, T k)
{
    extern __shared__ T shared[];
    int pixel = blockIdx.x * blockDim.y + threadIdx.y;
    bool inside = pixel < pixels;                           // (who leaves early would keep the others waiting)
    T* own = shared + 2 * C * threadIdx.y;                  // g_c * s_c^-b
    T* part = own + C;                                      // g_c * y_c / s_c
    x += (long long)pixel * C;
    gy += (long long)pixel * C;
    gx += (long long)pixel * C;
    for (int c = threadIdx.x; inside && c < C; c += blockDim.x) {
        T s = energy(x, c, C, r, alpha, k);
        own[c] = gy[c] * negative_power(s, beta);
        part[c] = own[c] * x[c] / s;
    }
    __syncthreads();
    for (int c = threadIdx.x; inside && c < C; c += blockDim.x) {
        T neighbours = 0;
        for (int j = max(c - r, 0); j <= min(c + r, C - 1); j++)
            neighbours += part[j];
        gx[c] = own[c] - 2 * alpha * beta * x[c] * neighbours;
    }
}
