#include "float_convolution.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bnn {

namespace {

constexpr int64_t kTaskProducts = 1 << 18;           // a task's products: enough to be worth handing it to a thread
constexpr int64_t kLargestPlane = int64_t(1) << 29;  // maximum number of floats of an image with its border

// The run of one image.
struct Run {
    const FloatConvolution* convolution;
    const bnn_kernel* kernel;
    const float* x;  // the image with its border
    float* y;        // the image's outputs
    uint8_t* signs;
    const int64_t* offsets;
    // row_size: floats between two rows of x; per_task: rows of the output that a task computes.
    int64_t row_size, out_height, out_width, per_task;
};

// Computes a row of the output in plain C++, without its signs.
void portable_row(const bnn_float_job& job) {
    for (int64_t pixel = 0; pixel < job.pixels; ++pixel) {
        for (int64_t o = 0; o < job.outputs; ++o) {
            const float* const weights = job.weights + o / kLanes * job.depth * kLanes + o % kLanes;
            const float* const x = job.x + pixel * job.step;
            float acc = 0;
            for (int64_t k = 0; k < job.depth; ++k) acc = std::fma(x[job.offsets[k]], weights[k * kLanes], acc);
            float y = acc + job.bias[o];
            if (job.clip) {
                y = y < job.low ? job.low : y;
                y = y > job.high ? job.high : y;
            }
            if (job.rprelu) y = rprelu(y, job.before[o], job.slope[o], job.after[o]);
            job.y[pixel * job.stride + o] = y;
        }
    }
}

// Computes the rows of one task.
void row_task(void* data, size_t index) {
    const Run& run = *static_cast<const Run*>(data);
    const FloatConvolution& c = *run.convolution;
    const int64_t first = int64_t(index) * run.per_task, last = std::min(first + run.per_task, run.out_height);
    const int64_t bytes = (c.outputs + 7) / 8;
    bnn_float_job job = {};
    job.offsets = run.offsets, job.depth = c.depth;
    job.step = c.attributes.strides[1] * (c.last ? c.attributes.channels : 1);
    job.weights = c.weights.get(), job.bias = c.bias.get();
    job.blocks = c.blocks, job.outputs = c.outputs;
    job.pixels = run.out_width, job.stride = c.outputs, job.sign_stride = bytes;
    job.clip = c.epilogue.clip, job.low = c.epilogue.low, job.high = c.epilogue.high;
    job.rprelu = c.epilogue.rprelu;
    job.before = c.before.get(), job.slope = c.slope.get(), job.after = c.after.get(), job.level = c.level.get();
    const bool inside = run.kernel && c.outputs % kLanes == 0;  // kernels write only the signs of full blocks
    for (int64_t row = first; row < last; ++row) {
        job.x = run.x + row * c.attributes.strides[0] * run.row_size;
        job.y = run.y + row * run.out_width * c.outputs;
        uint8_t* const signs = run.signs ? run.signs + row * run.out_width * bytes : nullptr;
        job.signs = inside ? signs : nullptr;
        if (run.kernel) {
            run.kernel->float_compute(&job);
        } else {
            portable_row(job);
        }
        if (signs && !inside) portable_signs(job.y, job.level, run.out_width, c.outputs, signs);
    }
}

}  // namespace

FloatConvolution::FloatConvolution(const Attributes& given, const Epilogue& what, bool channels_last, const float* raw,
                                   const std::vector<int64_t>& shape, const Constants& constants)
    : attributes(given), epilogue(what), last(channels_last) {
    given.check();
    if (given.group != 1 || given.padding_value != 0) {
        throw Error("a float convolution must have group 1 and padding_value 0");
    }
    if (shape.size() != 4 || shape[0] != given.kernel[0] || shape[1] != given.kernel[1] || shape[2] != given.channels ||
        shape[3] < 1 || shape[3] > (1 << 20)) {
        const int64_t wanted[3] = {given.kernel[0], given.kernel[1], given.channels};
        std::string expected = text(wanted, 3);
        expected.back() = ',';
        throw Error("weights must have shape " + expected + " outputs), got " + text(shape.data(), shape.size()));
    }
    int64_t window;
    if (__builtin_mul_overflow(given.kernel[0] * given.kernel[1], given.channels, &window) || window > kMostDepth) {
        throw Error("a window of a float convolution must have at most " + std::to_string(kMostDepth) +
                    " values, got kernel_shape " + text(given.kernel, 2) + " and " + std::to_string(given.channels) +
                    " channels");
    }
    depth = window;
    outputs = shape[3];
    blocks = (outputs + kLanes - 1) / kLanes;
    weights = Aligned<float>(blocks * depth * kLanes);
    for (int64_t o = 0; o < outputs; ++o) {
        for (int64_t k = 0; k < depth; ++k) {
            weights[(o / kLanes * depth + k) * kLanes + o % kLanes] = raw[k * outputs + o];
        }
    }
    const auto padded = [&](const float* values) {
        Aligned<float> result(blocks * kLanes);  // zeros
        if (values) std::copy_n(values, outputs, result.get());
        return result;
    };
    bias = padded(constants.bias), level = padded(constants.level);
    before = padded(constants.before), slope = padded(constants.slope), after = padded(constants.after);
}

void FloatConvolution::run(const bnn_kernel* kernel, const float* x, int64_t images, int64_t height, int64_t width,
                           float* y, uint8_t* signs, const Pool& pool, Workspace& space) const {
    const Attributes& a = attributes;
    const int64_t out_height = output_size(a, 0, height), out_width = output_size(a, 1, width);
    const int64_t rows = height + a.pads[0] + a.pads[2], columns = width + a.pads[1] + a.pads[3];
    int64_t size;
    if (__builtin_mul_overflow(rows, columns, &size) || __builtin_mul_overflow(size, a.channels, &size) ||
        size > kLargestPlane) {
        throw Error("the image is too large: a buffer of more than 2^29 words would be needed");
    }
    const bool bordered = a.pads[0] || a.pads[1] || a.pads[2] || a.pads[3];
    if (space.height != height || space.width != width) {
        space = Workspace();
        if (bordered) space.planes = Aligned<float>(size);
        for (int64_t k = 0; k < depth; ++k) {
            const int64_t tap = k / a.channels, channel = k % a.channels;
            const int64_t row = tap / a.kernel[1] * a.dilations[0], column = tap % a.kernel[1] * a.dilations[1];
            space.offsets.push_back(last ? (row * columns + column) * a.channels + channel
                                         : (channel * rows + row) * columns + column);
        }
        space.height = height, space.width = width;
    }
    const int64_t pixels = out_height * out_width, products = pixels * depth * blocks * kLanes;
    // An image has `planes` planes, each of rows of `length` floats.
    const int64_t planes = last ? 1 : a.channels, inner = last ? a.channels : 1, length = columns * inner;
    Run run{this, kernel, nullptr, nullptr, nullptr, space.offsets.data(), length, out_height, out_width, out_height};
    if (!pool.single) run.per_task = std::max<int64_t>(1, out_height * kTaskProducts / std::max(products, kTaskProducts));
    const int64_t tasks = (out_height + run.per_task - 1) / run.per_task;
    for (int64_t image = 0; image < images; ++image) {
        run.x = x + image * a.channels * height * width;
        if (bordered) {
            const float* from = run.x;
            for (int64_t plane = 0; plane < planes; ++plane) {
                float* to = space.planes.get() + (plane * rows + a.pads[0]) * length + a.pads[1] * inner;
                for (int64_t row = 0; row < height; ++row, to += length, from += width * inner) {
                    std::memcpy(to, from, size_t(width * inner) * sizeof(float));
                }
            }
            run.x = space.planes.get();
        }
        run.y = y + image * pixels * outputs;
        run.signs = signs ? signs + image * pixels * ((outputs + 7) / 8) : nullptr;
        if (tasks > 1) {
            pool.run(pool.self, row_task, size_t(tasks), &run);
        } else {
            row_task(&run, 0);
        }
    }
}

}  // namespace bnn
