// A binary convolution: its attributes, which are checked, and its constants in the order in which the kernels read
// them.
//
// The inputs and weights of a binary convolution are +1 or -1. They are stored as bits, 1 for +1 and 0 for -1. So the
// sum of the products of n inputs with n weights is n - 2 * m, where m, the number of mismatches, is the number of bits
// in which they differ: the population count of their exclusive or.
//
// Words that all files here use:
// - tap: a position in the kernel; a 3x3 kernel has nine taps.
// - output: an output channel. Kernels compute them in blocks of 16 (kLanes), so arrays with a number for each output
//   have places for whole blocks. Such a place is a lane.
// - word: 32 bits, the signs of 32 channels at one pixel or tap, or of up to 16 channels at two.
// - window: the inputs that an output pixel depends on, as a list of words (Word). Kernels process them in pairs.
// - sum: what the convolution itself computes, an integer.
// - epilogue: what is computed from the sum in the same operator, such as scale, bias and the sign of the result.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "aligned.h"

namespace bnn {

// An error in a file or an argument, with a message for the user.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Number of outputs in a block: the number of 32-bit lanes of the widest register.
constexpr int64_t kLanes = 16;

// Returns a word with ones in its lowest `count` bits, and in all bits if count is 32 or more.
inline uint32_t low_bits(int64_t count) { return count < 32 ? (uint32_t(1) << count) - 1 : ~uint32_t(0); }

// The planes of a group in which two taps share a word. Each word has the channels of a pixel alone (kSingle), or those
// of two pixels: it and the pixel `dilations` columns (kAcross) or rows (kDown) further.
enum Plane : int64_t { kSingle, kAcross, kDown };

// The attributes of a convolution, as in the file (docs/reference/format.md). padding_value: the value, -1, 0 or 1, of
// the inputs outside the image.
struct Attributes {
    int64_t channels = 0, group = 1, padding_value = 0;
    int64_t kernel[2] = {1, 1}, strides[2] = {1, 1}, dilations[2] = {1, 1};
    int64_t pads[4] = {0, 0, 0, 0};  // top, left, bottom, right

    // Raises Error if a value is out of its range. The ranges are so small that adding or multiplying two values does
    // not overflow.
    void check() const;
};

// What a convolution returns: the sums; signs, +1 where a sum reaches a threshold; or scaled sums as floats.
enum class Kind { kRaw, kThreshold, kFloat };

// The operations that follow the sum. With kFloat they are scale and bias, then in this order, if set: adding a
// residual, a clip to [low, high] or an RPReLU (never both), and the signs of the result as a second output. RPReLU is
// ReActNet's activation: with m = y + before it is max(m, 0) + min(m, 0) * slope + after.
struct Epilogue {
    Kind kind = Kind::kRaw;
    bool add = false, clip = false, rprelu = false, sign = false;
    bool rsign = false;  // the signs are +1 from a level per channel on, and not from 0 on
    float low = 0, high = 0;
};

// The constants of an epilogue, one number for each output, as in the file; null if the epilogue does not use them.
struct Constants {
    const int32_t* threshold = nullptr;
    const float *scale = nullptr, *bias = nullptr;
    const float *before = nullptr, *slope = nullptr, *after = nullptr;  // of the RPReLU
    const float* level = nullptr;                                       // of the sign
};

// A word of a window: up to 32 channels of one tap, or up to 16 channels of two taps (the second in the upper half).
struct Word {
    int64_t tap, second;  // second: -1 if there is none
    int64_t channel;      // the first channel
    int64_t plane;        // the plane that has this word at the position of `tap`, see Plan
};

// A binary convolution with its constants.
struct Layer {
    Attributes attributes;
    Epilogue epilogue;
    int64_t outputs, group_channels, group_outputs;  // group_...: number in each group of the convolution
    int64_t words;   // number of words that a group's channels fill at one pixel
    int64_t planes;  // number of planes of a group: `words`, or 3 if two taps share a word
    std::vector<Word> window;  // the words of a group's window
    int64_t pairs;   // number of pairs of words in a group's window; an odd last word is paired with 0
    int64_t blocks;  // number of blocks of kLanes outputs in a group
    int64_t lanes;   // number of lanes: the outputs, with each group rounded up to whole blocks

    std::vector<uint8_t> bits;   // (kh, kw, ceil(i / 8), o), as in the file
    Aligned<uint32_t> weights;   // (group, block, pair, 2, kLanes), see `repack`
    Aligned<int32_t> threshold;  // (lanes)
    Aligned<float> scale, bias, before, slope, after, level;  // (lanes)
    // (kh + 1, kw + 1, lanes): at (y, x), the sum of the weights, +1 or -1, of all taps above row y and left of column
    // x. The sum over any rectangle of taps follows from four of these numbers, see Plan::table.
    std::vector<int32_t> sums;

    // weights: packed signs of shape `shape`, in the order of `bits`. Raises Error if an attribute is out of its range,
    // or if the shape does not fit the attributes.
    Layer(const Attributes&, const Epilogue&, const uint8_t* weights, const std::vector<int64_t>& shape,
          const Constants&);

    // Returns the lane of an output, which is its index in arrays of `lanes` numbers.
    int64_t lane(int64_t output) const {
        return output / group_outputs * blocks * kLanes + output % group_outputs;
    }
    // Number of bytes of the packed signs of a pixel, of the input and of the output.
    int64_t input_bytes() const { return (attributes.channels + 7) / 8; }
    int64_t output_bytes() const { return (outputs + 7) / 8; }
    // Whether two taps share a word, which is so with up to 16 channels and more than one tap.
    bool taps_share() const { return planes > words; }
    // Returns the weight's bit for an output, a tap, and a channel counted within the output's group.
    int weight(int64_t output, int64_t tap, int64_t channel) const;

    // Replaces the first word of each pair of weights by a parity, the exclusive or of all words up to it; the second
    // one is such a parity already. For kernels with `prefixes`. Must be called at most once.
    void prefix();

  private:
    void check(const std::vector<int64_t>& shape) const;
    void list_words();
    uint32_t channel_bits(int64_t output, int64_t tap, int64_t channel) const;
    void repack();
    void sum_taps();
};

// Returns a shape as text for messages, such as "(1, 2, 3)".
std::string text(const int64_t* values, size_t count);

}  // namespace bnn
