// What a layer needs for images of one size: where words lie, which pixels touch the border, what each sum starts from.
#pragma once

#include "layer.h"

namespace bnn {

struct Plan {
    int64_t height, width;          // of the input
    int64_t out_height, out_width;  // of the output
    int64_t pixels;                 // of the output

    // The input of one image as planes of words: (row, word, phase, column), rows and columns with their padding.
    // Column x of a row is column x / stride of phase x % stride, so that neighbours in the output are neighbours here.
    int64_t rows, row_size, word_size, phase_size, plane_size;
    std::vector<int64_t> offsets;  // of each word of a window, from where the window begins
    // Pixels whose windows lose the same taps in the border are of one class.
    std::vector<int32_t> table_offsets;  // (pixels): where the numbers of the pixel's class begin in
    Aligned<int32_t> table;  // (classes, lanes): sum = table - 2 * mismatches; for a threshold, the largest number of
                             // mismatches that still gives +1

    Plan() : height(-1), width(-1) {}
    // Raises Error where no window fits into the image, or the image is too large.
    Plan(const Layer&, int64_t height, int64_t width);

    // Writes `padding` (+1 or -1 signs) into all of the planes; the image later takes the place of all but the border.
    void clear(const Layer&, uint32_t* planes) const;
    // Writes the words of an image's pixels into its planes.
    void spread(const Layer&, const uint8_t* image, uint32_t* planes) const;

  private:
    struct Range {
        int64_t first, last;  // taps inside the image: first <= tap < last
    };
    static std::vector<Range> ranges(int64_t outputs, int64_t size, const Attributes&, int axis);
    void classify(const Layer&);
};

// Height or width of the output. Raises Error where it would be below 1.
int64_t output_size(const Attributes&, int axis, int64_t size);

}  // namespace bnn
