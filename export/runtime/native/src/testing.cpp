// Functions that call the kernels without onnxruntime, for tests and benchmarks (native/direct.py), and the one that
// names the kernel. Each has a buffer for an error message, `message`, of `size` bytes, as its last two arguments.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "convolution.h"

namespace {

using namespace bnn;

// Runs all tasks in this thread, as a pool.
void serial(void*, void (*task)(void*, size_t), size_t count, void* data) {
    for (size_t i = 0; i < count; ++i) task(data, i);
}

// Copies a message to the caller's buffer, cut to its size, and returns 1.
int fail(char* message, int64_t size, const char* what) {
    if (size > 0) {
        std::strncpy(message, what, size_t(size - 1));
        message[size - 1] = '\0';
    }
    return 1;
}

// Runs `body` and returns 0, or 1 after writing the message of the exception that it raised.
template <typename Body>
int guarded(char* message, int64_t size, Body body) {
    try {
        body();
        return 0;
    } catch (const std::exception& error) {
        return fail(message, size, error.what());
    }
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Returns the name of the kernel that is used on this machine, or null after writing why there is none.
EXPORT const char* bnn_itrd_kernel(char* message, int64_t size) {
    const char* name = nullptr;
    guarded(message, size, [&] { name = kernel_name(best_kernel()); });
    return name;
}

// Makes a convolution; returns null after writing a message if an argument is refused. attributes: channels, group,
// padding_value, kernel (2), strides (2), dilations (2), pads (4). epilogue: kind, add, clip, rprelu, sign as in
// kernel.h. floats: scale, bias, before, slope, after, level.
EXPORT void* bnn_itrd_create(const char* kernel, const int64_t* attributes, const int32_t* epilogue,
                             const float* limits, const uint8_t* weights, const int64_t* shape,
                             const int32_t* threshold, const float* const* floats, char* message, int64_t size) {
    void* result = nullptr;
    guarded(message, size, [&] {
        Attributes a;
        a.channels = attributes[0], a.group = attributes[1], a.padding_value = attributes[2];
        std::copy_n(attributes + 3, 2, a.kernel);
        std::copy_n(attributes + 5, 2, a.strides);
        std::copy_n(attributes + 7, 2, a.dilations);
        std::copy_n(attributes + 9, 4, a.pads);
        Epilogue e;
        e.kind = Kind(epilogue[0]);
        e.add = epilogue[1], e.clip = epilogue[2], e.rprelu = epilogue[3], e.sign = epilogue[4];
        e.low = limits[0], e.high = limits[1];
        Constants constants;
        constants.threshold = threshold, constants.scale = floats[0], constants.bias = floats[1];
        constants.before = floats[2], constants.slope = floats[3], constants.after = floats[4];
        constants.level = floats[5];
        result = new Convolution(Layer(a, e, weights, {shape, shape + 4}, constants), kernel_by_name(kernel));
    });
    return result;
}

EXPORT void bnn_itrd_destroy(void* convolution) { delete static_cast<Convolution*>(convolution); }

// Writes the size (h', w') of the output for images of shape (n, h, w) to `out`. Returns 0, or 1 and a message.
EXPORT int bnn_itrd_output_size(const void* convolution, const int64_t* shape, int64_t* out, char* message,
                                int64_t size) {
    return guarded(message, size, [&] {
        const Attributes& a = static_cast<const Convolution*>(convolution)->layer.attributes;
        for (int axis = 0; axis < 2; ++axis) out[axis] = output_size(a, axis, shape[axis + 1]);
    });
}

// Runs a convolution `repeats` times and writes the seconds of each run. shape: (n, h, w). Returns 0, or 1 and a
// message.
EXPORT int bnn_itrd_run(const void* convolution, const uint8_t* input, const int64_t* shape, const float* residual,
                        float* y, uint8_t* signs, int32_t* raw, int64_t repeats, double* seconds, char* message,
                        int64_t size) {
    return guarded(message, size, [&] {
        Tensors tensors;
        tensors.input = input;
        tensors.images = shape[0], tensors.height = shape[1], tensors.width = shape[2];
        tensors.residual = residual, tensors.y = y, tensors.signs = signs, tensors.raw = raw;
        for (int64_t i = 0; i < repeats; ++i) {
            const auto start = std::chrono::steady_clock::now();
            static_cast<const Convolution*>(convolution)->run(tensors, Pool{serial, nullptr});
            seconds[i] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        }
    });
}

// Packs the signs of x, (pixels, channels), to bytes. level: (channels), from which on a sign is +1; null for 0.
EXPORT int bnn_itrd_signs(const char* kernel, const float* x, const float* level, int64_t pixels, int64_t channels,
                          uint8_t* bytes, char* message, int64_t size) {
    return guarded(message, size, [&] {
        pack_signs(kernel_by_name(kernel), x, level, pixels, channels, bytes, Pool{serial, nullptr});
    });
}
