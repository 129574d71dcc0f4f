#include "pooling.h"

#include <algorithm>
#include <string>

namespace bnn {

namespace {

constexpr int64_t kLargest = int64_t(1) << 31;
// Number of floats that one task reads; less work is not worth a second thread.
constexpr int64_t kTaskFloats = 1 << 15;

// One run: rows are those of the output over all images, of which a task computes per_task.
struct Run {
    const Pooling* pooling;
    const float* x;
    float* y;
    int64_t rows, row_length, out_width, per_task;  // row_length: number of floats in a row of x
};

// Computes one row of the output. A window's rows are reduced first, then its columns, because onnxruntime's operations
// in the file do it in this order, and floats must be rounded in the same way.
void pool_row(const Pooling& p, const float* x, int64_t row_length, int64_t out_width, float* y) {
    const int64_t channels = p.channels, out_channels = p.out_channels();
    const float rows = float(p.kernel[0]), columns = float(p.kernel[1]);
    for (int64_t column = 0; column < out_width; ++column, y += out_channels) {
        std::fill(y, y + p.zeros[0], 0.0f);
        std::fill(y + p.zeros[0] + channels, y + out_channels, 0.0f);
        float* const to = y + p.zeros[0];
        for (int64_t j = 0; j < p.kernel[1]; ++j) {
            const float* const from = x + (column * p.kernel[1] + j) * channels;
            for (int64_t c = 0; c < channels; ++c) {
                float value = from[c];
                for (int64_t i = 1; i < p.kernel[0]; ++i) {
                    const float next = from[c + i * row_length];
                    value = p.mean ? value + next : std::max(value, next);
                }
                if (p.mean) value /= rows;
                to[c] = j == 0 ? value : p.mean ? to[c] + value : std::max(to[c], value);
            }
        }
        if (p.mean && p.kernel[1] > 1) {
            for (int64_t c = 0; c < channels; ++c) to[c] /= columns;
        }
    }
}

// Computes one row of the output for means of 2x2, the usual case, written so that the compiler vectorises it.
void mean_2x2(const Pooling& p, const float* x, int64_t row_length, int64_t out_width, float* y) {
    const int64_t channels = p.channels, out_channels = p.out_channels();
    for (int64_t column = 0; column < out_width; ++column, y += out_channels, x += 2 * channels) {
        std::fill(y, y + p.zeros[0], 0.0f);
        std::fill(y + p.zeros[0] + channels, y + out_channels, 0.0f);
        float* __restrict const to = y + p.zeros[0];
        const float *above = x, *below = x + row_length;
        for (int64_t c = 0; c < channels; ++c) {
            const float left = (above[c] + below[c]) * 0.5f;
            const float right = (above[c + channels] + below[c + channels]) * 0.5f;
            to[c] = (left + right) * 0.5f;
        }
    }
}

void task(void* data, size_t index) {
    const Run& run = *static_cast<const Run*>(data);
    const Pooling& p = *run.pooling;
    const int64_t first = int64_t(index) * run.per_task, last = std::min(first + run.per_task, run.rows);
    const bool usual = p.mean && p.kernel[0] == 2 && p.kernel[1] == 2;
    for (int64_t row = first; row < last; ++row) {
        const float* const x = run.x + row * p.kernel[0] * run.row_length;
        float* const y = run.y + row * run.out_width * p.out_channels();
        (usual ? mean_2x2 : pool_row)(p, x, run.row_length, run.out_width, y);
    }
}

}  // namespace

void Pooling::check() const {
    const auto in_range = [](int64_t value, int64_t least) { return value >= least && value < kLargest; };
    if (!in_range(channels, 1)) throw Error("attribute channels must be at least 1");
    for (int i = 0; i < 2; ++i) {
        if (!in_range(kernel[i], 1)) throw Error("attribute kernel_shape must be at least 1");
        if (!in_range(zeros[i], 0)) throw Error("attribute zeros must not be negative");
        if (mean && (kernel[i] > 8 || (kernel[i] & (kernel[i] - 1)))) {
            throw Error("attribute kernel_shape of a mean must be 1, 2, 4 or 8, got " + std::to_string(kernel[i]));
        }
    }
}

void Pooling::run(const float* x, int64_t images, int64_t height, int64_t width, float* y, const Pool& pool) const {
    Run run{this, x, y, images * (height / kernel[0]), width * channels, width / kernel[1], 0};
    if (run.rows < 1 || run.out_width < 1) return;
    run.per_task = std::max<int64_t>(1, kTaskFloats / std::max<int64_t>(1, kernel[0] * run.row_length));
    const size_t tasks = size_t((run.rows + run.per_task - 1) / run.per_task);
    if (tasks == 1) return task(&run, 0);
    pool.run(pool.self, task, tasks, &run);
}

}  // namespace bnn
