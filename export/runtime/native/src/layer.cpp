#include "layer.h"

#include <utility>

namespace bnn {

namespace {

// Maximum of an attribute and of a sum, so that int32 is enough for sums.
constexpr int64_t kLargest = int64_t(1) << 30;

int64_t rounded_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

void require(int64_t value, int64_t low, const char* name) {
    if (value < low || value > kLargest) {
        throw Error(std::string(name) + " must be in [" + std::to_string(low) + ", " + std::to_string(kLargest) +
                    "], got " + std::to_string(value));
    }
}

}  // namespace

std::string text(const int64_t* values, size_t count) {
    std::string result = "(";
    for (size_t i = 0; i < count; ++i) result += (i ? ", " : "") + std::to_string(values[i]);
    return result + ")";
}

Layer::Layer(const Attributes& given, const Epilogue& what, const uint8_t* raw, const std::vector<int64_t>& shape,
             const Constants& constants)
    : attributes(given), epilogue(what) {
    check(shape);
    outputs = shape[3];
    group_channels = given.channels / given.group;
    group_outputs = outputs / given.group;
    words = rounded_up(group_channels, 32);
    list_words();
    pairs = rounded_up(int64_t(window.size()), 2);
    blocks = rounded_up(group_outputs, kLanes);
    lanes = given.group * blocks * kLanes;
    bits.assign(raw, raw + shape[0] * shape[1] * shape[2] * shape[3]);
    threshold = Aligned<int32_t>(lanes);
    for (int64_t o = 0; constants.threshold && o < outputs; ++o) threshold[lane(o)] = constants.threshold[o];
    const std::pair<Aligned<float>*, const float*> floats[] = {{&scale, constants.scale},   {&bias, constants.bias},
                                                               {&before, constants.before}, {&slope, constants.slope},
                                                               {&after, constants.after},   {&level, constants.level}};
    for (const auto& values : floats) {
        *values.first = Aligned<float>(lanes);  // zeros
        for (int64_t o = 0; values.second && o < outputs; ++o) (*values.first)[lane(o)] = values.second[o];
    }
    repack();
    sum_taps();
}

void Attributes::check() const {
    require(channels, 1, "channels");
    require(group, 1, "group");
    for (int i = 0; i < 2; ++i) {
        require(kernel[i], 1, "kernel_shape");
        require(strides[i], 1, "strides");
        require(dilations[i], 1, "dilations");
    }
    for (int64_t pad : pads) require(pad, 0, "pads");
    if (padding_value < -1 || padding_value > 1) {
        throw Error("padding_value must be -1, 0 or 1, got " + std::to_string(padding_value));
    }
}

void Layer::check(const std::vector<int64_t>& shape) const {
    const Attributes& a = attributes;
    a.check();
    if (a.channels % a.group) {
        throw Error("channels must be a multiple of group, got " + std::to_string(a.channels) + " and " +
                    std::to_string(a.group));
    }
    const int64_t bytes = rounded_up(a.channels / a.group, 8);
    if (shape.size() != 4 || shape[0] != a.kernel[0] || shape[1] != a.kernel[1] || shape[2] != bytes) {
        const int64_t wanted[3] = {a.kernel[0], a.kernel[1], bytes};
        std::string expected = text(wanted, 3);
        expected.back() = ',';
        throw Error("weights must have shape " + expected + " outputs), got " + text(shape.data(), shape.size()));
    }
    require(shape[3], 1, "the number of outputs");
    if (shape[3] % a.group) {
        throw Error("the number of outputs must be a multiple of group, got " + std::to_string(shape[3]) + " and " +
                    std::to_string(a.group));
    }
    // The factors are at most 2^30 each, so the product of two does not overflow.
    const int64_t taps = a.kernel[0] * a.kernel[1];
    if (taps > kLargest || taps * (a.channels / a.group) > kLargest) {
        throw Error("a window must have at most 2^30 values, got kernel_shape " + text(a.kernel, 2) + " and " +
                    std::to_string(a.channels / a.group) + " channels");
    }
}

int Layer::weight(int64_t output, int64_t tap, int64_t channel) const {
    const int64_t bytes = rounded_up(group_channels, 8);
    return bits[size_t((tap * bytes + channel / 8) * outputs + output)] >> (channel % 8) & 1;
}

// Lists the words of a window. With more than 16 channels they are the taps in row order, and for each tap its
// channels. With up to 16, two taps side by side share a word; then two taps of the last column, one below the other,
// if the width is odd. A single tap may be left.
void Layer::list_words() {
    const int64_t height = attributes.kernel[0], width = attributes.kernel[1];
    planes = words;
    if (group_channels > 16 || height * width == 1) {
        for (int64_t k = 0; k < height * width * words; ++k) {
            window.push_back({k / words, -1, k % words * 32, k % words});
        }
        return;
    }
    planes = 3;
    for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x + 1 < width; x += 2) window.push_back({y * width + x, y * width + x + 1, 0, kAcross});
    }
    if (width % 2 == 0) return;
    for (int64_t y = 0; y + 1 < height; y += 2) {
        window.push_back({(y + 1) * width - 1, (y + 2) * width - 1, 0, kDown});
    }
    if (height % 2) window.push_back({height * width - 1, -1, 0, kSingle});
}

// Returns the weight bits of an output and a tap: up to 32 channels from `channel`, a multiple of 32, on.
uint32_t Layer::channel_bits(int64_t output, int64_t tap, int64_t channel) const {
    const int64_t bytes = rounded_up(group_channels, 8), first = channel / 8;
    uint32_t value = 0;
    for (int64_t byte = first; byte < first + 4 && byte < bytes; ++byte) {
        value |= uint32_t(bits[size_t((tap * bytes + byte) * outputs + output)]) << ((byte - first) * 8);
    }
    return value & low_bits(group_channels - channel);
}

// Puts the weights into the order in which kernels read them. Of the pair (x2j, x2j+1) of a window's words x0, x1, x2,
// ... a kernel reads the word x2j and the parity x0 ^ ... ^ x2j+1; the reason is in avx512.cpp. The same holds for the
// weights' words.
void Layer::repack() {
    weights = Aligned<uint32_t>(attributes.group * blocks * pairs * 2 * kLanes);
    for (int64_t o = 0; o < outputs; ++o) {
        const int64_t group = o / group_outputs, within = o % group_outputs;
        uint32_t* to = &weights[(group * blocks + within / kLanes) * pairs * 2 * kLanes + within % kLanes];
        uint32_t parity = 0;
        for (int64_t k = 0; k < int64_t(window.size()); ++k) {
            const Word& word = window[size_t(k)];
            uint32_t value = channel_bits(o, word.tap, word.channel);
            if (word.second >= 0) value |= channel_bits(o, word.second, word.channel) << 16;
            parity ^= value;
            if (k % 2 == 0) to[k * kLanes] = value;
            to[(k | 1) * kLanes] = parity;
        }
    }
}

void Layer::prefix() {
    for (int64_t block = 0; block < attributes.group * blocks; ++block) {
        uint32_t* const pair = &weights[block * pairs * 2 * kLanes];
        for (int64_t k = 2 * kLanes; k < pairs * 2 * kLanes; ++k) {
            if (k / kLanes % 2 == 0) pair[k] ^= pair[k - kLanes];
        }
    }
}

// Computes `sums`, the sums of the weights over all rectangles of taps that begin at the kernel's first tap.
void Layer::sum_taps() {
    const int64_t height = attributes.kernel[0], width = attributes.kernel[1], bytes = rounded_up(group_channels, 8);
    std::vector<int32_t> of_tap(static_cast<size_t>(outputs));
    sums.assign(size_t((height + 1) * (width + 1) * lanes), 0);
    for (int64_t tap = 0; tap < height * width; ++tap) {
        of_tap.assign(of_tap.size(), int32_t(-group_channels));
        for (int64_t byte = 0; byte < bytes; ++byte) {
            const uint8_t* row = &bits[size_t((tap * bytes + byte) * outputs)];
            const unsigned used = byte < bytes - 1 ? 255 : (1u << (group_channels - byte * 8)) - 1;
            for (size_t o = 0; o < of_tap.size(); ++o) of_tap[o] += 2 * __builtin_popcount(row[o] & used);
        }
        const int64_t y = tap / width, x = tap % width;
        for (int64_t o = 0; o < outputs; ++o) {
            auto at = [&](int64_t row, int64_t column) -> int32_t& {
                return sums[size_t((row * (width + 1) + column) * lanes + lane(o))];
            };
            at(y + 1, x + 1) = of_tap[size_t(o)] + at(y, x + 1) + at(y + 1, x) - at(y, x);
        }
    }
}

}  // namespace bnn
