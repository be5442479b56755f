// Row r of `sums` becomes the sum of `many` rows of x, from row r*many on (the last ones may be fewer), added in order.
// Rows of few sums are many threads' work; called again on its own answer, it leaves one row. No two threads meet, so there
// is nothing to lock, and the bits are the same each time. See bias.py.
extern "C" __global__ void add_rows(int rows, int columns, const T* x, T* sums, int x_rows, int many)
{
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows)
        return;
    int first = row * many, end = x_rows - first < many ? x_rows : first + many;
    for (int c = blockIdx.y * blockDim.x + threadIdx.x; c < columns; c += gridDim.y * blockDim.x) {
        T sum = 0;
        for (int i = first; i < end; i++)
            sum += x[(long long)i * columns + c];
        sums[(long long)row * columns + c] = sum;
    }
}
