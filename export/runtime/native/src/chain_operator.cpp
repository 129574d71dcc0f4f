// The operators Chain0, Chain1, ... and ChainSign0, ...: they make a Chain (chain.h) from the attribute `program`, a
// list of integers that is described in docs/reference/format.md, and run it.
#include <algorithm>

#include "operators.h"

namespace bnn {

namespace {

// The number that begins a step in the program.
enum Code { kSignStep = 0, kPoolingStep = 1, kConvolutionStep = 2, kFloatStep = 3, kLevelStep = 4, kInnerStep = 5 };
// Bits of a convolution's form, the number that says what follows its sum. Form 0 is a threshold.
enum Form { kFloatForm = 1, kAddForm = 2, kClipForm = 4, kSignForm = 8, kRPReLUForm = 16, kLevelForm = 32 };

// Reads the attribute `program` number by number.
class Program {
  public:
    explicit Program(std::vector<int64_t> numbers) : numbers_(std::move(numbers)) {}

    bool ended() const { return at_ == numbers_.size(); }
    int64_t next() {
        if (ended()) throw Error("attribute program ends within a step");
        return numbers_[at_++];
    }
    void next(int64_t* values, size_t count) {
        for (size_t i = 0; i < count; ++i) values[i] = next();
    }

  private:
    std::vector<int64_t> numbers_;
    size_t at_ = 0;
};

Pooling next_pooling(Program& program) {
    Pooling pooling;
    pooling.mean = program.next() != 0;
    program.next(pooling.kernel, 2);
    program.next(pooling.zeros, 2);
    return pooling;
}

Attributes next_window(Program& program) {
    Attributes a;
    program.next(a.kernel, 2);
    program.next(a.strides, 2);
    program.next(a.pads, 4);
    program.next(a.dilations, 2);
    return a;
}

Attributes next_attributes(Program& program) {
    Attributes a = next_window(program);
    a.group = program.next();
    a.padding_value = program.next();
    return a;
}

// Returns the epilogue that a form says. Raises Error on a form that no operation has.
Epilogue epilogue_of(int64_t form) {
    Epilogue e;
    const bool known = form >= 0 && form < 64 && (!form || form & kFloatForm) &&
                       !(form & kClipForm && form & kRPReLUForm) && (form & kSignForm || !(form & kLevelForm));
    if (!known) throw Error("the convolution has an unknown form");
    e.kind = form ? Kind::kFloat : Kind::kThreshold;
    e.add = form & kAddForm, e.clip = form & kClipForm, e.rprelu = form & kRPReLUForm;
    e.sign = form & kSignForm, e.rsign = form & kLevelForm;
    return e;
}

}  // namespace

void Kernel::read_chain(const OrtKernelInfo* info) {
    Program program(all_integers(api, info, "program"));
    size_t given = 0;
    check(ort::KernelInfo_GetInputCount(api, info, &given));
    std::vector<Value> inputs;
    for (int64_t left = program.next(); left > 0; --left) {
        Value value;
        const int64_t form = program.next();
        if (form < 0 || form > 2) throw Error("attribute program has an input of unknown form " + std::to_string(form));
        value.form = Value::Form(form);
        value.height = program.next(), value.width = program.next(), value.channels = program.next();
        inputs.push_back(value);
    }
    if (inputs.empty() || inputs.size() > given) throw Error("attribute program has no inputs, or too many");
    chain_inputs = inputs.size();
    chain.reset(new Chain(inputs, kernel));

    std::vector<float> limits;
    size_t clips = 0;
    // Takes the next two limits for an epilogue with a clip.
    const auto clip = [&](Epilogue& epilogue) {
        if (!epilogue.clip) return;
        if (!clips) limits = all_numbers(api, info, "limits");
        if (2 * clips + 1 >= limits.size()) throw Error("attribute limits must have two numbers for each clip");
        set_limits(epilogue, limits[2 * clips], limits[2 * clips + 1]);
        ++clips;
    };
    // Returns the index of a step's first constant among the inputs, after checking that all its constants are there.
    const auto place = [&](int64_t first, size_t constants) {
        if (first < int64_t(inputs.size()) || first > int64_t(given) - int64_t(constants)) {
            throw Error("its constants must be inputs of the operator");
        }
        return size_t(first);
    };
    for (size_t step = 0; !program.ended(); ++step) {
        try {
            const int64_t code = program.next(), x = program.next();
            if (code == kSignStep) {
                chain->add_sign(x, {});
            } else if (code == kLevelStep) {
                const int64_t channels = chain->channels(x, Value::kFloats);
                const void* const level = vector_constant(info, place(program.next(), 1), ort::kFloat, "level", channels);
                const float* const values = static_cast<const float*>(level);
                chain->add_sign(x, {values, values + channels});
            } else if (code == kPoolingStep) {
                chain->add_pooling(x, next_pooling(program));
            } else if (code == kConvolutionStep) {
                const int64_t residual = program.next(), form = program.next(), first = program.next();
                Epilogue epilogue = epilogue_of(form);
                clip(epilogue);
                Attributes a = next_attributes(program);
                a.channels = chain->channels(x, Value::kSigns);
                const size_t count = epilogue.kind == Kind::kThreshold ? 2 : 3, at = place(first, count + more(epilogue));
                chain->add_convolution(x, residual, make_convolution(info, a, epilogue, at, at + count));
            } else if (code == kFloatStep || code == kInnerStep) {
                const int64_t form = program.next(), first = program.next();
                Epilogue epilogue = epilogue_of(form);
                if (epilogue.kind != Kind::kFloat || epilogue.add) throw Error("the convolution has an unknown form");
                clip(epilogue);
                Attributes a = next_window(program);
                const bool last = code == kInnerStep;
                a.channels = chain->channels(x, last ? Value::kFloats : Value::kPlanes);
                const size_t at = place(first, 2 + more(epilogue));
                chain->add_float_convolution(x, make_float_convolution(info, a, epilogue, last, at));
            } else {
                throw Error("the step has the unknown code " + std::to_string(code));
            }
        } catch (const Error& error) {
            throw Error("step " + std::to_string(step) + ": " + error.what());
        }
    }
    chain->finish();
    const Value& result = chain->value(chain->first_output());
    if (size_t(chain->outputs()) != op.outputs() || result.form != Value::kFloats) {
        throw Error("the outputs of the last step must be those of the operator");
    }
    int64_t size[3];
    integers(api, info, "output_size", size, 3);
    if (size[0] != result.height || size[1] != result.width || size[2] != result.channels) {
        const int64_t found[3] = {result.height, result.width, result.channels};
        throw Error("output_size must be " + text(found, 3) + ", got " + text(size, 3));
    }
}

void Kernel::compute_chain(OrtKernelContext* context) const {
    std::vector<const void*> inputs;
    int64_t images = 0;
    for (size_t i = 0; i < chain_inputs; ++i) {
        const Value& wanted = chain->value(int64_t(i));
        const std::string name = std::to_string(i);
        const Tensor x = input(context, i, wanted.form == Value::kSigns ? ort::kUint8 : ort::kFloat, name.c_str());
        images = i ? images : x.shape[0];
        const bool planes = wanted.form == Value::kPlanes;
        const int64_t last[3] = {wanted.height, wanted.width, wanted.channels};
        const int64_t first[3] = {wanted.channels, wanted.height, wanted.width};
        const int64_t* const shape = planes ? first : last;
        if (x.shape[0] != images || !std::equal(shape, shape + 3, x.shape.begin() + 1)) {
            throw Error("input " + name + " must have shape (batch, " + text(shape, 3).substr(1) + ", got " +
                        text(x.shape.data(), 4));
        }
        inputs.push_back(x.data);
    }
    const Value& result = chain->value(chain->first_output());
    const int64_t shape[4] = {images, result.height, result.width, result.channels};
    void* outputs[2] = {nullptr, nullptr};
    for (size_t i = 0; i < op.outputs(); ++i) outputs[i] = output(context, i, shape);
    if (images < 1) return;
    Threads threads{api, context};
    chain->run(images, inputs.data(), outputs, threads.pool());
}

}  // namespace bnn
