// From bytes to numbers, on the way into the network: mirrored where the dice said so, colour shifted, the mean taken off.
// A row is one row of pixels of one image, (W, C) bytes. Of each image, `how` holds 1 + 2*C numbers: whether it is mirrored,
// what to add to each channel, and what to divide it by. See upload.py.
extern "C" __global__ void finish(int rows, int columns, const unsigned char* pixels, const float* how, float* images, int H, int C)
{
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows)
        return;
    how += row / H * (1 + 2LL * C);
    for (int k = threadIdx.x; k < columns; k += blockDim.x) {
        int c = k % C;
        int from = how[0] ? columns - C - (k - c) + c : k;      // the same channel of the pixel as far from the other edge
        images[(long long)row * columns + k] = (pixels[(long long)row * columns + from] + how[1 + c]) / how[1 + C + c];
    }
}
