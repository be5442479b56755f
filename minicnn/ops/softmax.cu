// Log-softmax of each row, the cross-entropy loss and its gradient; a block of threads for each row. T is float or double.
// The formulas are at the top of softmax.py and cross_entropy.py.

// The sum (or the maximum) of one value from each thread of the block, by a tree reduction: the number of active threads halves until
// one is left. `shared` holds one T for each thread; blockDim.x is a power of two. The order is fixed, so the bits are too.
__device__ T reduce_block(T value, T* shared, bool maximum)
{
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            T other = shared[threadIdx.x + half];
            shared[threadIdx.x] = maximum ? (shared[threadIdx.x] > other ? shared[threadIdx.x] : other) : shared[threadIdx.x] + other;
        }
        __syncthreads();
    }
    T result = shared[0];
    __syncthreads();                        // before a thread overwrites it
    return result;
}

// y = x - max - log(sum of e^(x - max)), for row blockIdx.x of a matrix.
extern "C" __global__ void log_softmax(int rows, int columns, const T* x, T* y)
{
    extern __shared__ T shared[];
    x += (long long)blockIdx.x * columns;
    y += (long long)blockIdx.x * columns;
    T largest = x[0], sum = 0;
    for (int c = threadIdx.x; c < columns; c += blockDim.x)
        largest = x[c] > largest ? x[c] : largest;
    largest = reduce_block(largest, shared, true);
    for (int c = threadIdx.x; c < columns; c += blockDim.x)
        sum += exp(x[c] - largest);
    sum = log(reduce_block(sum, shared, false));
    for (int c = threadIdx.x; c < columns; c += blockDim.x)
        y[c] = x[c] - largest - sum;
}

// gx = gy - e^y * (sum of gy), for row blockIdx.x, where y is the log-softmax.
extern "C" __global__ void log_softmax_backward(int rows, int columns, const T* gy, const T* y, T* gx)
{
    extern __shared__ T shared[];
    long long start = (long long)blockIdx.x * columns;
    T sum = 0;
    for (int c = threadIdx.x; c < columns; c += blockDim.x)
        sum += gy[start + c];
    sum = reduce_block(sum, shared, false);
    for (int c = threadIdx.x; c < columns; c += blockDim.x)
        gx[start + c] = gy[start + c] - exp(y[start + c]) * sum;
}

// loss = -(the mean over the rows of log_p[row, label of the row]), by one block.
extern "C" __global__ void mean_loss(int rows, int columns, const T* log_p, const long long* labels, T* loss)
{
    extern __shared__ T shared[];
    T sum = 0;
    for (int n = threadIdx.x; n < rows; n += blockDim.x)
        sum -= log_p[(long long)n * columns + labels[n]];
    sum = reduce_block(sum, shared, false);
    if (threadIdx.x == 0)
        *loss = sum / rows;
}

// gx = (p - onehot(label)) * gy / rows, where p = e^log_p and gy is a scalar.
extern "C" __global__ void mean_loss_backward(int rows, int columns, const T* gy, const T* log_p, const long long* labels, T* gx)
{
    int row = blockIdx.x;
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
        long long i = (long long)row * columns + c;
        gx[i] = (exp(log_p[i]) - (c == labels[row] ? 1 : 0)) * (*gy / rows);
    }
}
