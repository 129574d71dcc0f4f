#include "plan.h"

#include <algorithm>
#include <cstring>
#include <map>

namespace bnn {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Maximum number of words in a buffer for one image; no image in use needs more.
constexpr int64_t kLargestPlane = int64_t(1) << 29;
// Number of unused words after the last row, because kernels read whole registers.
constexpr int64_t kSlack = 64;

// Returns a * b. Raises Error if it is larger than any buffer may be.
int64_t product(int64_t a, int64_t b) {
    int64_t result;
    if (__builtin_mul_overflow(a, b, &result) || result > kLargestPlane) {
        throw Error("the image is too large: a buffer of more than 2^29 words would be needed");
    }
    return result;
}

}  // namespace

int64_t output_size(const Attributes& a, int axis, int64_t size) {
    if (size < 1) throw Error("the image must have at least one pixel, got a side of " + std::to_string(size));
    // Attributes are at most 2^30, so that no product or sum below overflows.
    if (size > (int64_t(1) << 40)) throw Error("the image is too large: a side of " + std::to_string(size));
    const int64_t padded = size + a.pads[axis] + a.pads[axis + 2];
    const int64_t span = a.dilations[axis] * (a.kernel[axis] - 1) + 1;
    if (padded < span) {
        throw Error("the window is larger than the padded image: " + std::to_string(span) + " against " +
                    std::to_string(padded) + " pixels along axis " + std::to_string(axis + 1));
    }
    return (padded - span) / a.strides[axis] + 1;
}

Plan::Plan(const Layer& layer, int64_t h, int64_t w) : height(h), width(w) {
    const Attributes& a = layer.attributes;
    out_height = output_size(a, 0, h);
    out_width = output_size(a, 1, w);
    pixels = product(out_height, out_width);
    const int64_t phases = a.strides[1], padded = w + a.pads[1] + a.pads[3];
    phase_size = padded / phases + 1;
    word_size = product(phase_size, phases);
    row_size = product(product(word_size, layer.planes), a.group);
    rows = h + a.pads[0] + a.pads[2];
    plane_size = product(row_size, rows) + kSlack;
    for (const Word& word : layer.window) {
        const int64_t y = word.tap / a.kernel[1] * a.dilations[0], x = word.tap % a.kernel[1] * a.dilations[1];
        offsets.push_back(y * row_size + word.plane * word_size + x % phases * phase_size + x / phases);
    }
    classify(layer);
}

std::vector<Plan::Range> Plan::ranges(int64_t outputs, int64_t size, const Attributes& a, int axis) {
    std::vector<Range> result;
    const int64_t taps = a.kernel[axis], step = a.dilations[axis];
    for (int64_t i = 0; i < outputs; ++i) {
        const int64_t start = i * a.strides[axis] - a.pads[axis];
        // A tap reads the pixel start + tap * step. `first` is the first tap that reads at or after pixel 0, `last` the
        // first one that reads at or after pixel `size`.
        const int64_t first = start >= 0 ? 0 : std::min(taps, (-start + step - 1) / step);
        const int64_t last = start >= size ? 0 : std::min(taps, (size - start + step - 1) / step);
        result.push_back(first < last ? Range{first, last} : Range{0, 0});
    }
    return result;
}

void Plan::classify(const Layer& layer) {
    const Attributes& a = layer.attributes;
    std::vector<Range> down(size_t(out_height), Range{0, a.kernel[0]}),
        across(size_t(out_width), Range{0, a.kernel[1]});
    if (a.padding_value == 0) {
        down = ranges(out_height, height, a, 0);
        across = ranges(out_width, width, a, 1);
    }
    // Most rows and columns have the same range. This numbers the different ones: it returns the number for each row or
    // column, and appends the ranges themselves to `kinds`.
    auto number = [](const std::vector<Range>& all, std::vector<Range>& kinds) {
        std::map<std::pair<int64_t, int64_t>, int32_t> seen;
        std::vector<int32_t> result;
        for (const Range& range : all) {
            const auto found = seen.emplace(std::make_pair(range.first, range.last), int32_t(kinds.size()));
            if (found.second) kinds.push_back(range);
            result.push_back(found.first->second);
        }
        return result;
    };
    std::vector<Range> row_kinds, column_kinds;
    const std::vector<int32_t> row = number(down, row_kinds), column = number(across, column_kinds);
    const int64_t lanes = layer.lanes, width_ = a.kernel[1] + 1, columns = int64_t(column_kinds.size());
    table = Aligned<int32_t>(product(product(int64_t(row_kinds.size()), columns), lanes));
    table_offsets.resize(size_t(pixels));
    for (int64_t p = 0; p < pixels; ++p) {
        const int64_t kind = row[size_t(p / out_width)] * columns + column[size_t(p % out_width)];
        table_offsets[size_t(p)] = int32_t(kind * lanes);  // below 2^29, the limit of the table
    }
    int32_t* to = table.get();
    auto at = [&](int64_t y, int64_t x) { return &layer.sums[size_t((y * width_ + x) * lanes)]; };
    const int64_t all = layer.group_channels * a.kernel[0] * a.kernel[1];
    const int32_t* total = at(a.kernel[0], a.kernel[1]);
    for (const Range& y : row_kinds) {
        for (const Range& x : column_kinds) {
            const int32_t *right = at(y.last, x.last), *left = at(y.last, x.first);
            const int32_t *above = at(y.first, x.last), *corner = at(y.first, x.first);
            for (int64_t lane = 0; lane < lanes; ++lane, ++to) {
                // Kernels read taps outside the image as -1, which adds minus the sum of their weights to the result.
                // Here that is added back. `inside` is the sum of the weights of the taps inside.
                const int64_t inside = int64_t(right[lane]) - left[lane] - above[lane] + corner[lane];
                const int64_t start = all + total[lane] - inside;
                if (layer.epilogue.kind == Kind::kThreshold) {
                    const int64_t most = (start - layer.threshold[lane]) >> 1;
                    *to = int32_t(std::max<int64_t>(-1, std::min<int64_t>(most, INT32_MAX)));
                } else {
                    *to = int32_t(start);
                }
            }
        }
    }
}

void Plan::clear(const Layer& layer, uint32_t* planes) const {
    const Attributes& a = layer.attributes;
    if (a.padding_value < 1) {
        std::fill(planes, planes + plane_size, 0u);
        return;
    }
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t plane = 0; plane < a.group * layer.planes; ++plane) {
            const int64_t which = plane % layer.planes;
            uint32_t value = low_bits(layer.group_channels - (layer.taps_share() ? 0 : which * 32));
            if (layer.taps_share() && which != kSingle) value |= value << 16;
            uint32_t* const to = planes + row * row_size + plane * word_size;
            std::fill(to, to + word_size, value);
        }
    }
    std::fill(planes + plane_size - kSlack, planes + plane_size, 0u);
}

namespace {

// Copies `count` words, which are `step` bytes apart, to 32 bits each. Word: the type of the words, of 16 or 32 bits.
template <typename Word>
void copy_words(const uint8_t* from, int64_t count, int64_t step, uint32_t* to) {
    const auto copy = [&](int64_t apart) {
        for (int64_t i = 0; i < count; ++i) {
            Word word;
            std::memcpy(&word, from + i * apart, sizeof word);
            to[i] = word;
        }
    };
    // The compiler makes vector loops of the first three, because the distance is known.
    if (step == sizeof(Word)) return copy(sizeof(Word));
    if (step == 2 * sizeof(Word)) return copy(2 * sizeof(Word));
    if (step == 4 * sizeof(Word)) return copy(4 * sizeof(Word));
    copy(step);
}

// Copies the same word of each of the `width` pixels in a row to the planes. A pixel has `bytes` bytes, and the word
// begins at a whole byte. Word: the type of the word in the image, of 16 or 32 bits.
template <typename Word>
void spread_row(const uint8_t* from, int64_t width, int64_t bytes, int64_t padding, int64_t phases, int64_t phase_size,
                uint32_t* to) {
    for (int64_t x = 0; x < std::min(width, phases); ++x) {
        const int64_t phase = (x + padding) % phases, column = (x + padding) / phases;
        copy_words<Word>(from + x * bytes, ceil_div(width - x, phases), bytes * phases,
                         to + phase * phase_size + column);
    }
}

// Writes pairs of words of 16 bits, `low` and `high`, as words of 32 bits.
void join(const uint32_t* low, const uint32_t* high, int64_t count, uint32_t* to) {
    for (int64_t i = 0; i < count; ++i) to[i] = low[i] | high[i] << 16;
}

}  // namespace

void Plan::spread(const Layer& layer, const uint8_t* image, uint32_t* planes) const {
    const Attributes& a = layer.attributes;
    const int64_t phases = a.strides[1], bytes = layer.input_bytes();
    for (int64_t y = 0; y < height; ++y) {
        const uint8_t* const row = image + y * width * bytes;
        for (int64_t group = 0; group < a.group; ++group) {
            for (int64_t word = 0; word < layer.words; ++word) {
                uint32_t* const to = planes + (y + a.pads[0]) * row_size + (group * layer.planes + word) * word_size;
                const int64_t first = group * layer.group_channels + word * 32;
                const int64_t used = std::min<int64_t>(32, layer.group_channels - word * 32);
                // A group's channels may begin within a byte, and then 32 bits are in up to five bytes. Bytes behind
                // the pixel's last one must not be read.
                const int64_t from = first / 8, many = std::min(ceil_div(first % 8 + used, 8), bytes - from);
                const uint32_t mask = low_bits(used);
                if (first % 8 == 0 && (used == 32 || used == 16)) {
                    if (used == 32) {
                        spread_row<uint32_t>(row + from, width, bytes, a.pads[1], phases, phase_size, to);
                    } else {
                        spread_row<uint16_t>(row + from, width, bytes, a.pads[1], phases, phase_size, to);
                    }
                    continue;
                }
                for (int64_t x = 0; x < width; ++x) {
                    uint64_t value = 0;
                    for (int64_t i = 0; i < many; ++i) value |= uint64_t(row[x * bytes + from + i]) << (8 * i);
                    const int64_t padded = x + a.pads[1];
                    to[padded % phases * phase_size + padded / phases] = uint32_t(value >> (first % 8)) & mask;
                }
            }
        }
    }
    if (layer.taps_share()) join_taps(layer, planes);
}

// Fills the planes in which a word has two taps, from the plane of single pixels.
void Plan::join_taps(const Layer& layer, uint32_t* planes) const {
    const Attributes& a = layer.attributes;
    const int64_t phases = a.strides[1], down = a.dilations[0];
    for (int64_t group = 0; group < a.group; ++group) {
        uint32_t* const first = planes + group * layer.planes * word_size;
        for (int64_t y = a.pads[0]; a.kernel[1] > 1 && y < a.pads[0] + height; ++y) {
            uint32_t *const from = first + y * row_size, *const to = from + kAcross * word_size;
            for (int64_t phase = 0; phase < phases; ++phase) {
                const int64_t other = phase + a.dilations[1], further = other / phases;
                join(from + phase * phase_size, from + other % phases * phase_size + further,
                     phase_size - further, to + phase * phase_size);
            }
        }
        for (int64_t y = 0; a.kernel[1] % 2 && y + down < rows; ++y) {
            uint32_t* const from = first + y * row_size;
            join(from, from + down * row_size, word_size, from + kDown * word_size);
        }
    }
}

}  // namespace bnn
