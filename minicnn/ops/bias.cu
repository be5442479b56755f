// A partial sum over rows: row r of `sums` is the sum of rows r*count to (r+1)*count - 1 of x, added in order (the last group may be
// shorter). bias.py launches it again on its own output until one row is left. Each sum is computed by one thread, so there are no
// atomics, and the bits are the same in every run.
extern "C" __global__ void add_rows(int rows, int columns, const T* x, T* sums, int x_rows, int count)
{
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows)
        return;
    int first = row * count, end = x_rows - first < count ? x_rows : first + count;
    for (int c = blockIdx.y * blockDim.x + threadIdx.x; c < columns; c += gridDim.y * blockDim.x) {
        T sum = 0;
        for (int i = first; i < end; i++)
            sum += x[(long long)i * columns + c];
        sums[(long long)row * columns + c] = sum;
    }
}
