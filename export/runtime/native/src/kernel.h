// The interface of a kernel: the code for one instruction set, which computes most of a convolution. Words such as
// window, pair, block and lane are explained in layer.h.
//
// The interface is plain C data. A file that is compiled for a newer processor must share no inline function with the
// others: the linker keeps one copy of such a function, and that may be the one for the newer processor.
#pragma once

#include <stdint.h>

// The work of one call of `bnn_kernel::compute`: a binary convolution at some neighbouring output pixels, for some
// blocks of 16 outputs.
struct bnn_job {
    // Words of the pixels' windows, (pairs, 2, window_stride): the window of a pixel is a column. Which words they are
    // is explained at Layer::repack.
    const uint32_t* windows;
    int64_t window_stride, pairs, pixels;
    // Weights, (blocks, pairs, 2, 16), from the first block on. The last block may be partly empty: only the first
    // `outputs` of its lanes, counted from the first block's first lane, are outputs.
    const uint32_t* weights;
    int64_t blocks, outputs;
    // Where a pixel's numbers begin in the table, from which its sums are computed: see Plan::table.
    const int32_t *table_offsets, *table;
    // Constants of each lane; `before`, `slope` and `after` are those of RPReLU, `level` that of the sign. `residual`,
    // `y` (floats) and `raw` (sums) begin at the first pixel's first output; the next pixel's is `stride` elements on.
    const float *scale, *bias, *residual;
    const float *before, *slope, *after, *level;
    float* y;
    int32_t* raw;
    int64_t stride;
    // The results' signs, 16 bits per block, if all blocks are full. Otherwise they are written to `masks`, (pixels,
    // mask_stride), with 16 bits for each block, and packed together by the caller.
    uint8_t* signs;
    int64_t sign_stride;
    uint16_t* masks;
    int64_t mask_stride;
    int kind;  // what is written: 0 the sums, 1 signs by a threshold, 2 floats
    int add, clip, rprelu, sign;  // which operations follow the scaled sum, in this order
    float low, high;
};

// The work of one call of `bnn_kernel::float_compute`: a row of the output of a float convolution
// (float_convolution.h).
struct bnn_float_job {
    // The first pixel's window; the next pixel's begins `step` elements on.
    const float* x;
    int64_t step, pixels;
    const int64_t* offsets;  // (depth): where the window's values are, from its beginning
    int64_t depth;           // number of values in a window
    const float* weights;  // (blocks, depth, 16)
    const float* bias;     // (blocks, 16), and so are the next ones
    const float *before, *slope, *after, *level;
    int64_t blocks, outputs;
    float* y;
    int64_t stride;
    uint8_t* signs;  // 16 bits per block; null if there are none, or if a block is partly empty
    int64_t sign_stride;
    int clip, rprelu;
    float low, high;
};

struct bnn_kernel {
    const char* name;
    // Copies the windows of `count` neighbouring output pixels from `planes` (see Plan) to `windows`, (pairs, 2,
    // stride). offsets: where the `words` words of the first pixel's window are. It reads and writes whole registers,
    // up to 15 words past the last one.
    void (*gather)(const uint32_t* planes, const int64_t* offsets, int64_t words, int64_t count, uint32_t* windows,
                   int64_t stride);
    void (*compute)(const bnn_job*);
    void (*float_compute)(const bnn_float_job*);
    // Packs the signs of 8 * count floats to count bytes.
    void (*signs)(const float* x, int64_t count, uint8_t* bytes);
    // Packs the signs of floats (pixels, 8 * count) to bytes (pixels, count). A sign is +1 where the float is at least
    // its channel's level.
    void (*level_signs)(const float* x, const float* level, int64_t pixels, int64_t count, uint8_t* bytes);
    // Whether both words of a pair of weights must be parities, and not only the second: see Layer::prefix.
    int prefixes;
};

extern "C" const bnn_kernel bnn_kernel_avx2;
extern "C" const bnn_kernel bnn_kernel_avx512;
extern "C" const bnn_kernel bnn_kernel_neon;
