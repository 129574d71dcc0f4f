#include "chain.h"

#include <algorithm>
#include <map>

namespace bnn {

namespace {

constexpr int64_t kLargest = int64_t(1) << 40;
// In a batch of at least so many images each thread takes whole images. In a smaller one the threads share the work of
// each step.
constexpr int64_t kImagesApart = 8;

// Runs all tasks in this thread, as the pool of a thread that has whole images.
void one_by_one(void*, void (*task)(void*, size_t), size_t count, void* data) {
    for (size_t i = 0; i < count; ++i) task(data, i);
}

}  // namespace

int64_t Value::bytes() const {
    int64_t size = 1;
    for (int64_t side : {height, width, form == kSigns ? (channels + 7) / 8 : channels}) {
        if (side < 1 || __builtin_mul_overflow(size, side, &size) || size > kLargest) {
            const int64_t shape[3] = {height, width, channels};
            throw Error("a value of shape " + text(shape, 3) + " is too large, or has a side below 1");
        }
    }
    return form == kSigns ? size : 4 * size;
}

// The memory in which one image is computed: the values between the steps, and the convolutions' buffers.
struct Chain::Arena {
    Aligned<uint8_t> memory;
    std::vector<Workspace> spaces;
    Scratch scratch;
    std::vector<FloatConvolution::Workspace> float_spaces;
};

// The arguments of a call of `run`.
struct Chain::Call {
    const Chain* chain;
    int64_t images;
    const void* const* inputs;
    void* const* outputs;
    std::atomic<bool> failed{false};
};

Chain::Chain(const std::vector<Value>& inputs, const bnn_kernel* kernel)
    : kernel_(kernel), inputs_(int64_t(inputs.size())), values_(inputs) {
    for (const Value& value : inputs) sizes_.push_back(value.bytes());
}

Chain::~Chain() = default;

const Value& Chain::checked(int64_t index, Value::Form form) const {
    if (index < 0 || index >= int64_t(values_.size())) {
        throw Error("value " + std::to_string(index) + " is not the result of an earlier step");
    }
    const Value& value = values_[size_t(index)];
    if (value.form != form) {
        const char* const names[] = {"floats (h, w, c)", "signs (h, w, c)", "floats (c, h, w)"};
        throw Error("value " + std::to_string(index) + " must be " + names[form]);
    }
    return value;
}

void Chain::define(Step step, const std::vector<Value>& made) {
    step.first_output = int64_t(values_.size());
    for (const Value& value : made) {
        sizes_.push_back(value.bytes());
        values_.push_back(value);
    }
    steps_.push_back(std::move(step));
}

void Chain::add_sign(int64_t x, std::vector<float> level) {
    Value made = checked(x, Value::kFloats);
    made.form = Value::kSigns;
    define({x, -1, 0, std::move(level), nullptr, nullptr, nullptr}, {made});
}

void Chain::add_pooling(int64_t x, Pooling pooling) {
    const Value& from = checked(x, Value::kFloats);
    pooling.channels = from.channels;
    pooling.check();
    if (from.height % pooling.kernel[0] || from.width % pooling.kernel[1]) {
        throw Error("the image's height and width must be multiples of the pooling's kernel_shape");
    }
    const Value made{Value::kFloats, from.height / pooling.kernel[0], from.width / pooling.kernel[1], pooling.out_channels()};
    define({x, -1, 0, {}, nullptr, nullptr, std::unique_ptr<Pooling>(new Pooling(pooling))}, {made});
}

void Chain::add_float_convolution(int64_t x, std::unique_ptr<FloatConvolution> convolution) {
    const Attributes& a = convolution->attributes;
    const Value& from = checked(x, convolution->last ? Value::kFloats : Value::kPlanes);
    if (from.channels != a.channels) throw Error("the image and the weights must have the same number of channels");
    Value made{Value::kFloats, output_size(a, 0, from.height), output_size(a, 1, from.width), convolution->outputs};
    std::vector<Value> all{made};
    if (convolution->epilogue.sign) {
        made.form = Value::kSigns;
        all.push_back(made);
    }
    define({x, -1, 0, {}, nullptr, std::move(convolution), nullptr}, all);
}

void Chain::add_convolution(int64_t signs, int64_t residual, std::unique_ptr<Convolution> convolution) {
    const Layer& layer = convolution->layer;
    const Attributes& a = layer.attributes;
    const Value& from = checked(signs, Value::kSigns);
    if (from.channels != a.channels) throw Error("the signs and the weights must have the same number of channels");
    Value made{Value::kFloats, output_size(a, 0, from.height), output_size(a, 1, from.width), layer.outputs};
    if (layer.epilogue.add) {
        const Value& other = checked(residual, Value::kFloats);
        if (other.height != made.height || other.width != made.width || other.channels != made.channels) {
            throw Error("the residual must have the shape of the output");
        }
    } else if (residual != -1) {
        throw Error("the convolution has a residual, but its form does not add one");
    }
    std::vector<Value> all;
    if (layer.epilogue.kind == Kind::kFloat) all.push_back(made);
    if (layer.epilogue.kind == Kind::kThreshold || layer.epilogue.sign) {
        made.form = Value::kSigns;
        all.push_back(made);
    }
    define({signs, residual, 0, {}, std::move(convolution), nullptr, nullptr}, all);
}

// Assigns each value a place in the arena. After the last step that reads a value, its place is free for a later value
// of the same size. A convolution that is the last step to read its residual writes y to the residual's place. This is
// safe because each element is read before it is written, by the same task.
void Chain::finish() {
    if (steps_.empty()) throw Error("attribute program has no step");
    std::vector<int64_t> last(values_.size(), -1);
    for (size_t s = 0; s < steps_.size(); ++s) {
        for (int64_t read : {steps_[s].x, steps_[s].residual}) {
            if (read >= 0) last[size_t(read)] = int64_t(s);
        }
    }
    places_.assign(values_.size(), -1);
    std::multimap<int64_t, int64_t> vacant;  // size -> place that is free
    const int64_t outside = first_output();
    for (size_t s = 0; s < steps_.size(); ++s) {
        const Step& step = steps_[s];
        const int64_t end = s + 1 < steps_.size() ? steps_[s + 1].first_output : int64_t(values_.size());
        bool taken = false;
        for (int64_t v = step.first_output; v < std::min(end, outside); ++v) {
            const size_t r = size_t(step.residual);
            if (values_[size_t(v)].form != Value::kSigns && step.residual >= inputs_ && last[r] == int64_t(s)) {
                places_[size_t(v)] = places_[r];
                taken = true;
                continue;
            }
            const int64_t size = (sizes_[size_t(v)] + 63) / 64 * 64;
            const auto found = vacant.find(size);
            if (found != vacant.end()) {
                places_[size_t(v)] = found->second;
                vacant.erase(found);
            } else {
                places_[size_t(v)] = arena_size_;
                if (__builtin_add_overflow(arena_size_, size, &arena_size_) || arena_size_ > kLargest) {
                    throw Error("the values of one image need more than 2^40 bytes");
                }
            }
        }
        // Frees the places of values that no later step reads.
        const auto leave = [&](int64_t v) {
            if (v >= inputs_ && v < outside) vacant.emplace((sizes_[size_t(v)] + 63) / 64 * 64, places_[size_t(v)]);
        };
        if (last[size_t(step.x)] == int64_t(s)) leave(step.x);
        if (step.residual >= 0 && step.residual != step.x && last[size_t(step.residual)] == int64_t(s) && !taken) {
            leave(step.residual);
        }
        for (int64_t v = step.first_output; v < std::min(end, outside); ++v) {
            if (last[size_t(v)] < 0) leave(v);
        }
    }
}

std::unique_ptr<Chain::Arena> Chain::take() const {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!idle_.empty()) {
            std::unique_ptr<Arena> arena = std::move(idle_.back());
            idle_.pop_back();
            return arena;
        }
    }
    std::unique_ptr<Arena> arena(new Arena);
    arena->memory = Aligned<uint8_t>(arena_size_);
    arena->spaces.resize(steps_.size());
    arena->float_spaces.resize(steps_.size());
    return arena;
}

void Chain::give(std::unique_ptr<Arena> arena) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(arena));
}

void Chain::run_image(const Call& call, int64_t image, Arena& arena, const Pool& pool) const {
    const int64_t outside = first_output();
    const auto at = [&](int64_t v) -> uint8_t* {
        const size_t index = size_t(v);
        if (v >= outside) return static_cast<uint8_t*>(call.outputs[v - outside]) + image * sizes_[index];
        if (v >= inputs_) return arena.memory.get() + places_[index];
        // The cast is safe because inputs are only read.
        return static_cast<uint8_t*>(const_cast<void*>(call.inputs[v])) + image * sizes_[index];
    };
    for (size_t s = 0; s < steps_.size(); ++s) {
        const Step& step = steps_[s];
        const Value& x = values_[size_t(step.x)];
        uint8_t* const made = at(step.first_output);
        if (step.pooling) {
            step.pooling->run(reinterpret_cast<const float*>(at(step.x)), 1, x.height, x.width,
                              reinterpret_cast<float*>(made), pool);
        } else if (step.float_convolution) {
            uint8_t* const signs = step.float_convolution->epilogue.sign ? at(step.first_output + 1) : nullptr;
            step.float_convolution->run(kernel_, reinterpret_cast<const float*>(at(step.x)), 1, x.height, x.width,
                                        reinterpret_cast<float*>(made), signs, pool, arena.float_spaces[s]);
        } else if (!step.convolution) {
            pack_signs(kernel_, reinterpret_cast<const float*>(at(step.x)), step.level.empty() ? nullptr : step.level.data(),
                       x.height * x.width, x.channels, made, pool);
        } else {
            const Epilogue& epilogue = step.convolution->layer.epilogue;
            Tensors tensors;
            tensors.input = at(step.x);
            tensors.images = 1, tensors.height = x.height, tensors.width = x.width;
            if (epilogue.add) tensors.residual = reinterpret_cast<const float*>(at(step.residual));
            if (epilogue.kind == Kind::kThreshold) {
                tensors.signs = made;
            } else {
                tensors.y = reinterpret_cast<float*>(made);
                if (epilogue.sign) tensors.signs = at(step.first_output + 1);
            }
            step.convolution->run(tensors, pool, arena.spaces[s], arena.scratch);
        }
    }
}

void Chain::run(int64_t images, const void* const* inputs, void* const* outputs, const Pool& pool) const {
    if (images < kImagesApart) {
        const Call call{this, images, inputs, outputs};
        std::unique_ptr<Arena> arena = take();
        for (int64_t image = 0; image < images; ++image) run_image(call, image, *arena, pool);
        return give(std::move(arena));
    }
    Call call{this, images, inputs, outputs};
    const auto task = [](void* data, size_t image) {
        Call& call = *static_cast<Call*>(data);
        try {
            std::unique_ptr<Arena> arena = call.chain->take();
            call.chain->run_image(call, int64_t(image), *arena, {one_by_one, nullptr, true});
            call.chain->give(std::move(arena));
        } catch (...) {  // no exception may reach onnxruntime's threads; sizes were checked, so it is lack of memory
            call.failed = true;
        }
    };
    pool.run(pool.self, task, size_t(images), &call);
    if (call.failed) throw std::bad_alloc();
}

}  // namespace bnn
