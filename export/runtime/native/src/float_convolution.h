// A convolution of floats with a small window. It is the first layer of a network, from float32 NCHW images to NHWC, or
// a layer between binary layers, from NHWC to NHWC.
//
// An output begins at 0. The products of the window are added one after the other by fused multiply-adds, the taps in
// row order and the channels within a tap; then the bias is added. The order matters because floats are rounded: for a
// small window onnxruntime's matrix product, which the file uses without this library, rounds in the same way.
#pragma once

#include <vector>

#include "convolution.h"

namespace bnn {

struct FloatConvolution {
    // Maximum number of values in a window.
    static constexpr int64_t kMostDepth = 128;

    Attributes attributes;
    Epilogue epilogue;  // what follows the bias; it never adds a residual
    bool last;          // the images have their channels last, NHWC
    int64_t outputs, depth, blocks;  // depth: number of values in a window; blocks: of kLanes outputs
    Aligned<float> weights;  // (blocks, depth, kLanes); the last block is filled up with zeros
    Aligned<float> bias, before, slope, after, level;  // (blocks, kLanes)

    // weights: floats of shape `shape`, (kh, kw, c, o). Raises Error if an attribute or the shape is not supported.
    FloatConvolution(const Attributes&, const Epilogue&, bool last, const float* weights,
                     const std::vector<int64_t>& shape, const Constants&);

    // The buffers of a run, which are kept for the next run on images of this height and width.
    struct Workspace {
        int64_t height = -1, width = -1;
        Aligned<float> planes;         // an image with its border of zeros, (c, rows, columns) or (rows, columns, c)
        std::vector<int64_t> offsets;  // where each value of a window is, from the window's beginning
    };
    // Computes x (images, c, h, w) or (images, h, w, c) -> y (images, h', w', o), and the signs of y, packed to bits,
    // if the epilogue has them. kernel: null for plain C++. Raises Error if the image is too small or too large.
    void run(const bnn_kernel* kernel, const float* x, int64_t images, int64_t height, int64_t width, float* y,
             uint8_t* signs, const Pool& pool, Workspace& space) const;
};

}  // namespace bnn
