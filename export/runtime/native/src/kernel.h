// The interface of a kernel, which is compiled for one instruction set. It is plain data: files that are compiled for a
// newer processor must share no inline function with the others, because the linker keeps one copy of it, which may be
// the one for the newer processor.
#pragma once

#include <stdint.h>

struct bnn_job {
    // Words of the windows, (pairs, 2, window_stride); a window is a column. See Layer::repack.
    const uint32_t* windows;
    int64_t window_stride, pairs, pixels;
    // Weights from the first block on, (blocks, pairs, 2, 16); `outputs` of the lanes are outputs.
    const uint32_t* weights;
    int64_t blocks, outputs;
    // Index in the table of the first number of each pixel's class, see Plan::table.
    const int32_t *table_offsets, *table;
    // Constants of each lane. `residual`, `y` and `raw` begin at the first pixel's first output, and the next pixel is
    // `stride` elements further.
    const float *scale, *bias, *residual;
    const float *before, *slope, *after, *level;
    float* y;
    int32_t* raw;
    int64_t stride;
    // 16 sign bits per block, if all blocks are full; otherwise they go to `masks`, (pixels, mask_stride).
    uint8_t* signs;
    int64_t sign_stride;
    uint16_t* masks;
    int64_t mask_stride;
    int kind;  // 0 raw, 1 threshold, 2 float
    int add, clip, rprelu, sign;
    float low, high;
};

// A row of the output of a float convolution, see float_convolution.h.
struct bnn_float_job {
    // The first pixel's window; the next pixel's begins `step` elements further.
    const float* x;
    int64_t step, pixels;
    const int64_t* offsets;  // (depth), from the beginning of a window
    int64_t depth;
    const float* weights;  // (blocks, depth, 16)
    const float* bias;     // (blocks, 16), as the next ones
    const float *before, *slope, *after, *level;
    int64_t blocks, outputs;
    float* y;
    int64_t stride;
    uint8_t* signs;  // or null; 16 bits per block, all of them full
    int64_t sign_stride;
    int clip, rprelu;
    float low, high;
};

struct bnn_kernel {
    const char* name;
    // Gathers the windows (pairs, 2, stride) of `count` neighbouring pixels; offsets: of the `words` words of a window.
    // Whole registers are read and written, which is up to 15 words behind the last one.
    void (*gather)(const uint32_t* planes, const int64_t* offsets, int64_t words, int64_t count, uint32_t* windows,
                   int64_t stride);
    void (*compute)(const bnn_job*);
    void (*float_compute)(const bnn_float_job*);
    // Packs the signs of 8 * count floats to count bytes.
    void (*signs)(const float* x, int64_t count, uint8_t* bytes);
    // Packs the signs of floats (pixels, 8 * count) to bytes (pixels, count): +1 from the channel's level on.
    void (*level_signs)(const float* x, const float* level, int64_t pixels, int64_t count, uint8_t* bytes);
    // Whether the first word of a pair of weights must be a parity like the second, see Layer::prefix.
    int prefixes;
};

extern "C" const bnn_kernel bnn_kernel_avx2;
extern "C" const bnn_kernel bnn_kernel_avx512;
extern "C" const bnn_kernel bnn_kernel_neon;
