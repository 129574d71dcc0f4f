// The AVX2 kernel: the 8 lanes of a register are 8 outputs, half a block.
//
// Mismatches are counted as in avx512.cpp, with a carry for each pair of words. AVX2 has no ternary operation for the
// carry, so it is computed in another way, from parities alone: where P_2j is set, it is ~P_2j+1, elsewhere P_2j-1. For
// this both words of a pair of weights are parities (bnn_kernel::prefixes). A pair takes two exclusive ors, three
// operations for that select, six for the population count with a table of half bytes, and an add.
#include "kernel.h"

#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

namespace {

// Gathers the windows of 8 * count neighbouring pixels, as parities: each word is the exclusive or of all words up to
// it.
INLINE void gather_some(const uint32_t* planes, const int64_t* offsets, int64_t words, uint32_t* to, int64_t stride,
                        int count) {
    __m256i parity[4];
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) parity[i] = _mm256_setzero_si256();
    for (int64_t k = 0; k < words; ++k, to += stride) {
        const uint32_t* const from = planes + offsets[k];
#pragma GCC unroll 4
        for (int i = 0; i < count; ++i) {
            parity[i] = _mm256_xor_si256(parity[i], _mm256_loadu_si256((const __m256i*)(from + 8 * i)));
            _mm256_storeu_si256((__m256i*)(to + 8 * i), parity[i]);
        }
    }
    if (words % 2 == 0) return;
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) _mm256_storeu_si256((__m256i*)(to + 8 * i), parity[i]);
}

// See bnn_kernel::gather.
void gather(const uint32_t* planes, const int64_t* offsets, int64_t words, int64_t count, uint32_t* windows,
            int64_t stride) {
    int64_t x = 0;
    for (; x + 24 < count; x += 32) gather_some(planes + x, offsets, words, windows + x, stride, 4);
    if (x + 8 < count) {
        gather_some(planes + x, offsets, words, windows + x, stride, 2);
        x += 16;
    }
    if (x < count) gather_some(planes + x, offsets, words, windows + x, stride, 1);
}

// Counts the ones in each byte, with a table of the counts of all 16 half bytes.
INLINE __m256i count_bytes(__m256i x) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i half = _mm256_set1_epi8(15);
    const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(x, half));
    const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi32(x, 4), half));
    return _mm256_add_epi8(low, high);
}

// Maximum number of pixels in a tile.
constexpr int kMost = 4;

// Counts the mismatches of `n` neighbouring pixels with 8 outputs and multiplies them by `times`. Register 2 i of
// `result` is for pixel i.
INLINE void mismatches(const uint32_t* window, int64_t stride, const uint32_t* weights, int64_t pairs, int16_t times,
                       int n, __m256i* result) {
    __m256i last[kMost], carries[kMost];
    const __m256i factor = _mm256_set1_epi16(times);
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) last[i] = result[2 * i] = _mm256_setzero_si256();
    for (int64_t left = pairs;;) {
        // Carries are counted in bytes. A byte can count to 255, and each pair adds at most 8, so after 31 pairs the
        // bytes are added to 32-bit numbers.
        const int64_t some = left < 31 ? left : 31;
#pragma GCC unroll 4
        for (int i = 0; i < n; ++i) carries[i] = _mm256_setzero_si256();
        int64_t k = 0;
        do {
            const __m256i even = _mm256_load_si256((const __m256i*)weights);
            const __m256i parity = _mm256_load_si256((const __m256i*)(weights + 16));
#pragma GCC unroll 4
            for (int i = 0; i < n; ++i) {
                const __m256i first = _mm256_xor_si256(even, _mm256_set1_epi32((int)window[i]));
                const __m256i sum = _mm256_xor_si256(parity, _mm256_set1_epi32((int)window[stride + i]));
                // The carry is first ? ~sum : last, which is last ^ differ.
                const __m256i differ = _mm256_andnot_si256(_mm256_xor_si256(last[i], sum), first);
                carries[i] = _mm256_add_epi8(carries[i], count_bytes(_mm256_xor_si256(last[i], differ)));
                last[i] = sum;
                // Without this the compiler interleaves the pixels, which takes more registers than there are.
                __asm__("" : "+x"(carries[i]), "+x"(last[i]));
            }
            window += 2 * stride;
            weights += 32;
        } while (++k < some);
        left -= some;
        if (left == 0) break;
#pragma GCC unroll 4
        for (int i = 0; i < n; ++i) {
            const __m256i twice = _mm256_maddubs_epi16(carries[i], _mm256_set1_epi8(2));
            result[2 * i] = _mm256_add_epi32(result[2 * i], _mm256_madd_epi16(twice, factor));
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) {
        const __m256i twice = _mm256_maddubs_epi16(carries[i], _mm256_set1_epi8(2));
        const __m256i ones = _mm256_maddubs_epi16(count_bytes(last[i]), _mm256_set1_epi8(1));
        result[2 * i] = _mm256_add_epi32(result[2 * i], _mm256_madd_epi16(_mm256_add_epi16(twice, ones), factor));
    }
}

// Number of tiles whose mismatches are counted before `finish` is called for them.
constexpr int kStrip = 8;

// Counts the mismatches of `tiles` tiles of `n` pixels with the 16 outputs of a block, times `times`. Register 2 i of
// `result` is for the first 8 outputs of pixel i, 2 i + 1 for the others. It is not inlined because, together with
// `finish`, it would need more registers than there are.
template <int n>
__attribute__((noinline)) void strip_mismatches(const uint32_t* window, int64_t stride, const uint32_t* weights,
                                                int64_t pairs, int16_t times, int64_t tiles, __m256i* result) {
    for (int64_t tile = 0; tile < tiles; ++tile, window += n, result += 2 * n) {
#pragma GCC unroll 1
        for (int h = 0; h < 2; ++h) mismatches(window, stride, weights + 8 * h, pairs, times, n, result + h);
    }
}

// A tile: `n` neighbouring pixels and the 16 outputs of a block. `n` is a compile-time constant. `job` refers to a
// local copy, so that the compiler knows that no store changes it.
struct Tile {
    const bnn_job& job;
    int64_t pixel, block;
    int n;
    // Number of lanes from this block on that are outputs; results of other lanes are not written.
    int64_t real;
};

// Returns a register in which the first `count` lanes are all ones and the others 0.
INLINE __m256i lanes_below(int64_t count) {
    const int many = count < 8 ? (int)count : 8;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(many), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Returns 16 sign bits for each of two pixels, the first pixel's in the lower half. The arguments are lane masks, in
// which a lane is all ones or 0: a and b are for the first pixel, c and d for the second.
INLINE uint32_t sign_bits(__m256i a, __m256i b, __m256i c, __m256i d) {
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // because packing works on half registers
    return (uint32_t)_mm256_movemask_epi8(_mm256_permutevar8x32_epi32(bytes, order));
}

// Writes the signs of a tile, to masks if the job has them (see bnn_job). flip: 0xFFFF if the lanes of `positive` are
// set for -1 and not for +1.
INLINE void store_signs(const Tile tile, const __m256i* positive, unsigned flip) {
    const bnn_job& job = tile.job;
    const unsigned real = tile.real < 16 ? (1u << tile.real) - 1 : 0xFFFF;
#pragma GCC unroll 4
    for (int i = 0; i < tile.n; i += 2) {
        const __m256i *const first = positive + 2 * i, *const second = i + 1 < tile.n ? first + 2 : first;
        uint32_t both = sign_bits(first[0], first[1], second[0], second[1]);
#pragma GCC unroll 2
        for (int64_t pixel = tile.pixel + i; pixel < tile.pixel + (tile.n < 2 ? 1 : i + 2); ++pixel, both >>= 16) {
            const uint16_t here = (uint16_t)((both ^ flip) & real);
            if (job.masks) {
                job.masks[pixel * job.mask_stride + tile.block] = here;
            } else {
                __builtin_memcpy(job.signs + pixel * job.sign_stride + 2 * tile.block, &here, 2);
            }
        }
    }
}

// Returns ReActNet's activation of y (see Epilogue). The order of the operands matters for NaN and -0.0: with this one
// they give the same results as in the file's standard operations.
INLINE __m256 rprelu(__m256 y, __m256 before, __m256 slope, __m256 after) {
    const __m256 moved = _mm256_add_ps(y, before), zero = _mm256_setzero_ps();
    const __m256 above = _mm256_max_ps(zero, moved), below = _mm256_min_ps(moved, zero);
    return _mm256_add_ps(_mm256_add_ps(above, _mm256_mul_ps(below, slope)), after);
}

// Returns y clipped to [low, high]. With this order of the operands NaN stays NaN, as in the file's standard operation.
INLINE __m256 clip(__m256 y, __m256 low, __m256 high) { return _mm256_min_ps(high, _mm256_max_ps(low, y)); }

// Returns a lane mask: all ones where y >= level.
INLINE __m256i at_least(__m256 y, __m256 level) { return _mm256_castps_si256(_mm256_cmp_ps(y, level, _CMP_GE_OQ)); }

// Computes the epilogue of a tile from its mismatches and writes the results. It takes one operation for all pixels,
// then the next one, so that a branch is taken once for a tile. full: a compile-time constant that says whether all 16
// lanes are outputs; otherwise masked stores are needed, which are far slower than plain ones.
INLINE void finish(const Tile tile, const __m256i* mismatch, bool full) {
    const bnn_job& job = tile.job;
    const int all = 2 * tile.n;
    const int64_t lane = tile.block * 16;
    const __m256i real[2] = {lanes_below(tile.real), lanes_below(tile.real - 8)};
    const auto start = [&](int k) {
        const int32_t* const table = job.table + job.table_offsets[tile.pixel + k / 2] + lane + k % 2 * 8;
        return _mm256_load_si256((const __m256i*)table);
    };
    const auto at = [&](int k) { return (tile.pixel + k / 2) * job.stride + lane + k % 2 * 8; };
    const auto constant = [&](const float* values, int k) { return _mm256_load_ps(values + lane + k % 2 * 8); };
    __m256i positive[2 * kMost];
    if (job.kind == 1) {
#pragma GCC unroll 8
        for (int k = 0; k < all; ++k) positive[k] = _mm256_cmpgt_epi32(mismatch[k], start(k));
        return store_signs(tile, positive, 0xFFFF);
    }
    __m256 y[2 * kMost];
#pragma GCC unroll 8
    for (int k = 0; k < all; ++k) {
        const __m256i sum = _mm256_add_epi32(start(k), mismatch[k]);
        if (job.kind == 0) _mm256_maskstore_epi32(job.raw + at(k), real[k % 2], sum);
        y[k] = _mm256_cvtepi32_ps(sum);
    }
    if (job.kind == 0) return;
#pragma GCC unroll 8
    for (int k = 0; k < all; ++k) {
        y[k] = _mm256_add_ps(_mm256_mul_ps(y[k], constant(job.scale, k)), constant(job.bias, k));
    }
    if (job.add) {
#pragma GCC unroll 8
        for (int k = 0; k < all; ++k) {
            const float* const from = job.residual + at(k);
            y[k] = _mm256_add_ps(y[k], full ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, real[k % 2]));
        }
    }
    if (job.clip) {
        const __m256 low = _mm256_set1_ps(job.low), high = _mm256_set1_ps(job.high);
#pragma GCC unroll 8
        for (int k = 0; k < all; ++k) y[k] = clip(y[k], low, high);
    }
    if (job.rprelu) {
#pragma GCC unroll 8
        for (int k = 0; k < all; ++k) {
            y[k] = rprelu(y[k], constant(job.before, k), constant(job.slope, k), constant(job.after, k));
        }
    }
#pragma GCC unroll 8
    for (int k = 0; k < all; ++k) {
        if (full) {
            _mm256_storeu_ps(job.y + at(k), y[k]);
        } else {
            _mm256_maskstore_ps(job.y + at(k), real[k % 2], y[k]);
        }
    }
    if (job.sign) {
#pragma GCC unroll 8
        for (int k = 0; k < all; ++k) positive[k] = at_least(y[k], constant(job.level, k));
        store_signs(tile, positive, 0);
    }
}

// Computes `tiles` tiles of `n` pixels, sums and epilogue. tiles: at most kStrip; n: a compile-time constant.
template <int n>
INLINE void compute_strip(const bnn_job& job, int64_t pixel, int64_t block, int64_t tiles) {
    if (job.kind == 2 && job.stride > 16) {
        // Residual and result are usually not in the L1 cache, so they are fetched while the sums are computed. Where a
        // pixel has a single block they follow each other in memory, and the processor fetches them by itself.
        for (int64_t i = 0; i < n * tiles; ++i) {
            const int64_t at = (pixel + i) * job.stride + block * 16;
            if (job.add) __builtin_prefetch(job.residual + at);
            __builtin_prefetch(job.y + at, 1);
        }
    }
    __m256i mismatch[2 * n * kStrip];
    const int16_t times = job.kind == 1 ? 1 : -2;  // mismatches for a threshold; else a mismatch lowers the sum by 2
    strip_mismatches<n>(job.windows + pixel, job.window_stride, job.weights + block * job.pairs * 32, job.pairs, times,
                        tiles, mismatch);
    for (int64_t i = 0; i < tiles; ++i) {
        const Tile tile = {job, pixel + i * n, block, n, job.outputs - block * 16};
        if (tile.real >= 16) {
            finish(tile, mismatch + i * 2 * n, true);
        } else {
            finish(tile, mismatch + i * 2 * n, false);
        }
    }
}

void compute(const bnn_job* given) {
    const bnn_job job = *given;
    for (int64_t block = 0; block < job.blocks; ++block) {
        int64_t pixel = 0;
        while (pixel + kMost <= job.pixels) {
            const int64_t left = (job.pixels - pixel) / kMost, tiles = left < kStrip ? left : kStrip;
            compute_strip<kMost>(job, pixel, block, tiles);
            pixel += tiles * kMost;
        }
        if (pixel < job.pixels) compute_strip<1>(job, pixel, block, job.pixels - pixel);
    }
}

// Maximum number of pixels in a tile of a float convolution: of the 16 registers, two are sums of each pixel, and three
// are needed for other values.
constexpr int kMostFloats = 6;

// Computes `n` neighbouring pixels of a float convolution for the 16 outputs of a block. n: a compile-time constant.
INLINE void float_tile(const bnn_float_job* job, int64_t pixel, int64_t block, int n) {
    __m256 acc[2 * kMostFloats];
#pragma GCC unroll 12
    for (int i = 0; i < 2 * n; ++i) acc[i] = _mm256_setzero_ps();
    const float* const x = job->x + pixel * job->step;
    const float* weights = job->weights + block * job->depth * 16;
    for (int64_t k = 0; k < job->depth; ++k, weights += 16) {
        const __m256 first = _mm256_load_ps(weights), second = _mm256_load_ps(weights + 8);
        const float* const from = x + job->offsets[k];
#pragma GCC unroll 6
        for (int i = 0; i < n; ++i) {
            const __m256 value = _mm256_set1_ps(from[i * job->step]);
            acc[2 * i] = _mm256_fmadd_ps(value, first, acc[2 * i]);
            acc[2 * i + 1] = _mm256_fmadd_ps(value, second, acc[2 * i + 1]);
        }
    }
    const __m256 low = _mm256_set1_ps(job->low), high = _mm256_set1_ps(job->high);
    const int64_t lane = block * 16, real = job->outputs - lane;
    __m256i positive[2 * kMostFloats];
#pragma GCC unroll 12
    for (int k = 0; k < 2 * n; ++k) {
        const int64_t from = lane + k % 2 * 8;
        __m256 y = _mm256_add_ps(acc[k], _mm256_load_ps(job->bias + from));
        if (job->clip) y = clip(y, low, high);
        if (job->rprelu) {
            y = rprelu(y, _mm256_load_ps(job->before + from), _mm256_load_ps(job->slope + from),
                       _mm256_load_ps(job->after + from));
        }
        float* const to = job->y + (pixel + k / 2) * job->stride + from;
        if (real >= 16) {
            _mm256_storeu_ps(to, y);
        } else {
            _mm256_maskstore_ps(to, lanes_below(real - k % 2 * 8), y);
        }
        positive[k] = at_least(y, _mm256_load_ps(job->level + from));
    }
    if (!job->signs) return;
#pragma GCC unroll 6
    for (int i = 0; i < n; ++i) {
        const __m256i *const p = positive + 2 * i;
        const uint16_t here = (uint16_t)sign_bits(p[0], p[1], p[0], p[1]);
        __builtin_memcpy(job->signs + (pixel + i) * job->sign_stride + 2 * block, &here, 2);
    }
}

void float_compute(const bnn_float_job* job) {
    for (int64_t block = 0; block < job->blocks; ++block) {
        int64_t pixel = 0;
        // Six pixels at a time; but the last 8 are computed as 4 and 4, because 6, 1 and 1 would take longer.
        for (; pixel + 8 < job->pixels; pixel += kMostFloats) float_tile(job, pixel, block, kMostFloats);
        for (; pixel + 4 <= job->pixels; pixel += 4) float_tile(job, pixel, block, 4);
        for (; pixel < job->pixels; ++pixel) float_tile(job, pixel, block, 1);
    }
}

// See bnn_kernel::signs.
void signs(const float* x, int64_t count, uint8_t* bytes) {
    for (int64_t i = 0; i < count; ++i) {
        const __m256 positive = _mm256_cmp_ps(_mm256_loadu_ps(x + 8 * i), _mm256_setzero_ps(), _CMP_GE_OQ);
        bytes[i] = (uint8_t)_mm256_movemask_ps(positive);
    }
}

// See bnn_kernel::level_signs.
void level_signs(const float* x, const float* level, int64_t pixels, int64_t count, uint8_t* bytes) {
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        for (int64_t i = 0; i < count; ++i, x += 8) {
            const __m256 positive = _mm256_cmp_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(level + 8 * i), _CMP_GE_OQ);
            *bytes++ = (uint8_t)_mm256_movemask_ps(positive);
        }
    }
}

}  // namespace

extern "C" const bnn_kernel bnn_kernel_avx2 = {"avx2", gather, compute, float_compute, signs, level_signs, 1};

#else
#error "compile this file with -mavx2 -mfma"
#endif
