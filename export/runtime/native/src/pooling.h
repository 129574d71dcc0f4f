// Poolings of float NHWC images by windows that tile the image.
#pragma once

#include <cstdint>

#include "convolution.h"

namespace bnn {

// A pooling that takes the mean or the maximum of each window and channel. It can also add channels of zeros to its
// result, as the shortcut of a ResNet does where the number of channels grows.
struct Pooling {
    bool mean = false;  // else the maximum
    int64_t channels = 0, kernel[2] = {1, 1};
    int64_t zeros[2] = {0, 0};  // number of channels of zeros before and after the others

    int64_t out_channels() const { return zeros[0] + channels + zeros[1]; }
    // Raises Error if an attribute is out of its range.
    void check() const;
    // x (images, h, w, channels) -> y (images, h / kernel, w / kernel, out_channels).
    void run(const float* x, int64_t images, int64_t height, int64_t width, float* y, const Pool& pool) const;
};

}  // namespace bnn
