// The convolution in plain C++, straight from its definition. It runs on any processor and is what the tests compare
// the kernels with.
#include <cstring>

#include "convolution.h"

namespace bnn {

namespace {

// Returns the signs of the channels k .. k + 7 of a pixel, whose packed signs have `bytes` bytes; 0 after the last one.
unsigned eight(const uint8_t* pixel, int64_t bytes, int64_t k) {
    const int64_t byte = k / 8, shift = k % 8;
    const unsigned low = pixel[byte], high = shift && byte + 1 < bytes ? pixel[byte + 1] : 0;
    return (low | high << 8) >> shift & 255;
}

// Returns the sum at the output pixel (oy, ox) for one output. x: the image's packed signs.
int32_t sum(const Layer& layer, const uint8_t* x, int64_t height, int64_t width, int64_t oy, int64_t ox,
            int64_t output) {
    const Attributes& a = layer.attributes;
    const int64_t first = output / layer.group_outputs * layer.group_channels;
    const int64_t bytes = (layer.group_channels + 7) / 8;
    int32_t total = 0;
    for (int64_t ky = 0; ky < a.kernel[0]; ++ky) {
        for (int64_t kx = 0; kx < a.kernel[1]; ++kx) {
            const int64_t iy = oy * a.strides[0] - a.pads[0] + ky * a.dilations[0];
            const int64_t ix = ox * a.strides[1] - a.pads[1] + kx * a.dilations[1];
            const bool inside = iy >= 0 && iy < height && ix >= 0 && ix < width;
            if (!inside && a.padding_value == 0) continue;
            const uint8_t* weights = &layer.bits[size_t((ky * a.kernel[1] + kx) * bytes * layer.outputs + output)];
            const unsigned border = a.padding_value > 0 ? 255 : 0;
            for (int64_t c = 0; c < layer.group_channels; c += 8) {
                const int64_t used = layer.group_channels - c < 8 ? layer.group_channels - c : 8;
                const uint8_t* pixel = x + (iy * width + ix) * layer.input_bytes();
                const unsigned signs = inside ? eight(pixel, layer.input_bytes(), first + c) : border;
                const unsigned differ = (signs ^ weights[c / 8 * layer.outputs]) & ((1u << used) - 1);
                total += int32_t(used) - 2 * __builtin_popcount(differ);
            }
        }
    }
    return total;
}

void set_bit(uint8_t* bytes, int64_t k, bool one) { bytes[k / 8] = uint8_t(bytes[k / 8] | (one ? 1u << (k % 8) : 0u)); }

}  // namespace

void portable(const Layer& layer, const Tensors& tensors, int64_t out_height, int64_t out_width, int64_t first_row,
              int64_t last_row) {
    const Epilogue& e = layer.epilogue;
    for (int64_t row = first_row; row < last_row; ++row) {
        const int64_t image = row / out_height;
        const uint8_t* x = tensors.input + image * tensors.height * tensors.width * layer.input_bytes();
        for (int64_t ox = 0; ox < out_width; ++ox) {
            const int64_t pixel = row * out_width + ox;
            uint8_t* signs = tensors.signs ? tensors.signs + pixel * layer.output_bytes() : nullptr;
            if (signs) std::memset(signs, 0, size_t(layer.output_bytes()));
            for (int64_t o = 0; o < layer.outputs; ++o) {
                const int64_t lane = layer.lane(o);
                const int64_t at = pixel * layer.outputs + o;
                const int32_t total = sum(layer, x, tensors.height, tensors.width, row % out_height, ox, o);
                if (e.kind == Kind::kRaw) {
                    tensors.raw[at] = total;
                } else if (e.kind == Kind::kThreshold) {
                    set_bit(signs, o, total >= layer.threshold[lane]);
                } else {
                    // Multiplication and addition are rounded one by one, as the format says: the flags of the build
                    // allow the compiler no fused multiply-add.
                    const float scaled = float(total) * layer.scale[lane];
                    float y = scaled + layer.bias[lane];
                    if (e.add) y = y + tensors.residual[at];
                    if (e.clip) {
                        y = y < e.low ? e.low : y;
                        y = y > e.high ? e.high : y;
                    }
                    if (e.rprelu) y = rprelu(y, layer.before[lane], layer.slope[lane], layer.after[lane]);
                    tensors.y[at] = y;
                    if (e.sign) set_bit(signs, o, y >= layer.level[lane]);
                }
            }
        }
    }
}

float rprelu(float y, float before, float slope, float after) {
    const float moved = y + before;
    const float above = moved < 0 ? 0 : moved, below = moved < 0 ? moved : 0;
    const float sloped = below * slope;
    return (above + sloped) + after;
}

void portable_signs(const float* x, const float* level, int64_t pixels, int64_t channels, uint8_t* bytes) {
    const int64_t size = (channels + 7) / 8;
    std::memset(bytes, 0, size_t(pixels * size));
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        for (int64_t c = 0; c < channels; ++c) {
            set_bit(bytes + pixel * size, c, x[pixel * channels + c] >= (level ? level[c] : 0));
        }
    }
}

}  // namespace bnn
