// Operators one after the other as a single one: each image goes through all of them while it is in the cache.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "convolution.h"
#include "float_convolution.h"
#include "pooling.h"

namespace bnn {

// What lies between two steps, of one image: floats (h, w, c), or signs (h, w, ceil(c / 8)); from outside also planes
// of floats, (c, h, w).
struct Value {
    enum Form { kFloats = 0, kSigns = 1, kPlanes = 2 };

    Form form = kFloats;
    int64_t height = 0, width = 0, channels = 0;

    // Of one image. Raises Error where a side is below 1 or there are more than 2^40.
    int64_t bytes() const;
};

class Chain {
  public:
    // Values 0 .. inputs.size() - 1 come from outside.
    Chain(const std::vector<Value>& inputs, const bnn_kernel*);
    ~Chain();
    Chain(const Chain&) = delete;
    Chain& operator=(const Chain&) = delete;

    // Steps in order; each defines the next values: the one of a sign or pooling, y and then signs of a convolution.
    // Raise Error where a value is not defined yet, of the wrong type or size.
    // level: of each channel, or none for 0.
    void add_sign(int64_t x, std::vector<float> level);
    void add_pooling(int64_t x, Pooling pooling);
    void add_float_convolution(int64_t x, std::unique_ptr<FloatConvolution> convolution);
    void add_convolution(int64_t signs, int64_t residual, std::unique_ptr<Convolution> convolution);
    // After the last step; its values are the outputs. Raises Error where there is no step.
    void finish();

    // Of a value of this form that is there. Raises Error where it is not.
    int64_t channels(int64_t value, Value::Form form) const { return checked(value, form).channels; }
    const Value& value(int64_t index) const { return values_[size_t(index)]; }
    // What the last step gives: the first of its values, how many.
    int64_t first_output() const { return steps_.back().first_output; }
    int64_t outputs() const { return int64_t(values_.size()) - first_output(); }

    // One pointer for each input and output, images one after another. May be called by several threads at once.
    void run(int64_t images, const void* const* inputs, void* const* outputs, const Pool& pool) const;

  private:
    struct Step {
        int64_t x, residual, first_output;
        std::vector<float> level;  // of a sign
        // A sign has none of them, everything else has one.
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
    // Arenas wait here for the next image.
    mutable std::mutex mutex_;
    mutable std::vector<std::unique_ptr<Arena>> idle_;
};

}  // namespace bnn
