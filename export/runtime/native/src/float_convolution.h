// A float convolution with a small window: the first layer of a network, from float32 NCHW images to NHWC, or one
// between binary layers, from NHWC to NHWC.
//
// An output is computed by fused multiply-adds one after the other, from 0 on, over the kernel positions in order and
// the channels of each; then the bias is added. onnxruntime's matrix product rounds in the same way for a small depth.
#pragma once

#include <vector>

#include "convolution.h"

namespace bnn {

struct FloatConvolution {
    static constexpr int64_t kMostDepth = 128;

    Attributes attributes;
    Epilogue epilogue;  // without a residual
    bool last;          // the images are NHWC
    int64_t outputs, depth, blocks;
    Aligned<float> weights;  // (blocks, depth, kLanes), zeros behind the last output
    Aligned<float> bias, before, slope, after, level;  // (blocks, kLanes)

    // weights: float, `shape` = (kh, kw, c, o). Raises Error on attributes that are impossible or not supported.
    FloatConvolution(const Attributes&, const Epilogue&, bool last, const float* weights,
                     const std::vector<int64_t>& shape, const Constants&);

    // The buffers of a run, which are kept for the next one.
    struct Workspace {
        int64_t height = -1, width = -1;
        Aligned<float> planes;         // (c, rows, columns), or (rows, columns, c), with their border of zeros
        std::vector<int64_t> offsets;  // of each kernel position and channel, from the beginning of the window
    };
    // x (images, c, h, w) or (images, h, w, c) -> y (images, h', w', o), and the signs of y if the epilogue has them.
    // kernel: null for portable C++. Raises Error where the image is too small or too large.
    void run(const bnn_kernel* kernel, const float* x, int64_t images, int64_t height, int64_t width, float* y,
             uint8_t* signs, const Pool& pool, Workspace& space) const;
};

}  // namespace bnn
