// What a kernel of one instruction set gets and does. Plain data only: the files that are compiled for a newer
// processor must share no inline function with the others, because the linker keeps one copy and may keep the wrong
// one.
#pragma once

#include <stdint.h>

struct bnn_job {
    // Words of the windows, (pairs, 2, window_stride), see Layer::repack; a window is a column.
    const uint32_t* windows;
    int64_t window_stride, pairs, pixels;
    // Weights of the first block, (blocks, pairs, 2, 16); `outputs` of the lanes are real.
    const uint32_t* weights;
    int64_t blocks, outputs;
    // Where the numbers of each pixel's class begin in the table, see Plan::table.
    const int32_t *table_offsets, *table;
    // For each lane. `residual`, `y` and `raw` begin at the first pixel's first output; a pixel takes `stride`
    // elements.
    const float *scale, *bias, *residual;
    const float *before, *slope, *after, *level;
    float* y;
    int32_t* raw;
    int64_t stride;
    // 16 bits per block. Only where blocks are full; otherwise `masks`, (pixels, mask_stride) gets them.
    uint8_t* signs;
    int64_t sign_stride;
    uint16_t* masks;
    int64_t mask_stride;
    int kind;  // 0 raw, 1 threshold, 2 float
    int add, clip, rprelu, sign;
    float low, high;
};

// A row of a float convolution, see float_convolution.h.
struct bnn_float_job {
    // The first pixel's window; a pixel's neighbour begins `step` elements further.
    const float* x;
    int64_t step, pixels;
    const int64_t* offsets;  // (depth) from where a window begins
    int64_t depth;
    const float* weights;  // (blocks, depth, 16)
    const float* bias;     // (blocks, 16), as those that follow
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
    // Windows (pairs, 2, stride) of `count` neighbours in a row, from the offsets of the `words` words of one window.
    // Registers are read and written whole: up to 15 words behind the last one.
    void (*gather)(const uint32_t* planes, const int64_t* offsets, int64_t words, int64_t count, uint32_t* windows,
                   int64_t stride);
    void (*compute)(const bnn_job*);
    void (*float_compute)(const bnn_float_job*);
    // 8 * count floats -> count bytes of signs.
    void (*signs)(const float* x, int64_t count, uint8_t* bytes);
    // (pixels, 8 * count) floats -> (pixels, count) bytes of signs: +1 from the channel's level on.
    void (*level_signs)(const float* x, const float* level, int64_t pixels, int64_t count, uint8_t* bytes);
    // The weights' first word of a pair is to be a parity like the second, see Layer::prefix.
    int prefixes;
};

extern "C" const bnn_kernel bnn_kernel_avx2;
extern "C" const bnn_kernel bnn_kernel_avx512;
extern "C" const bnn_kernel bnn_kernel_neon;
