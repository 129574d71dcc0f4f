// A plan: what a layer computes beforehand for images of one size. It says where each word of a window is, and how
// mismatches become a sum, which depends on the pixel if its window reaches over the image's border.
#pragma once

#include "layer.h"

namespace bnn {

struct Plan {
    int64_t height, width;          // of the input
    int64_t out_height, out_width;  // of the output
    int64_t pixels;                 // of the output

    // Before the convolution, an image is copied to planes: its words, with padding, in the order (row, group, plane,
    // phase, column). Column x of the padded image is column x / stride of phase x % stride. So, for each tap,
    // neighbouring output pixels read neighbouring words, whatever the stride is. The planes of a group are its words
    // or, with up to 16 channels, those of `Plane`.
    int64_t rows, row_size, word_size, phase_size, plane_size;
    std::vector<int64_t> offsets;  // where each word of a window is in the planes, from the window's beginning
    // A pixel's class says which taps of its window are outside the image. For each class and lane the table has the
    // number from which sums are computed: sum = table - 2 * mismatches. With padding_value 0 the number corrects for
    // the taps outside, which the kernels read as -1. For a threshold the table has the largest number of mismatches
    // for which the sign is +1.
    std::vector<int32_t> table_offsets;  // (pixels): where the numbers of the pixel's class begin in `table`
    Aligned<int32_t> table;              // (classes, lanes)

    Plan() : height(-1), width(-1) {}
    // Raises Error if no window fits into the padded image, or if the image is too large.
    Plan(const Layer&, int64_t height, int64_t width);

    // Fills the planes with the signs of the padding. `spread` then overwrites all but the border.
    void clear(const Layer&, uint32_t* planes) const;
    // Copies the packed signs of an image's pixels to the planes.
    void spread(const Layer&, const uint8_t* image, uint32_t* planes) const;

  private:
    // Fills the planes in which a word has two taps.
    void join_taps(const Layer&, uint32_t* planes) const;
    // The taps that are inside the image along one axis: first <= tap < last.
    struct Range {
        int64_t first, last;
    };
    // Returns the range for each output row (axis 0) or column (axis 1).
    static std::vector<Range> ranges(int64_t outputs, int64_t size, const Attributes&, int axis);
    // Finds the classes of the pixels and computes the table.
    void classify(const Layer&);
};

// Returns the height (axis 0) or width (axis 1) of the output for an image of this size. Raises Error if it is below 1.
int64_t output_size(const Attributes&, int axis, int64_t size);

}  // namespace bnn
