// A float convolution with a small window: the first layer of a network, float32 NCHW images to NHWC; or one between
// binary layers, NHWC to NHWC.
//
// An output is one chain of fused multiply-adds over the window, taps in order and channels within a tap, from 0 on;
// the bias is added behind it. That is what onnxruntime's matrix product computes for a depth it takes in one piece.
#pragma once

#include <vector>

#include "convolution.h"

namespace bnn {

struct FloatConvolution {
    static constexpr int64_t kMostDepth = 128;

    Attributes attributes;
    Epilogue epilogue;  // adds nothing
    bool last;          // the images are NHWC
    int64_t outputs, depth, blocks;
    Aligned<float> weights;  // (blocks, depth, kLanes), zeros behind the last output
    Aligned<float> bias, before, slope, after, level;  // (blocks, kLanes)

    // weights: float of `shape` = (kh, kw, c, o). Raises Error on what is impossible or not taken.
    FloatConvolution(const Attributes&, const Epilogue&, bool last, const float* weights,
                     const std::vector<int64_t>& shape, const Constants&);

    // Buffers of one run, kept from run to run.
    struct Workspace {
        int64_t height = -1, width = -1;
        Aligned<float> planes;         // (c, rows, columns), or (rows, columns, c), with their border of zeros
        std::vector<int64_t> offsets;  // of each tap and channel, from where the window begins
    };
    // x (images, c, h, w) or (images, h, w, c) -> y (images, h', w', o), and signs of y where the epilogue has them. `kernel` null: portable.
    // Raises Error where the image is too small or too large.
    void run(const bnn_kernel* kernel, const float* x, int64_t images, int64_t height, int64_t width, float* y,
             uint8_t* signs, const Pool& pool, Workspace& space) const;
};

}  // namespace bnn
