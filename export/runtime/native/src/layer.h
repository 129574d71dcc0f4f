// A binary convolution: its attributes, which are checked, and its constants in the order in which the kernels read
// them.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "aligned.h"

namespace bnn {

// An error in an argument, with a message for the user.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Number of outputs that a kernel computes at once: the 32-bit lanes of the widest register.
constexpr int64_t kLanes = 16;

// The planes of a group in which two taps share a word: a pixel alone; with the pixel `dilations` columns further; with
// the pixel `dilations` rows further.
enum Plane : int64_t { kSingle, kAcross, kDown };

struct Attributes {
    int64_t channels = 0, group = 1, padding_value = 0;
    int64_t kernel[2] = {1, 1}, strides[2] = {1, 1}, dilations[2] = {1, 1};
    int64_t pads[4] = {0, 0, 0, 0};  // top, left, bottom, right

    // Raises Error where a value is out of its range. Within the ranges, two values can be added or multiplied without
    // overflow.
    void check() const;
};

enum class Kind { kRaw, kThreshold, kFloat };

// The operations behind the scaled sum, in this order; there is a clip or an RPReLU, never both.
struct Epilogue {
    Kind kind = Kind::kRaw;
    bool add = false, clip = false, rprelu = false, sign = false;
    bool rsign = false;  // the sign has a level per channel, not 0
    float low = 0, high = 0;
};

// Constants per output channel, as in the file; null where the epilogue does not use them.
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

struct Layer {
    Attributes attributes;
    Epilogue epilogue;
    int64_t outputs, group_channels, group_outputs;
    int64_t words;   // 32-bit words of a group's channels
    int64_t planes;  // planes of a group: `words`, or 3 if two taps share a word
    std::vector<Word> window;  // the words of a group's window
    int64_t pairs;   // pairs of words of a group's window; the last may have a word 0 at its end
    int64_t blocks;  // blocks of kLanes outputs in a group
    int64_t lanes;   // outputs, with each group rounded up to whole blocks

    std::vector<uint8_t> bits;   // (kh, kw, ceil(i / 8), o), as in the file
    Aligned<uint32_t> weights;   // (group, block, pair, 2, kLanes), see `repack`
    Aligned<int32_t> threshold;  // (lanes)
    Aligned<float> scale, bias, before, slope, after, level;  // (lanes)
    std::vector<int32_t> sums;   // (kh + 1, kw + 1, lanes): sum of the weights of the taps above and to the left

    // weights: uint8, of shape `shape`. Raises Error where an attribute or a shape is impossible.
    Layer(const Attributes&, const Epilogue&, const uint8_t* weights, const std::vector<int64_t>& shape,
          const Constants&);

    // Returns the lane of an output, its index in arrays of `lanes` numbers.
    int64_t lane(int64_t output) const {
        return output / group_outputs * blocks * kLanes + output % group_outputs;
    }
    // Bytes of a pixel of the input and of the output.
    int64_t input_bytes() const { return (attributes.channels + 7) / 8; }
    int64_t output_bytes() const { return (outputs + 7) / 8; }
    // Whether two taps share a word.
    bool taps_share() const { return planes > words; }
    // Returns the weight bit of an output, a kernel position and a channel of the output's group.
    int weight(int64_t output, int64_t tap, int64_t channel) const;

    // Replaces the first word of each pair by the exclusive or of all words up to it, as the second is; to be called
    // once.
    void prefix();

  private:
    void check(const std::vector<int64_t>& shape) const;
    void list_words();
    uint32_t channel_bits(int64_t output, int64_t tap, int64_t channel) const;
    void repack();
    void sum_taps();
};

// Returns "(1, 2, 3)", for messages.
std::string text(const int64_t* values, size_t count);

}  // namespace bnn
