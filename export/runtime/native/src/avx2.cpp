// AVX2: 8 outputs to a register, half a block. The sums are those of avx512.cpp: five operations there, a few more
// here, where three-operand logic and the population count are made of plain ones.
#include "kernel.h"

#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

namespace {

void gather(const uint32_t* planes, const int64_t* offsets, int64_t words, int64_t count, uint32_t* windows,
            int64_t stride) {
    for (int64_t x = 0; x < count; x += 8) {
        __m256i parity = _mm256_setzero_si256();
        uint32_t* to = windows + x;
        for (int64_t k = 0; k < words; k += 2, to += 2 * stride) {
            const __m256i even = _mm256_loadu_si256((const __m256i*)(planes + offsets[k] + x));
            parity = _mm256_xor_si256(parity, even);
            if (k + 1 < words) {
                parity = _mm256_xor_si256(parity, _mm256_loadu_si256((const __m256i*)(planes + offsets[k + 1] + x)));
            }
            _mm256_storeu_si256((__m256i*)to, even);
            _mm256_storeu_si256((__m256i*)(to + stride), parity);
        }
    }
}

// Ones in each byte, from a table of the 16 half bytes.
INLINE __m256i count_bytes(__m256i x) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i half = _mm256_set1_epi8(15);
    const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(x, half));
    const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi32(x, 4), half));
    return _mm256_add_epi8(low, high);
}

// 32-bit sums of four bytes each.
INLINE __m256i widen(__m256i bytes) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1)), _mm256_set1_epi16(1));
}

// Mismatches of `n` neighbouring pixels with 8 outputs.
INLINE void mismatches(const bnn_job* job, const uint32_t* weights, int64_t pixel, int n, __m256i* result) {
    __m256i last[4], carries[4];
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) last[i] = result[i] = _mm256_setzero_si256();
    const uint32_t* window = job->windows + pixel;
    const int64_t stride = job->window_stride;
    for (int64_t pair = 0; pair < job->pairs;) {
        // A byte holds 255, and a count adds at most 8.
        const int64_t stop = job->pairs - pair < 31 ? job->pairs : pair + 31;
#pragma GCC unroll 4
        for (int i = 0; i < n; ++i) carries[i] = _mm256_setzero_si256();
        for (; pair < stop; ++pair, window += 2 * stride, weights += 32) {
            const __m256i even = _mm256_load_si256((const __m256i*)weights);
            const __m256i parity = _mm256_load_si256((const __m256i*)(weights + 16));
#pragma GCC unroll 4
            for (int i = 0; i < n; ++i) {
                const __m256i t = _mm256_xor_si256(even, _mm256_set1_epi32((int)window[i]));
                const __m256i sum = _mm256_xor_si256(parity, _mm256_set1_epi32((int)window[stride + i]));
                // (last ^ t) ? ~sum : last
                const __m256i differ =
                    _mm256_andnot_si256(_mm256_xor_si256(last[i], sum), _mm256_xor_si256(last[i], t));
                carries[i] = _mm256_add_epi8(carries[i], count_bytes(_mm256_xor_si256(last[i], differ)));
                last[i] = sum;
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < n; ++i) result[i] = _mm256_add_epi32(result[i], widen(carries[i]));
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) {
        result[i] = _mm256_add_epi32(_mm256_add_epi32(result[i], result[i]), widen(count_bytes(last[i])));
    }
}

INLINE __m256i lanes_below(int64_t count) {
    const int many = count < 8 ? (int)count : 8;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(many), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE void store_signs(const bnn_job* job, int64_t pixel, int64_t eight, __m256i positive, __m256i real) {
    const int bits = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_and_si256(positive, real)));
    if (job->masks) {
        ((uint8_t*)(job->masks + pixel * job->mask_stride))[eight] = (uint8_t)bits;
    } else {
        job->signs[pixel * job->sign_stride + eight] = (uint8_t)bits;
    }
}

// The order of operands is that of the standard operations for a NaN and for -0.0.
INLINE __m256 rprelu(__m256 y, const float* before, const float* slope, const float* after) {
    const __m256 moved = _mm256_add_ps(y, _mm256_load_ps(before)), zero = _mm256_setzero_ps();
    const __m256 above = _mm256_max_ps(zero, moved), below = _mm256_min_ps(moved, zero);
    const __m256 bent = _mm256_add_ps(above, _mm256_mul_ps(below, _mm256_load_ps(slope)));
    return _mm256_add_ps(bent, _mm256_load_ps(after));
}

INLINE __m256 at_least(__m256 y, const float* level) { return _mm256_cmp_ps(y, _mm256_load_ps(level), _CMP_GE_OQ); }

INLINE void finish(const bnn_job* job, int64_t pixel, int64_t eight, __m256i real, __m256i mismatch) {
    const int32_t* table = job->table + job->table_offsets[pixel] + eight * 8;
    const __m256i start = _mm256_load_si256((const __m256i*)table);
    if (job->kind == 1) {
        const __m256i negative = _mm256_cmpgt_epi32(mismatch, start);
        store_signs(job, pixel, eight, _mm256_xor_si256(negative, _mm256_set1_epi32(-1)), real);
        return;
    }
    const __m256i sum = _mm256_sub_epi32(start, _mm256_add_epi32(mismatch, mismatch));
    const int64_t at = pixel * job->stride + eight * 8;
    if (job->kind == 0) {
        _mm256_maskstore_epi32(job->raw + at, real, sum);
        return;
    }
    __m256 y = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_load_ps(job->scale + eight * 8));
    y = _mm256_add_ps(y, _mm256_load_ps(job->bias + eight * 8));
    if (job->add) y = _mm256_add_ps(y, _mm256_maskload_ps(job->residual + at, real));
    if (job->clip) {
        // In this order of operands a NaN stays NaN, as in the standard operation.
        y = _mm256_max_ps(_mm256_set1_ps(job->low), y);
        y = _mm256_min_ps(_mm256_set1_ps(job->high), y);
    }
    const int64_t lane = eight * 8;
    if (job->rprelu) y = rprelu(y, job->before + lane, job->slope + lane, job->after + lane);
    _mm256_maskstore_ps(job->y + at, real, y);
    if (job->sign) store_signs(job, pixel, eight, _mm256_castps_si256(at_least(y, job->level + lane)), real);
}

INLINE void tile(const bnn_job* job, int64_t pixel, int64_t eight, __m256i real, int n) {
    __m256i result[4];
    mismatches(job, job->weights + eight / 2 * job->pairs * 32 + eight % 2 * 8, pixel, n, result);
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) finish(job, pixel + i, eight, real, result[i]);
}

void compute(const bnn_job* job) {
    for (int64_t eight = 0; eight < 2 * job->blocks; ++eight) {
        const __m256i real = lanes_below(job->outputs - eight * 8);
        int64_t pixel = 0;
        for (; pixel + 4 <= job->pixels; pixel += 4) tile(job, pixel, eight, real, 4);
        for (; pixel < job->pixels; ++pixel) tile(job, pixel, eight, real, 1);
    }
}

// `n` neighbouring pixels and the 16 outputs of a block.
INLINE void float_tile(const bnn_float_job* job, int64_t pixel, int64_t block, int n) {
    __m256 acc[8];
#pragma GCC unroll 8
    for (int i = 0; i < 2 * n; ++i) acc[i] = _mm256_setzero_ps();
    const float* const x = job->x + pixel * job->step;
    const float* weights = job->weights + block * job->depth * 16;
    for (int64_t k = 0; k < job->depth; ++k, weights += 16) {
        const __m256 first = _mm256_load_ps(weights), second = _mm256_load_ps(weights + 8);
        const float* const from = x + job->offsets[k];
#pragma GCC unroll 4
        for (int i = 0; i < n; ++i) {
            const __m256 value = _mm256_set1_ps(from[i * job->step]);
            acc[2 * i] = _mm256_fmadd_ps(value, first, acc[2 * i]);
            acc[2 * i + 1] = _mm256_fmadd_ps(value, second, acc[2 * i + 1]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2 * n; ++i) {
        const int64_t eight = 2 * block + i % 2, at = pixel + i / 2;
        if (job->outputs <= eight * 8) continue;
        __m256 y = _mm256_add_ps(acc[i], _mm256_load_ps(job->bias + eight * 8));
        if (job->clip) {
            y = _mm256_max_ps(_mm256_set1_ps(job->low), y);
            y = _mm256_min_ps(_mm256_set1_ps(job->high), y);
        }
        const int64_t lane = eight * 8;
        if (job->rprelu) y = rprelu(y, job->before + lane, job->slope + lane, job->after + lane);
        _mm256_maskstore_ps(job->y + at * job->stride + lane, lanes_below(job->outputs - lane), y);
        if (job->signs) {
            const int bits = _mm256_movemask_ps(at_least(y, job->level + lane));
            job->signs[at * job->sign_stride + eight] = (uint8_t)bits;
        }
    }
}

void float_compute(const bnn_float_job* job) {
    for (int64_t block = 0; block < job->blocks; ++block) {
        int64_t pixel = 0;
        for (; pixel + 4 <= job->pixels; pixel += 4) float_tile(job, pixel, block, 4);
        for (; pixel < job->pixels; ++pixel) float_tile(job, pixel, block, 1);
    }
}

void signs(const float* x, int64_t count, uint8_t* bytes) {
    for (int64_t i = 0; i < count; ++i) {
        const __m256 positive = _mm256_cmp_ps(_mm256_loadu_ps(x + 8 * i), _mm256_setzero_ps(), _CMP_GE_OQ);
        bytes[i] = (uint8_t)_mm256_movemask_ps(positive);
    }
}

void level_signs(const float* x, const float* level, int64_t pixels, int64_t count, uint8_t* bytes) {
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        for (int64_t i = 0; i < count; ++i, x += 8) {
            const __m256 positive = _mm256_cmp_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(level + 8 * i), _CMP_GE_OQ);
            *bytes++ = (uint8_t)_mm256_movemask_ps(positive);
        }
    }
}

}  // namespace

extern "C" const bnn_kernel bnn_kernel_avx2 = {"avx2", gather, compute, float_compute, signs, level_signs};

#else
#error "compile this file with -mavx2 -mfma"
#endif
