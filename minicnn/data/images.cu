// Normalizes a batch of bytes: each image is flipped if its flag is set, then (pixel + add) / divide, per channel.
// One row is one row of pixels of one image, (W, C) bytes. Each image has 1 + 2*C affine_params: whether it is flipped, what to add
// to each channel, and what to divide it by. The same as normalize_batch in loader.py; launched by cuda_prefetch.py.
extern "C" __global__ void normalize_batch(int rows, int columns, const unsigned char* pixels, const float* affine_params, float* images,
                                           int H, int C)
{
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows)
        return;
    affine_params += row / H * (1 + 2LL * C);
    for (int k = threadIdx.x; k < columns; k += blockDim.x) {
        int c = k % C;
        int from = affine_params[0] ? columns - C - (k - c) + c : k;        // the same channel of the mirrored pixel
        images[(long long)row * columns + k] = (pixels[(long long)row * columns + from] + affine_params[1 + c]) / affine_params[1 + C + c];
    }
}
