#include "operators.h"

#include <algorithm>

namespace bnn {

Pool Threads::pool() {
    return {[](void* self, void (*task)(void*, size_t), size_t count, void* data) {
                const Threads& threads = *static_cast<Threads*>(self);
                check(ort::KernelContext_ParallelFor(threads.api, threads.context, task, count, count, data));
            },
            this};
}

size_t Operator::inputs() const {
    if (family == Family::kFloatConvolution) return 3 + more(epilogue);
    if (family == Family::kSign) return epilogue.rsign ? 2 : 1;
    if (family != Family::kConvolution) return 1;
    return thresholds() ? 3 : (epilogue.add ? 5 : 4) + more(epilogue);
}

size_t Operator::outputs() const { return family != Family::kSign && !thresholds() && epilogue.sign ? 2 : 1; }

size_t more(const Epilogue& epilogue) { return (epilogue.rprelu ? 3 : 0) + (epilogue.rsign ? 1 : 0); }

ort::Type Operator::input_type(size_t index) const {
    if (family == Family::kChain) return ort::kAny;
    if (family != Family::kConvolution) return ort::kFloat;
    if (index < 2) return ort::kUint8;
    return thresholds() ? ort::kInt32 : ort::kFloat;
}

ort::Type Operator::output_type(size_t index) const {
    const bool signs = family == Family::kSign || thresholds() || index == 1;
    return signs ? ort::kUint8 : ort::kFloat;
}

Kernel::Kernel(const OrtApi* api, const Operator& op, const OrtKernelInfo* info, std::string where)
    : api(api), where(std::move(where)), op(op), kernel(best_kernel()) {
    if (op.family == Family::kConvolution) read_convolution(info);
    if (op.family == Family::kFloatConvolution) read_float_convolution(info);
    if (op.family == Family::kPooling) read_pooling(info);
    if (op.family == Family::kChain) read_chain(info);
    if (op.family == Family::kSign && op.epilogue.rsign) {
        const Tensor values = constant(api, info, 1, ort::kFloat, "level");
        if (values.shape.size() != 1) throw Error("level must have one axis");
        const auto* const numbers = static_cast<const float*>(values.data);
        level.assign(numbers, numbers + values.size());
    }
}

void set_limits(Epilogue& epilogue, float low, float high) {
    if (!(low <= high)) {
        throw Error("low must not be above high, got " + std::to_string(low) + " and " + std::to_string(high));
    }
    epilogue.low = low, epilogue.high = high;
}

Attributes Kernel::read_window(const OrtKernelInfo* info) {
    Attributes a;
    integers(api, info, "input_size", input_size, 2);
    a.channels = integer(api, info, "channels");
    integers(api, info, "kernel_shape", a.kernel, 2);
    integers(api, info, "strides", a.strides, 2);
    integers(api, info, "dilations", a.dilations, 2);
    integers(api, info, "pads", a.pads, 4);
    return a;
}

void Kernel::read_convolution(const OrtKernelInfo* info) {
    Attributes a = read_window(info);
    a.group = integer(api, info, "group");
    a.padding_value = integer(api, info, "padding_value");
    if (op.grouped != (a.group > 1)) {
        throw Error(
            std::string(op.grouped ? "a Grouped operator must have group > 1" : "this operator must have group 1") +
            ", got group " + std::to_string(a.group));
    }
    Epilogue epilogue = op.epilogue;
    if (epilogue.clip) set_limits(epilogue, number(api, info, "low"), number(api, info, "high"));
    convolution = make_convolution(info, a, epilogue, 1, epilogue.add ? 5 : 4);
}

std::unique_ptr<Convolution> Kernel::make_convolution(const OrtKernelInfo* info, const Attributes& a,
                                                      const Epilogue& epilogue, size_t first, size_t further) const {
    const Tensor weights = constant(api, info, first, ort::kUint8, "weights");
    const int64_t outputs = weights.shape.size() == 4 ? weights.shape[3] : 0;
    auto vector = [&](size_t index, ort::Type type, const char* name) {
        return vector_constant(info, first + index, type, name, outputs);
    };
    Constants constants;
    if (epilogue.kind == Kind::kThreshold) {
        constants.threshold = static_cast<const int32_t*>(vector(1, ort::kInt32, "threshold"));
    } else {
        constants.scale = static_cast<const float*>(vector(1, ort::kFloat, "scale"));
        constants.bias = static_cast<const float*>(vector(2, ort::kFloat, "bias"));
    }
    read_further(info, epilogue, further, outputs, constants);
    Layer layer(a, epilogue, static_cast<const uint8_t*>(weights.data), weights.shape, constants);
    return std::unique_ptr<Convolution>(new Convolution(std::move(layer), kernel));
}

void Kernel::read_further(const OrtKernelInfo* info, const Epilogue& epilogue, size_t first, int64_t outputs,
                          Constants& constants) const {
    const auto next = [&](const char* name) {
        return static_cast<const float*>(vector_constant(info, first++, ort::kFloat, name, outputs));
    };
    if (epilogue.rprelu) {
        constants.before = next("before");
        constants.slope = next("slope");
        constants.after = next("after");
    }
    if (epilogue.rsign) constants.level = next("level");
}

const void* Kernel::vector_constant(const OrtKernelInfo* info, size_t index, ort::Type type, const char* name,
                                    int64_t length) const {
    const Tensor values = constant(api, info, index, type, name);
    if (values.shape.size() != 1 || values.shape[0] != length) {
        throw Error(std::string(name) + " must have shape (" + std::to_string(length) +
                    "), a number for each output of weights, got " + text(values.shape.data(), values.shape.size()));
    }
    return values.data;
}

void Kernel::read_float_convolution(const OrtKernelInfo* info) {
    const Attributes a = read_window(info);
    Epilogue epilogue = op.epilogue;
    if (epilogue.clip) set_limits(epilogue, number(api, info, "low"), number(api, info, "high"));
    float_convolution = make_float_convolution(info, a, epilogue, op.last, 1);
}

std::unique_ptr<FloatConvolution> Kernel::make_float_convolution(const OrtKernelInfo* info, const Attributes& a,
                                                                 const Epilogue& epilogue, bool last,
                                                                 size_t first) const {
    const Tensor weights = constant(api, info, first, ort::kFloat, "weights");
    const int64_t outputs = weights.shape.size() == 4 ? weights.shape[3] : 0;
    Constants constants;
    constants.bias = static_cast<const float*>(vector_constant(info, first + 1, ort::kFloat, "bias", outputs));
    read_further(info, epilogue, first + 2, outputs, constants);
    return std::unique_ptr<FloatConvolution>(
        new FloatConvolution(a, epilogue, last, static_cast<const float*>(weights.data), weights.shape, constants));
}

void Kernel::read_pooling(const OrtKernelInfo* info) {
    integers(api, info, "input_size", input_size, 2);
    pooling.mean = op.mean;
    pooling.channels = integer(api, info, "channels");
    integers(api, info, "kernel_shape", pooling.kernel, 2);
    if (op.zeros) integers(api, info, "zeros", pooling.zeros, 2);
    pooling.check();
}

Tensor Kernel::input(OrtKernelContext* context, size_t index, ort::Type type, const char* name) const {
    const OrtValue* value = nullptr;
    check(ort::KernelContext_GetInput(api, context, index, &value));
    Tensor result = tensor(api, value, type, name);
    if (result.shape.size() != 4) {
        throw Error(std::string("input ") + name + " must have 4 axes, got shape " +
                    text(result.shape.data(), result.shape.size()));
    }
    return result;
}

void* Kernel::output(OrtKernelContext* context, size_t index, const int64_t (&shape)[4]) const {
    int64_t size = 1;
    for (int64_t side : shape) {
        if (__builtin_mul_overflow(size, side, &size) || size > (int64_t(1) << 40)) {
            throw Error("an output of shape " + text(shape, 4) + " is too large");
        }
    }
    OrtValue* value = nullptr;
    void* data = nullptr;
    check(ort::KernelContext_GetOutput(api, context, index, shape, 4, &value));
    check(ort::GetTensorMutableData(api, value, &data));
    return data;
}

void Kernel::compute(OrtKernelContext* context) const {
    if (op.family == Family::kSign) compute_sign(context);
    if (op.family == Family::kConvolution) compute_convolution(context);
    if (op.family == Family::kFloatConvolution) compute_float_convolution(context);
    if (op.family == Family::kPooling) compute_pooling(context);
    if (op.family == Family::kChain) compute_chain(context);
}

void Kernel::compute_sign(OrtKernelContext* context) const {
    const Tensor x = input(context, 0, ort::kFloat, "x");
    const int64_t shape[4] = {x.shape[0], x.shape[1], x.shape[2], x.shape[3]};
    if (op.epilogue.rsign && int64_t(level.size()) != shape[3]) {
        throw Error("level must have as many numbers as x has channels: " + std::to_string(shape[3]) + ", got " +
                    std::to_string(level.size()));
    }
    auto* const signs = static_cast<uint8_t*>(output(context, 0, shape));
    if (x.size() < 1) return;
    Threads threads{api, context};
    pack_signs(kernel, static_cast<const float*>(x.data), op.epilogue.rsign ? level.data() : nullptr,
               x.size() / shape[3], shape[3], signs, threads.pool());
}

void Kernel::compute_convolution(OrtKernelContext* context) const {
    const Layer& layer = convolution->layer;
    const Attributes& a = layer.attributes;
    const Tensor x = input(context, 0, ort::kUint8, "signs");
    if (x.shape[1] != input_size[0] || x.shape[2] != input_size[1] || x.shape[3] != a.channels) {
        const int64_t wanted[3] = {input_size[0], input_size[1], a.channels};
        throw Error("input signs must have shape (batch, " + text(wanted, 3).substr(1) + ", got " +
                    text(x.shape.data(), 4));
    }
    const int64_t shape[4] = {x.shape[0], output_size(a, 0, x.shape[1]), output_size(a, 1, x.shape[2]), layer.outputs};
    Tensors tensors;
    tensors.input = static_cast<const uint8_t*>(x.data);
    tensors.images = x.shape[0], tensors.height = x.shape[1], tensors.width = x.shape[2];
    if (layer.epilogue.add) {
        const Tensor residual = input(context, 4, ort::kFloat, "residual");
        if (!std::equal(shape, shape + 4, residual.shape.begin())) {
            throw Error("input residual must have the shape of the output, " + text(shape, 4) + ", got " +
                        text(residual.shape.data(), 4));
        }
        tensors.residual = static_cast<const float*>(residual.data);
    }
    if (op.thresholds()) {
        tensors.signs = static_cast<uint8_t*>(output(context, 0, shape));
    } else {
        tensors.y = static_cast<float*>(output(context, 0, shape));
        if (layer.epilogue.sign) tensors.signs = static_cast<uint8_t*>(output(context, 1, shape));
    }
    Threads threads{api, context};
    convolution->run(tensors, threads.pool());
}

void Kernel::compute_float_convolution(OrtKernelContext* context) const {
    const FloatConvolution& c = *float_convolution;
    const Attributes& a = c.attributes;
    const Tensor x = input(context, 0, ort::kFloat, "x");
    const int64_t first[3] = {a.channels, input_size[0], input_size[1]};
    const int64_t last[3] = {input_size[0], input_size[1], a.channels};
    const int64_t* const wanted = c.last ? last : first;
    if (!std::equal(wanted, wanted + 3, x.shape.begin() + 1)) {
        throw Error("input x must have shape (batch, " + text(wanted, 3).substr(1) + ", got " +
                    text(x.shape.data(), 4));
    }
    const int64_t shape[4] = {x.shape[0], output_size(a, 0, input_size[0]), output_size(a, 1, input_size[1]), c.outputs};
    auto* const y = static_cast<float*>(output(context, 0, shape));
    auto* const signs = c.epilogue.sign ? static_cast<uint8_t*>(output(context, 1, shape)) : nullptr;
    Threads threads{api, context};
    FloatConvolution::Workspace space;
    c.run(kernel, static_cast<const float*>(x.data), x.shape[0], input_size[0], input_size[1], y, signs, threads.pool(),
          space);
}

void Kernel::compute_pooling(OrtKernelContext* context) const {
    const Tensor x = input(context, 0, ort::kFloat, "x");
    const int64_t* const size = pooling.kernel;
    if (x.shape[1] != input_size[0] || x.shape[2] != input_size[1] || x.shape[3] != pooling.channels ||
        x.shape[1] % size[0] || x.shape[2] % size[1]) {
        const int64_t wanted[3] = {input_size[0], input_size[1], pooling.channels};
        throw Error("input x must have shape (batch, " + text(wanted, 3).substr(1) +
                    " with height and width multiples of " + text(size, 2) + ", got " + text(x.shape.data(), 4));
    }
    const int64_t shape[4] = {x.shape[0], x.shape[1] / size[0], x.shape[2] / size[1], pooling.out_channels()};
    auto* const y = static_cast<float*>(output(context, 0, shape));
    Threads threads{api, context};
    pooling.run(static_cast<const float*>(x.data), x.shape[0], x.shape[1], x.shape[2], y, threads.pool());
}

}  // namespace bnn
