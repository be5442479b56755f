// The mask of dropout, from the same random numbers that NumPy's Philox draws with the same key and counter. See dropout.py and
// backend/random.py.

#ifdef CUDASHIM                                             // compiled for a CPU
__device__ Word __umul64hi(Word a, Word b) { return (unsigned __int128)a * b >> 64; }
#endif

// Philox 4x64-10 (Salmon et al. 2011, table 2): ten rounds map a counter of four words to four random words, in place.
__device__ void philox(Word counter[4], Word key0, Word key1)
{
    for (int round = 0; round < 10; round++) {
        Word high0 = __umul64hi(0xD2E7470EE14C6C93, counter[0]), low0 = 0xD2E7470EE14C6C93 * counter[0];
        Word high1 = __umul64hi(0xCA5A826395121157, counter[2]), low1 = 0xCA5A826395121157 * counter[2];
        counter[0] = high1 ^ counter[1] ^ key0;
        counter[1] = low1;
        counter[2] = high0 ^ counter[3] ^ key1;
        counter[3] = low0;
        key0 += 0x9E3779B97F4A7C15;
        key1 += 0xBB67AE8584CAA73B;
    }
}

// Element i of the mask is 1 where its 16 bits of word i / 4 of the random stream, as a number, are at least `threshold`.
// The stream begins with word `skip` of the counter's block of four. Each thread computes one word, so 4 elements; the words are
// numbered in rows of `columns`.
extern "C" __global__ void keep_mask(int rows, int columns, unsigned char* mask, long long size, int threshold, int skip,
                                     Word key0, Word key1, Word counter0, Word counter1, Word counter2, Word counter3)
{
    long long word = (long long)blockIdx.x * columns + threadIdx.x;
    if (4 * word >= size)
        return;
    Word counter[4] = {counter0, counter1, counter2, counter3};
    Word addend = (word + skip) / 4;
    counter[0] += addend;
    for (int i = 1; i < 4 && counter[i - 1] < addend; i++) {    // the sum overflowed: carry 1 into the next word
        counter[i]++;
        addend = 1;
    }
    philox(counter, key0, key1);
    Word bits = counter[(word + skip) % 4];
    for (int i = 0; i < 4 && 4 * word + i < size; i++)
        mask[4 * word + i] = int(bits >> 16 * i & 0xffff) >= threshold;
}
