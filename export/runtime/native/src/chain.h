// A chain: several operators in a row that run as one. All of them run on an image before the next image is begun, so
// that the values between them stay in the cache. An operator of a chain is called a step.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "convolution.h"
#include "float_convolution.h"
#include "pooling.h"

namespace bnn {

// The shape and form of a value, an input of the chain or a result of a step, for one image. It has floats (h, w, c) or
// packed signs (h, w, ceil(c / 8)). An input of the chain may also be planes: floats (c, h, w).
struct Value {
    enum Form { kFloats = 0, kSigns = 1, kPlanes = 2 };

    Form form = kFloats;
    int64_t height = 0, width = 0, channels = 0;

    // Returns the value's size in bytes. Raises Error if a side is below 1, or the size above 2^40.
    int64_t bytes() const;
};

// A chain is made with its inputs, then gets its steps in order, then `finish` is called, and then it can run. Values
// are numbered in this order: the inputs, then the results of each step.
class Chain {
  public:
    Chain(const std::vector<Value>& inputs, const bnn_kernel*);
    ~Chain();
    Chain(const Chain&) = delete;
    Chain& operator=(const Chain&) = delete;

    // These functions add a step; its results are the next values. A sign or a pooling has one result, a convolution
    // its floats y, if any, and then its signs, if any. x, signs and residual are numbers of values; -1 is no residual.
    // They raise Error if such a value does not exist, or has another form or size than the step needs.
    // level: one number per channel from which on a sign is +1, or empty for 0.
    void add_sign(int64_t x, std::vector<float> level);
    void add_pooling(int64_t x, Pooling pooling);
    void add_float_convolution(int64_t x, std::unique_ptr<FloatConvolution> convolution);
    void add_convolution(int64_t signs, int64_t residual, std::unique_ptr<Convolution> convolution);
    // Must be called after the last step, whose results are the chain's outputs. Raises Error if there is no step.
    void finish();

    // Returns the number of channels of a value. Raises Error if it does not exist or has another form.
    int64_t channels(int64_t value, Value::Form form) const { return checked(value, form).channels; }
    const Value& value(int64_t index) const { return values_[size_t(index)]; }
    // The number of the value that is the first output, and how many outputs there are.
    int64_t first_output() const { return steps_.back().first_output; }
    int64_t outputs() const { return int64_t(values_.size()) - first_output(); }

    // Runs the chain on `images` images. inputs, outputs: for each a pointer to its value for the first image; the
    // other images follow. Several threads may call this at once. Raises std::bad_alloc.
    void run(int64_t images, const void* const* inputs, void* const* outputs, const Pool& pool) const;

  private:
    struct Step {
        int64_t x, residual, first_output;
        std::vector<float> level;  // for a sign
        // What the step does: one of these is set, or none for a sign.
        std::unique_ptr<Convolution> convolution;
        std::unique_ptr<FloatConvolution> float_convolution;
        std::unique_ptr<Pooling> pooling;
    };
    struct Arena;
    struct Call;

    // Returns a value. Raises Error if it does not exist or has another form.
    const Value& checked(int64_t index, Value::Form form) const;
    // Adds a step with its results.
    void define(Step step, const std::vector<Value>& made);
    void run_image(const Call& call, int64_t image, Arena& arena, const Pool& pool) const;
    std::unique_ptr<Arena> take() const;
    void give(std::unique_ptr<Arena> arena) const;

    const bnn_kernel* const kernel_;
    int64_t inputs_ = 0;
    std::vector<Value> values_;
    std::vector<int64_t> sizes_;   // bytes of each value
    std::vector<int64_t> places_;  // where each value begins in an arena's memory; -1 for inputs and outputs
    std::vector<Step> steps_;
    int64_t arena_size_ = 0;
    // Arenas that no call uses at present, see `take` and `give`.
    mutable std::mutex mutex_;
    mutable std::vector<std::unique_ptr<Arena>> idle_;
};

}  // namespace bnn
