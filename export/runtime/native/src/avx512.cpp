// The AVX-512 kernel, with VPOPCNTDQ. The 16 lanes of a register are the 16 outputs of a block: a word of the window is
// copied to all lanes and compared with the weights of 16 outputs at once.
//
// A simple kernel takes three operations for a word: exclusive or, population count, add. This one takes five for a
// pair of words. Let t_k be the exclusive or of the k-th words of window and weights, in which a 1 is a mismatch, and
// let P_k = t_0 ^ ... ^ t_k. The mismatches are counted by carry-save addition, for each of the 32 bit positions on its
// own. A full adder turns P_1, t_2, t_3 into the sum bit P_3 and a carry, which is their majority and counts twice. The
// carry can also be computed from P_1, P_3 and t_2.
//
// The point is that t_3 is never needed: P_3 is (parity of the window's first words) ^ (parity of the weights' first
// words), where parity means the exclusive or of all words up to here. Both parities are computed beforehand, once for
// each window and once for the weights. So a pair takes two exclusive ors (for P_3 and t_2), one ternary operation (for
// the carry), and a count and an add for the carry. At the end the last P is counted once.
#include "kernel.h"

#if defined(__AVX512VPOPCNTDQ__)

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

namespace {

// The carry of a full adder of old, t and a third word, from their sum bit `sum` in place of the third word: (old ^ t)
// ? ~sum : old, which is the majority of (old, t, old ^ t ^ sum).
#define CARRY(old, sum, t) _mm512_ternarylogic_epi32(old, sum, t, 0xB2)

// See bnn_kernel::gather. Of each pair it writes the first word and the parity of all words up to the second.
void gather(const uint32_t* planes, const int64_t* offsets, int64_t words, int64_t count, uint32_t* windows,
            int64_t stride) {
    for (int64_t x = 0; x < count; x += 16) {
        __m512i parity = _mm512_setzero_si512();
        uint32_t* to = windows + x;
        int64_t k = 0;
        for (; k + 1 < words; k += 2, to += 2 * stride) {
            const __m512i even = _mm512_loadu_si512(planes + offsets[k] + x);
            const __m512i odd = _mm512_loadu_si512(planes + offsets[k + 1] + x);
            parity = _mm512_ternarylogic_epi32(parity, even, odd, 0x96);
            _mm512_storeu_si512(to, even);
            _mm512_storeu_si512(to + stride, parity);
        }
        if (k < words) {
            const __m512i even = _mm512_loadu_si512(planes + offsets[k] + x);
            _mm512_storeu_si512(to, even);
            _mm512_storeu_si512(to + stride, _mm512_xor_si512(parity, even));
        }
    }
}

// A tile: `n` neighbouring pixels and the 16 outputs of a block, whose sums are computed at once in registers. `n` is a
// compile-time constant. real: a mask of the lanes that are outputs.
struct Tile {
    const bnn_job* job;
    int64_t pixel, block;
    __mmask16 real;
    int n;
};

// Counts the mismatches of a tile: 16 numbers for each pixel.
INLINE void mismatches(const Tile tile, __m512i* result) {
    __m512i last[8], carries[8];
#pragma GCC unroll 8
    for (int i = 0; i < tile.n; ++i) last[i] = carries[i] = _mm512_setzero_si512();
    const uint32_t* weights = tile.job->weights + tile.block * tile.job->pairs * 32;
    const uint32_t *evens = tile.job->windows + tile.pixel, *parities = evens + tile.job->window_stride;
    const int64_t step = 2 * tile.job->window_stride;
    for (int64_t pair = tile.job->pairs; pair > 0; --pair, weights += 32, evens += step, parities += step) {
        const __m512i even = _mm512_load_si512(weights), parity = _mm512_load_si512(weights + 16);
#pragma GCC unroll 8
        for (int i = 0; i < tile.n; ++i) {
            const __m512i t = _mm512_xor_si512(even, _mm512_set1_epi32((int)evens[i]));
            const __m512i sum = _mm512_xor_si512(parity, _mm512_set1_epi32((int)parities[i]));
            carries[i] = _mm512_add_epi32(carries[i], _mm512_popcnt_epi32(CARRY(last[i], sum, t)));
            last[i] = sum;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < tile.n; ++i) {
        result[i] = _mm512_add_epi32(_mm512_add_epi32(carries[i], carries[i]), _mm512_popcnt_epi32(last[i]));
    }
}

// Writes the signs of a tile, to masks if the job has them (see bnn_job).
INLINE void store_signs(const Tile tile, const __mmask16* positive) {
    const bnn_job* const job = tile.job;
    if (job->masks) {
#pragma GCC unroll 8
        for (int i = 0; i < tile.n; ++i) {
            job->masks[(tile.pixel + i) * job->mask_stride + tile.block] = (uint16_t)(positive[i] & tile.real);
        }
        return;
    }
    uint8_t* to = job->signs + tile.pixel * job->sign_stride + 2 * tile.block;
#pragma GCC unroll 8
    for (int i = 0; i < tile.n; ++i, to += job->sign_stride) __builtin_memcpy(to, &positive[i], 2);
}

// Returns ReActNet's activation of y (see Epilogue). The order of the operands matters for NaN and -0.0: with this one
// they give the same results as in the file's standard operations.
INLINE __m512 rprelu(__m512 y, __m512 before, __m512 slope, __m512 after) {
    const __m512 moved = _mm512_add_ps(y, before), zero = _mm512_setzero_ps();
    const __m512 above = _mm512_max_ps(zero, moved), below = _mm512_min_ps(moved, zero);
    return _mm512_add_ps(_mm512_add_ps(above, _mm512_mul_ps(below, slope)), after);
}

// Computes the epilogue of a tile from its mismatches and writes the results. It takes one operation for all pixels,
// then the next one, so that a branch is taken once for a tile.
INLINE void finish(const Tile tile, const __m512i* mismatch) {
    const bnn_job* const job = tile.job;
    const int n = tile.n;
    const int32_t* const table = job->table + tile.block * 16;
    const int32_t* const offsets = job->table_offsets + tile.pixel;
    __mmask16 positive[8];
    if (job->kind == 1) {
#pragma GCC unroll 8
        for (int i = 0; i < n; ++i) {
            positive[i] = _mm512_cmple_epi32_mask(mismatch[i], _mm512_load_si512(table + offsets[i]));
        }
        store_signs(tile, positive);
        return;
    }
    const int64_t at = tile.pixel * job->stride + tile.block * 16;
    __m512 y[8];
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) {
        const __m512i doubled = _mm512_add_epi32(mismatch[i], mismatch[i]);
        const __m512i sum = _mm512_sub_epi32(_mm512_load_si512(table + offsets[i]), doubled);
        if (job->kind == 0) _mm512_mask_storeu_epi32(job->raw + at + i * job->stride, tile.real, sum);
        y[i] = _mm512_cvtepi32_ps(sum);
    }
    if (job->kind == 0) return;
    const __m512 scale = _mm512_load_ps(job->scale + tile.block * 16),
                 bias = _mm512_load_ps(job->bias + tile.block * 16);
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) y[i] = _mm512_add_ps(_mm512_mul_ps(y[i], scale), bias);
    if (job->add) {
        const float* const residual = job->residual + at;
#pragma GCC unroll 8
        for (int i = 0; i < n; ++i) {
            y[i] = _mm512_add_ps(y[i], _mm512_maskz_loadu_ps(tile.real, residual + i * job->stride));
        }
    }
    if (job->clip) {
        // With this order of the operands NaN stays NaN, as in the file's standard operation.
        const __m512 low = _mm512_set1_ps(job->low), high = _mm512_set1_ps(job->high);
#pragma GCC unroll 8
        for (int i = 0; i < n; ++i) y[i] = _mm512_min_ps(high, _mm512_max_ps(low, y[i]));
    }
    if (job->rprelu) {
        const __m512 before = _mm512_load_ps(job->before + tile.block * 16);
        const __m512 slope = _mm512_load_ps(job->slope + tile.block * 16);
        const __m512 after = _mm512_load_ps(job->after + tile.block * 16);
#pragma GCC unroll 8
        for (int i = 0; i < n; ++i) y[i] = rprelu(y[i], before, slope, after);
    }
    if (tile.real == 0xFFFF) {  // a masked store is slower than a plain one
#pragma GCC unroll 8
        for (int i = 0; i < n; ++i) _mm512_storeu_ps(job->y + at + i * job->stride, y[i]);
    } else {
#pragma GCC unroll 8
        for (int i = 0; i < n; ++i) _mm512_mask_storeu_ps(job->y + at + i * job->stride, tile.real, y[i]);
    }
    if (job->sign) {
        const __m512 level = _mm512_load_ps(job->level + tile.block * 16);
#pragma GCC unroll 8
        for (int i = 0; i < n; ++i) positive[i] = _mm512_cmp_ps_mask(y[i], level, _CMP_GE_OQ);
        store_signs(tile, positive);
    }
}

// Computes a tile, sums and epilogue.
INLINE void compute_tile(const bnn_job* job, int64_t pixel, int64_t block, __mmask16 real, int n) {
    const Tile tile = {job, pixel, block, real, n};
    if (job->kind == 2) {
        // Residual and result are usually not in the L1 cache, so they are fetched while the sums are computed.
        const int64_t at = pixel * job->stride + block * 16;
#pragma GCC unroll 8
        for (int i = 0; i < n; ++i) {
            if (job->add) _mm_prefetch((const char*)(job->residual + at + i * job->stride), _MM_HINT_T0);
            __builtin_prefetch(job->y + at + i * job->stride, 1);
        }
    }
    __m512i mismatch[8];
    mismatches(tile, mismatch);
    finish(tile, mismatch);
}

void compute(const bnn_job* job) {
    for (int64_t block = 0; block < job->blocks; ++block) {
        const int64_t left = job->outputs - block * 16;
        const __mmask16 real = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xFFFFu);
        int64_t pixel = 0;
        for (; pixel + 8 <= job->pixels; pixel += 8) compute_tile(job, pixel, block, real, 8);
        if (job->pixels - pixel >= 4) {
            compute_tile(job, pixel, block, real, 4);
            pixel += 4;
        }
        for (; pixel < job->pixels; ++pixel) compute_tile(job, pixel, block, real, 1);
    }
}

// Computes `n` neighbouring pixels of a float convolution for `blocks` blocks of outputs. Both are compile-time
// constants.
INLINE void float_tile(const bnn_float_job* job, int64_t pixel, int64_t block, int n, int blocks) {
    __m512 acc[16];
#pragma GCC unroll 16
    for (int i = 0; i < n * blocks; ++i) acc[i] = _mm512_setzero_ps();
    const float* const x = job->x + pixel * job->step;
    const float* weights = job->weights + block * job->depth * 16;
    for (int64_t k = 0; k < job->depth; ++k, weights += 16) {
        __m512 w[4];
#pragma GCC unroll 4
        for (int b = 0; b < blocks; ++b) w[b] = _mm512_load_ps(weights + b * job->depth * 16);
        const float* const from = x + job->offsets[k];
#pragma GCC unroll 8
        for (int i = 0; i < n; ++i) {
            const __m512 value = _mm512_set1_ps(from[i * job->step]);
#pragma GCC unroll 4
            for (int b = 0; b < blocks; ++b) acc[i * blocks + b] = _mm512_fmadd_ps(value, w[b], acc[i * blocks + b]);
        }
    }
    const __m512 low = _mm512_set1_ps(job->low), high = _mm512_set1_ps(job->high);
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) {
        float* const y = job->y + (pixel + i) * job->stride + block * 16;
#pragma GCC unroll 4
        for (int b = 0; b < blocks; ++b) {
            __m512 value = _mm512_add_ps(acc[i * blocks + b], _mm512_load_ps(job->bias + (block + b) * 16));
            if (job->clip) value = _mm512_min_ps(high, _mm512_max_ps(low, value));
            if (job->rprelu) {
                const int64_t lane = (block + b) * 16;
                value = rprelu(value, _mm512_load_ps(job->before + lane), _mm512_load_ps(job->slope + lane),
                               _mm512_load_ps(job->after + lane));
            }
            const int64_t left = job->outputs - (block + b) * 16;
            if (left >= 16) {
                _mm512_storeu_ps(y + b * 16, value);
            } else {
                _mm512_mask_storeu_ps(y + b * 16, (__mmask16)((1u << left) - 1), value);
            }
            if (job->signs) {
                const __m512 level = _mm512_load_ps(job->level + (block + b) * 16);
                const __mmask16 positive = _mm512_cmp_ps_mask(value, level, _CMP_GE_OQ);
                __builtin_memcpy(job->signs + (pixel + i) * job->sign_stride + 2 * (block + b), &positive, 2);
            }
        }
    }
}

void float_compute(const bnn_float_job* job) {
    int64_t block = 0;
    for (; block + 4 <= job->blocks; block += 4) {
        int64_t pixel = 0;
        for (; pixel + 4 <= job->pixels; pixel += 4) float_tile(job, pixel, block, 4, 4);
        for (; pixel < job->pixels; ++pixel) float_tile(job, pixel, block, 1, 4);
    }
    for (; block < job->blocks; ++block) {
        int64_t pixel = 0;
        for (; pixel + 8 <= job->pixels; pixel += 8) float_tile(job, pixel, block, 8, 1);
        for (; pixel < job->pixels; ++pixel) float_tile(job, pixel, block, 1, 1);
    }
}

// See bnn_kernel::signs.
void signs(const float* x, int64_t count, uint8_t* bytes) {
    const __m512 zero = _mm512_setzero_ps();
    int64_t i = 0;
    for (; i + 2 <= count; i += 2) {
        const __mmask16 positive = _mm512_cmp_ps_mask(_mm512_loadu_ps(x + 8 * i), zero, _CMP_GE_OQ);
        __builtin_memcpy(bytes + i, &positive, 2);
    }
    if (i < count) {
        const __m512 last = _mm512_maskz_loadu_ps(0xFF, x + 8 * i);
        bytes[i] = (uint8_t)_mm512_cmp_ps_mask(last, zero, _CMP_GE_OQ);
    }
}

// See bnn_kernel::level_signs.
void level_signs(const float* x, const float* level, int64_t pixels, int64_t count, uint8_t* bytes) {
    for (int64_t pixel = 0; pixel < pixels; ++pixel, x += 8 * count, bytes += count) {
        int64_t i = 0;
        for (; i + 2 <= count; i += 2) {
            const __m512 levels = _mm512_loadu_ps(level + 8 * i);
            const __mmask16 positive = _mm512_cmp_ps_mask(_mm512_loadu_ps(x + 8 * i), levels, _CMP_GE_OQ);
            __builtin_memcpy(bytes + i, &positive, 2);
        }
        if (i < count) {
            const __m512 last = _mm512_maskz_loadu_ps(0xFF, x + 8 * i);
            bytes[i] = (uint8_t)_mm512_cmp_ps_mask(last, _mm512_maskz_loadu_ps(0xFF, level + 8 * i), _CMP_GE_OQ);
        }
    }
}

}  // namespace

extern "C" const bnn_kernel bnn_kernel_avx512 = {"avx512", gather, compute, float_compute, signs, level_signs};

#else
#error "compile this file with -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vpopcntdq"
#endif
