// The NEON kernel, for all aarch64 processors: the 4 lanes of a register are 4 outputs, a quarter of a block.
//
// Mismatches are counted as in avx512.cpp, with a carry for each pair of words. NEON has no ternary operation for the
// carry, but a select bit by bit: where P_2j is set, the carry is ~P_2j+1, elsewhere P_2j-1. For this both words of a
// pair of weights are parities (bnn_kernel::prefixes). A pair takes two exclusive ors, a select, a count and an add.
//
// The select needs one of its two parities inverted. To save an operation, `gather` stores the second parity of the
// first pair, the third pair and so on inverted. Then the select gives the carry for these pairs, and the inverted
// carry for the pairs between them. A byte of an inverted carry has 8 - count ones, for which the counts start with 8.
#include "kernel.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#define INLINE static inline __attribute__((always_inline))

namespace {

constexpr int kQuarters = 4;  // number of registers for the outputs of a block

// Gathers the windows of 4 * count neighbouring pixels, as parities: each word is the exclusive or of all words up to
// it. The second one of every other pair is inverted.
INLINE void gather_some(const uint32_t* planes, const int64_t* offsets, int64_t words, uint32_t* to, int64_t stride,
                        int count) {
    uint32x4_t parity[4];
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) parity[i] = vdupq_n_u32(0);
    uint32x4_t invert = vdupq_n_u32(~0u);
    for (int64_t k = 0; k < words; k += 2, to += 2 * stride, invert = vmvnq_u32(invert)) {
        const uint32_t* const even = planes + offsets[k];
#pragma GCC unroll 4
        for (int i = 0; i < count; ++i) {
            parity[i] = veorq_u32(parity[i], vld1q_u32(even + 4 * i));
            vst1q_u32(to + 4 * i, parity[i]);
        }
        if (k + 1 < words) {
            const uint32_t* const odd = planes + offsets[k + 1];
#pragma GCC unroll 4
            for (int i = 0; i < count; ++i) parity[i] = veorq_u32(parity[i], vld1q_u32(odd + 4 * i));
        }
#pragma GCC unroll 4
        for (int i = 0; i < count; ++i) vst1q_u32(to + stride + 4 * i, veorq_u32(parity[i], invert));
    }
}

// See bnn_kernel::gather.
void gather(const uint32_t* planes, const int64_t* offsets, int64_t words, int64_t count, uint32_t* windows,
            int64_t stride) {
    int64_t x = 0;
    for (; x + 12 < count; x += 16) gather_some(planes + x, offsets, words, windows + x, stride, 4);
    if (x + 4 < count) {
        gather_some(planes + x, offsets, words, windows + x, stride, 2);
        x += 8;
    }
    if (x < count) gather_some(planes + x, offsets, words, windows + x, stride, 1);
}

// Returns a word in all lanes. It is loaded to a general register first, because a load to all lanes would occupy the
// pipelines that do the counting.
INLINE uint32x4_t everywhere(const uint32_t* word) {
    uint32_t value = *word;
    __asm__("" : "+r"(value));
    return vdupq_n_u32(value);
}

// Counts the ones in each byte.
INLINE uint8x16_t ones(uint32x4_t x) { return vcntq_u8(vreinterpretq_u8_u32(x)); }

// Returns the sum of the four bytes of each 32-bit lane.
INLINE uint32x4_t widen(uint8x16_t bytes) { return vpaddlq_u16(vpaddlq_u8(bytes)); }

// A tile: `n` neighbouring pixels and the 16 outputs of a block. `n` is a compile-time constant.
struct Tile {
    const bnn_job* job;
    int64_t pixel, block;
    int n;
    // Number of lanes from this block on that are outputs; results of other lanes are not written.
    int64_t real;
};

// How far the counting of a tile is: the positions in windows and weights, the last parities, and the carries counted
// so far, in bytes.
struct Sums {
    const uint32_t *window, *weights;
    uint32x4_t last[2 * kQuarters];
    uint8x16_t carries[2 * kQuarters];
};

// Counts one pair of words. odd: a compile-time constant that says whether the pair is one whose second parity is not
// inverted in the windows, so that the select gives the inverted carry.
INLINE void pair_of_words(Sums& s, int64_t stride, int n, bool odd) {
    uint32x4_t first[2], second[2];
#pragma GCC unroll 2
    for (int i = 0; i < n; ++i) {
        first[i] = everywhere(s.window + i);
        second[i] = everywhere(s.window + stride + i);
    }
#pragma GCC unroll 4
    for (int q = 0; q < kQuarters; ++q) {
        const uint32x4_t even = vld1q_u32(s.weights + 4 * q), parity = vld1q_u32(s.weights + 16 + 4 * q);
#pragma GCC unroll 2
        for (int i = 0; i < n; ++i) {
            const int at = i * kQuarters + q;
            const uint32x4_t sum = veorq_u32(parity, second[i]);
            const uint8x16_t count = ones(vbslq_u32(veorq_u32(even, first[i]), sum, s.last[at]));
            s.carries[at] = odd ? vsubq_u8(s.carries[at], count) : vaddq_u8(s.carries[at], count);
            s.last[at] = sum;
        }
    }
    s.window += 2 * stride;
    s.weights += 32;
}

// Counts the mismatches of a tile: 16 numbers for each pixel.
INLINE void mismatches(const Tile tile, uint32x4_t* result) {
    const int n = tile.n;
    const int64_t stride = tile.job->window_stride, pairs = tile.job->pairs;
    Sums s;
    s.window = tile.job->windows + tile.pixel;
    s.weights = tile.job->weights + tile.block * pairs * 32;
#pragma GCC unroll 8
    for (int k = 0; k < n * kQuarters; ++k) s.last[k] = result[k] = vdupq_n_u32(0);
    for (int64_t left = pairs; left > 0;) {
        // Carries are counted in bytes. A byte can count to 255, and a pair adds at most 8, so 15 times two pairs are
        // counted before the bytes are widened. An odd pair subtracts 8 - count instead of adding count. So a byte
        // starts with 8 for each odd pair.
        const int64_t twice = left < 30 ? left / 2 : 15;
        const uint8x16_t start = vdupq_n_u8((uint8_t)(8 * twice));
#pragma GCC unroll 8
        for (int k = 0; k < n * kQuarters; ++k) s.carries[k] = start;
        for (int64_t k = 0; k < twice; ++k) {
            pair_of_words(s, stride, n, false);
            pair_of_words(s, stride, n, true);
        }
        left -= 2 * twice;
        if (left == 1) {
            pair_of_words(s, stride, n, false);
            left = 0;
        }
#pragma GCC unroll 8
        for (int k = 0; k < n * kQuarters; ++k) result[k] = vpadalq_u16(result[k], vpaddlq_u8(s.carries[k]));
    }
    const uint32x4_t invert = vdupq_n_u32(pairs % 2 ? ~0u : 0);
#pragma GCC unroll 8
    for (int k = 0; k < n * kQuarters; ++k) {
        result[k] = vaddq_u32(vaddq_u32(result[k], result[k]), widen(ones(veorq_u32(s.last[k], invert))));
    }
}

// Returns 16 sign bits for each of `n` pixels, at most 2, the first pixel's in the lower half. positive: four registers
// for each pixel, in which a lane is all ones or 0.
INLINE uint32_t bits(const uint32x4_t* positive, int n) {
    const uint8x16_t weights = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t bytes[2];
#pragma GCC unroll 2
    for (int i = 0; i < n; ++i) {
        const uint32x4_t* const p = positive + i * kQuarters;
        const uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(p[0]), vreinterpretq_u16_u32(p[1]));
        const uint16x8_t high = vuzp1q_u16(vreinterpretq_u16_u32(p[2]), vreinterpretq_u16_u32(p[3]));
        bytes[i] = vandq_u8(vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)), weights);
    }
    uint8x16_t sums = vpaddq_u8(bytes[0], bytes[n - 1]);
    sums = vpaddq_u8(sums, sums);
    sums = vpaddq_u8(sums, sums);
    return vgetq_lane_u32(vreinterpretq_u32_u8(sums), 0);
}

// Writes the signs of a tile, to masks if the job has them (see bnn_job).
INLINE void store_signs(const Tile tile, const uint32x4_t* positive) {
    const bnn_job* const job = tile.job;
    uint32_t both = bits(positive, tile.n);
    const uint32_t real = tile.real < 16 ? (1u << tile.real) - 1 : 0xFFFF;
#pragma GCC unroll 2
    for (int i = 0; i < tile.n; ++i, both >>= 16) {
        const uint16_t here = (uint16_t)(both & real);
        if (job->masks) {
            job->masks[(tile.pixel + i) * job->mask_stride + tile.block] = here;
        } else {
            __builtin_memcpy(job->signs + (tile.pixel + i) * job->sign_stride + 2 * tile.block, &here, 2);
        }
    }
}

// These load and store a register of which only the first `real` lanes are outputs. Other lanes are read as 0 and not
// written.
INLINE float32x4_t load_some(const float* from, int64_t real) {
    if (real >= 4) return vld1q_f32(from);
    float lanes[4] = {0, 0, 0, 0};
    for (int64_t i = 0; i < real; ++i) lanes[i] = from[i];
    return vld1q_f32(lanes);
}

INLINE void store_some(float* to, int64_t real, float32x4_t y) {
    if (real >= 4) return vst1q_f32(to, y);
    float lanes[4];
    vst1q_f32(lanes, y);
    for (int64_t i = 0; i < real; ++i) to[i] = lanes[i];
}

// Returns y clipped to [low, high]. It compares and selects, because NEON's maximum and minimum treat NaN and -0.0 in
// another way than portable.cpp.
INLINE float32x4_t clip(float32x4_t y, float32x4_t low, float32x4_t high) {
    y = vbslq_f32(vcltq_f32(y, low), low, y);
    return vbslq_f32(vcgtq_f32(y, high), high, y);
}

// Returns ReActNet's activation of y (see Epilogue).
INLINE float32x4_t rprelu(float32x4_t y, const float* before, const float* slope, const float* after) {
    const float32x4_t moved = vaddq_f32(y, vld1q_f32(before));
    const uint32x4_t lower = vcltzq_f32(moved);
    const float32x4_t above = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(moved), lower));
    const float32x4_t below = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(moved), lower));
    return vaddq_f32(vaddq_f32(above, vmulq_f32(below, vld1q_f32(slope))), vld1q_f32(after));
}

// Computes the epilogue of a tile from its mismatches and writes the results. It takes one operation for all pixels,
// then the next one, so that a branch is taken once for a tile. full: a compile-time constant that says whether all 16
// lanes are outputs.
INLINE void finish(const Tile tile, const uint32x4_t* mismatch, bool full) {
    const bnn_job* const job = tile.job;
    const int all = tile.n * kQuarters;
    const int64_t lane = tile.block * 16;
    const auto real = [&](int k) { return full ? 4 : tile.real - k % kQuarters * 4; };
    const auto at = [&](int k) { return (tile.pixel + k / kQuarters) * job->stride + lane + k % kQuarters * 4; };
    const auto start = [&](int k) {
        return vld1q_s32(job->table + job->table_offsets[tile.pixel + k / kQuarters] + lane + k % kQuarters * 4);
    };
    uint32x4_t positive[2 * kQuarters];
    if (job->kind == 1) {
#pragma GCC unroll 8
        for (int k = 0; k < all; ++k) positive[k] = vcleq_s32(vreinterpretq_s32_u32(mismatch[k]), start(k));
        return store_signs(tile, positive);
    }
    float32x4_t y[2 * kQuarters];
#pragma GCC unroll 8
    for (int k = 0; k < all; ++k) {
        const int32x4_t sum = vsubq_s32(start(k), vreinterpretq_s32_u32(vshlq_n_u32(mismatch[k], 1)));
        if (job->kind == 0) {
            if (real(k) > 0) store_some((float*)job->raw + at(k), real(k), vreinterpretq_f32_s32(sum));
        }
        y[k] = vcvtq_f32_s32(sum);
    }
    if (job->kind == 0) return;
#pragma GCC unroll 4
    for (int q = 0; q < kQuarters; ++q) {
        const float32x4_t scale = vld1q_f32(job->scale + lane + 4 * q), bias = vld1q_f32(job->bias + lane + 4 * q);
#pragma GCC unroll 2
        for (int k = q; k < all; k += kQuarters) y[k] = vaddq_f32(vmulq_f32(y[k], scale), bias);
    }
    if (job->add) {
#pragma GCC unroll 8
        for (int k = 0; k < all; ++k) {
            if (real(k) > 0) y[k] = vaddq_f32(y[k], load_some(job->residual + at(k), real(k)));
        }
    }
    if (job->clip) {
        const float32x4_t low = vdupq_n_f32(job->low), high = vdupq_n_f32(job->high);
#pragma GCC unroll 8
        for (int k = 0; k < all; ++k) y[k] = clip(y[k], low, high);
    }
    if (job->rprelu) {
#pragma GCC unroll 8
        for (int k = 0; k < all; ++k) {
            const int64_t from = lane + k % kQuarters * 4;
            y[k] = rprelu(y[k], job->before + from, job->slope + from, job->after + from);
        }
    }
#pragma GCC unroll 8
    for (int k = 0; k < all; ++k) {
        if (real(k) > 0) store_some(job->y + at(k), real(k), y[k]);
    }
    if (job->sign) {
#pragma GCC unroll 8
        for (int k = 0; k < all; ++k) positive[k] = vcgeq_f32(y[k], vld1q_f32(job->level + lane + k % kQuarters * 4));
        store_signs(tile, positive);
    }
}

// Computes a tile, sums and epilogue.
INLINE void compute_tile(const bnn_job* job, int64_t pixel, int64_t block, int n) {
    const Tile tile = {job, pixel, block, n, job->outputs - block * 16};
    uint32x4_t mismatch[2 * kQuarters];
    mismatches(tile, mismatch);
    if (tile.real >= 16) {
        finish(tile, mismatch, true);
    } else {
        finish(tile, mismatch, false);
    }
}

void compute(const bnn_job* job) {
    for (int64_t block = 0; block < job->blocks; ++block) {
        int64_t pixel = 0;
        for (; pixel + 2 <= job->pixels; pixel += 2) compute_tile(job, pixel, block, 2);
        if (pixel < job->pixels) compute_tile(job, pixel, block, 1);
    }
}

// Computes `n` neighbouring pixels of a float convolution for the 16 outputs of a block. n: a compile-time constant.
INLINE void float_tile(const bnn_float_job* job, int64_t pixel, int64_t block, int n) {
    float32x4_t acc[4 * kQuarters];
#pragma GCC unroll 16
    for (int k = 0; k < n * kQuarters; ++k) acc[k] = vdupq_n_f32(0);
    const float* const x = job->x + pixel * job->step;
    const float* weights = job->weights + block * job->depth * 16;
    for (int64_t depth = 0; depth < job->depth; ++depth, weights += 16) {
        const float* const from = x + job->offsets[depth];
        float32x4_t w[kQuarters];
#pragma GCC unroll 4
        for (int q = 0; q < kQuarters; ++q) w[q] = vld1q_f32(weights + 4 * q);
#pragma GCC unroll 4
        for (int i = 0; i < n; ++i) {
            const float32x2_t value = vset_lane_f32(from[i * job->step], vdup_n_f32(0), 0);
#pragma GCC unroll 4
            for (int q = 0; q < kQuarters; ++q) {
                acc[i * kQuarters + q] = vfmaq_lane_f32(acc[i * kQuarters + q], w[q], value, 0);
            }
        }
    }
    const float32x4_t low = vdupq_n_f32(job->low), high = vdupq_n_f32(job->high);
    uint32x4_t positive[4 * kQuarters];
#pragma GCC unroll 16
    for (int k = 0; k < n * kQuarters; ++k) {
        const int64_t lane = block * 16 + k % kQuarters * 4, real = job->outputs - lane;
        if (real <= 0) continue;
        float32x4_t y = vaddq_f32(acc[k], vld1q_f32(job->bias + lane));
        if (job->clip) y = clip(y, low, high);
        if (job->rprelu) y = rprelu(y, job->before + lane, job->slope + lane, job->after + lane);
        store_some(job->y + (pixel + k / kQuarters) * job->stride + lane, real, y);
        positive[k] = vcgeq_f32(y, vld1q_f32(job->level + lane));
    }
    if (!job->signs) return;
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) {
        const uint16_t here = (uint16_t)bits(positive + i * kQuarters, 1);
        __builtin_memcpy(job->signs + (pixel + i) * job->sign_stride + 2 * block, &here, 2);
    }
}

void float_compute(const bnn_float_job* job) {
    for (int64_t block = 0; block < job->blocks; ++block) {
        int64_t pixel = 0;
        for (; pixel + 4 <= job->pixels; pixel += 4) float_tile(job, pixel, block, 4);
        for (; pixel < job->pixels; ++pixel) float_tile(job, pixel, block, 1);
    }
}

// Returns the signs of 8 * count floats packed to `count` bytes, at most 4. level: the number for each float from which
// on its sign is +1; null for 0.
INLINE uint32_t some_signs(const float* x, const float* level, int count) {
    uint32x4_t positive[8];
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
        positive[k] = vdupq_n_u32(0);
        if (k >= 2 * count) continue;
        const float32x4_t values = vld1q_f32(x + 4 * k);
        positive[k] = level ? vcgeq_f32(values, vld1q_f32(level + 4 * k)) : vcgezq_f32(values);
    }
    return bits(positive, count > 2 ? 2 : 1);
}

// Packs the signs of 8 * count floats to `count` bytes, see `some_signs`.
INLINE void pack(const float* x, const float* level, int64_t count, uint8_t* bytes) {
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const uint32_t four = some_signs(x + 8 * i, level ? level + 8 * i : level, 4);
        __builtin_memcpy(bytes + i, &four, 4);
    }
    for (; i < count; ++i) bytes[i] = (uint8_t)some_signs(x + 8 * i, level ? level + 8 * i : level, 1);
}

void signs(const float* x, int64_t count, uint8_t* bytes) { pack(x, nullptr, count, bytes); }

void level_signs(const float* x, const float* level, int64_t pixels, int64_t count, uint8_t* bytes) {
    for (int64_t pixel = 0; pixel < pixels; ++pixel) pack(x + pixel * 8 * count, level, count, bytes + pixel * count);
}

}  // namespace

extern "C" const bnn_kernel bnn_kernel_neon = {"neon", gather, compute, float_compute, signs, level_signs, 1};

#else
#error "compile this file for aarch64"
#endif
