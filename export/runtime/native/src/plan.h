// A plan: a layer's precomputed data for images of one size. It has the positions of the words, the pixels whose
// windows reach the border, and the number from which each sum is computed.
#pragma once

#include "layer.h"

namespace bnn {

struct Plan {
    int64_t height, width;          // of the input
    int64_t out_height, out_width;  // of the output
    int64_t pixels;                 // of the output

    // An image's input as planes of words, (row, group, plane, phase, column), with padding. Column x of a row is column
    // x / stride of phase x % stride, so that neighbours in the output are neighbours here.
    int64_t rows, row_size, word_size, phase_size, plane_size;
    std::vector<int64_t> offsets;  // of each word of a window, from the beginning of the window
    // Pixels whose windows have the same taps outside the image are one class.
    std::vector<int32_t> table_offsets;  // (pixels): index of the pixel's class in `table`
    Aligned<int32_t> table;  // (classes, lanes): sum = table - 2 * mismatches; for a threshold, the largest number of
                             // mismatches for which the sign is +1

    Plan() : height(-1), width(-1) {}
    // Raises Error where no window fits into the padded image, or the image is too large.
    Plan(const Layer&, int64_t height, int64_t width);

    // Fills the planes with the padding's signs; the image then overwrites all but the border.
    void clear(const Layer&, uint32_t* planes) const;
    // Writes the words of an image's pixels to the planes.
    void spread(const Layer&, const uint8_t* image, uint32_t* planes) const;

  private:
    void join_taps(const Layer&, uint32_t* planes) const;
    struct Range {
        int64_t first, last;  // taps inside the image: first <= tap < last
    };
    static std::vector<Range> ranges(int64_t outputs, int64_t size, const Attributes&, int axis);
    void classify(const Layer&);
};

// Returns the height or width of the output. Raises Error where it is below 1.
int64_t output_size(const Attributes&, int axis, int64_t size);

}  // namespace bnn
