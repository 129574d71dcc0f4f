// A chain: operators in a row as one operator, which runs all of them on an image while it is in the cache.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "convolution.h"
#include "float_convolution.h"
#include "pooling.h"

namespace bnn {

// The shape and form of a value for one image: floats (h, w, c), or signs (h, w, ceil(c / 8)); an input may also be
// planes of floats, (c, h, w).
struct Value {
    enum Form { kFloats = 0, kSigns = 1, kPlanes = 2 };

    Form form = kFloats;
    int64_t height = 0, width = 0, channels = 0;

    // Returns its size for one image. Raises Error where a side is below 1, or the size above 2^40.
    int64_t bytes() const;
};

class Chain {
  public:
    // Values 0 .. inputs.size() - 1 are the chain's inputs.
    Chain(const std::vector<Value>& inputs, const bnn_kernel*);
    ~Chain();
    Chain(const Chain&) = delete;
    Chain& operator=(const Chain&) = delete;

    // These add the next step, whose outputs are the next values: one for a sign or pooling, y and then signs for a
    // convolution. They raise Error where an input is not defined yet, or has another form or size.
    // level: one number per channel, or empty for 0.
    void add_sign(int64_t x, std::vector<float> level);
    void add_pooling(int64_t x, Pooling pooling);
    void add_float_convolution(int64_t x, std::unique_ptr<FloatConvolution> convolution);
    void add_convolution(int64_t signs, int64_t residual, std::unique_ptr<Convolution> convolution);
    // Is called after the last step, whose values are the chain's outputs. Raises Error where there is no step.
    void finish();

    // Returns the channels of a value. Raises Error where it is not defined, or has another form.
    int64_t channels(int64_t value, Value::Form form) const { return checked(value, form).channels; }
    const Value& value(int64_t index) const { return values_[size_t(index)]; }
    // The index of the first output, and the number of outputs.
    int64_t first_output() const { return steps_.back().first_output; }
    int64_t outputs() const { return int64_t(values_.size()) - first_output(); }

    // inputs, outputs: one pointer each, to all images one after another. Several threads may call this at once.
    void run(int64_t images, const void* const* inputs, void* const* outputs, const Pool& pool) const;

  private:
    struct Step {
        int64_t x, residual, first_output;
        std::vector<float> level;  // for a sign
        // All are null for a sign; for any other step one is set.
        std::unique_ptr<Convolution> convolution;
        std::unique_ptr<FloatConvolution> float_convolution;
        std::unique_ptr<Pooling> pooling;
    };
    struct Arena;
    struct Call;

    const Value& checked(int64_t index, Value::Form form) const;
    void define(Step step, const std::vector<Value>& made);
    void run_image(const Call& call, int64_t image, Arena& arena, const Pool& pool) const;
    std::unique_ptr<Arena> take() const;
    void give(std::unique_ptr<Arena> arena) const;

    const bnn_kernel* const kernel_;
    int64_t inputs_ = 0;
    std::vector<Value> values_;
    std::vector<int64_t> sizes_;   // bytes of each value
    std::vector<int64_t> places_;  // where each value lies in an arena
    std::vector<Step> steps_;
    int64_t arena_size_ = 0;
    // Arenas that are not in use.
    mutable std::mutex mutex_;
    mutable std::vector<std::unique_ptr<Arena>> idle_;
};

}  // namespace bnn
