// The operators of docs/reference/format.md: one class of onnxruntime's kind with a few switches.
#pragma once

#include <memory>
#include <string>

#include "chain.h"
#include "convolution.h"
#include "ort_values.h"
#include "pooling.h"

namespace bnn {

enum class Family { kSign, kConvolution, kFloatConvolution, kPooling, kChain };

struct Operator : OrtCustomOp {
    const OrtApi* api = nullptr;
    std::string name;
    Family family = Family::kSign;
    bool grouped = false;              // convolutions
    bool mean = false, zeros = false;  // poolings
    bool last = false;                 // float convolutions: NHWC in
    Epilogue epilogue;

    bool thresholds() const { return epilogue.kind == Kind::kThreshold; }
    size_t inputs() const;
    size_t outputs() const;
    ort::Type input_type(size_t index) const;
    ort::Type output_type(size_t index) const;
};

// Writes the shapes of the outputs as far as they follow from the file: for the planning of memory. Says nothing about
// what is wrong; `Kernel` does, in better words.
void infer_shapes(const Operator&, OrtShapeInferContext*) noexcept;

// onnxruntime's threads, for the time of one call.
struct Threads {
    const OrtApi* api;
    OrtKernelContext* context;

    Pool pool();
};

// How many constants RPReLU and RSign have.
size_t more(const Epilogue&);

// Raises Error where low is above high, or one of them is no number.
void set_limits(Epilogue&, float low, float high);

// One node of a session.
class Kernel {
  public:
    // Raises Error, Refused or std::bad_alloc.
    Kernel(const OrtApi*, const Operator&, const OrtKernelInfo*, std::string where);
    void compute(OrtKernelContext*) const;

    const OrtApi* const api;
    const std::string where;  // begins its messages

  private:
    // What every convolution has; sets `input_size`.
    Attributes read_window(const OrtKernelInfo*);
    void read_convolution(const OrtKernelInfo*);
    void read_float_convolution(const OrtKernelInfo*);
    void read_pooling(const OrtKernelInfo*);
    void read_chain(const OrtKernelInfo*);  // in chain_operator.cpp
    // Its constants are the inputs from `first` on: weights, then threshold, or scale and bias; and from `further` on
    // those of RPReLU and RSign.
    std::unique_ptr<Convolution> make_convolution(const OrtKernelInfo*, const Attributes&, const Epilogue&,
                                                  size_t first, size_t further) const;
    // The same: weights, bias, those of RPReLU and RSign.
    std::unique_ptr<FloatConvolution> make_float_convolution(const OrtKernelInfo*, const Attributes&, const Epilogue&,
                                                             bool last, size_t first) const;
    // Those of RPReLU and RSign, `outputs` numbers each.
    void read_further(const OrtKernelInfo*, const Epilogue&, size_t first, int64_t outputs, Constants&) const;
    const void* vector_constant(const OrtKernelInfo*, size_t index, ort::Type, const char* name, int64_t length) const;
    void compute_sign(OrtKernelContext*) const;
    void compute_convolution(OrtKernelContext*) const;
    void compute_float_convolution(OrtKernelContext*) const;
    void compute_pooling(OrtKernelContext*) const;
    void compute_chain(OrtKernelContext*) const;
    Tensor input(OrtKernelContext*, size_t index, ort::Type, const char* name) const;
    void* output(OrtKernelContext*, size_t index, const int64_t (&shape)[4]) const;

    const Operator& op;
    const bnn_kernel* const kernel;
    int64_t input_size[2] = {0, 0};
    std::unique_ptr<Convolution> convolution;
    std::unique_ptr<FloatConvolution> float_convolution;
    Pooling pooling;
    std::vector<float> level;  // of an RSign
    std::unique_ptr<Chain> chain;
    size_t chain_inputs = 0;
};

}  // namespace bnn
