// The operators of docs/reference/format.md, as onnxruntime sees them. An Operator describes an operator by its name;
// onnxruntime makes a Kernel for each node of a session that is such an operator.
#pragma once

#include <memory>
#include <string>

#include "chain.h"
#include "convolution.h"
#include "ort_values.h"
#include "pooling.h"

namespace bnn {

enum class Family { kSign, kConvolution, kFloatConvolution, kPooling, kChain };

// The description of one operator: onnxruntime's table of functions, and what the functions need to know.
struct Operator : OrtCustomOp {
    const OrtApi* api = nullptr;
    std::string name;
    Family family = Family::kSign;
    bool grouped = false;              // for convolutions
    bool mean = false, zeros = false;  // for poolings
    bool last = false;                 // for float convolutions: the input has its channels last, NHWC
    Epilogue epilogue;

    // Whether it is a convolution that returns signs by a threshold.
    bool thresholds() const { return epilogue.kind == Kind::kThreshold; }
    size_t inputs() const;
    size_t outputs() const;
    ort::Type input_type(size_t index) const;
    ort::Type output_type(size_t index) const;
};

// Gives onnxruntime the shapes of the outputs, as far as the file determines them, so that it can plan its memory.
// Errors are ignored here, because Kernel finds them too and has better messages.
void infer_shapes(const Operator&, OrtShapeInferContext*) noexcept;

// onnxruntime's threads, as a pool that can be used during one call.
struct Threads {
    const OrtApi* api;
    OrtKernelContext* context;

    Pool pool();
};

// Returns the number of constants that an epilogue needs for RPReLU (three) and RSign (one).
size_t more(const Epilogue&);

// Sets the bounds of a clip. Raises Error if low is above high, or if one of them is NaN.
void set_limits(Epilogue&, float low, float high);

// A node of a session: an operator with its attributes and constants. Despite onnxruntime's word it is not a kernel in
// the sense of kernel.h, but uses one.
class Kernel {
  public:
    // Raises Error, Refused or std::bad_alloc.
    Kernel(const OrtApi*, const Operator&, const OrtKernelInfo*, std::string where);
    void compute(OrtKernelContext*) const;

    const OrtApi* const api;
    const std::string where;  // operator and node, the beginning of its messages

  private:
    // Reads the attributes that all convolutions have; sets `input_size`.
    Attributes read_window(const OrtKernelInfo*);
    void read_convolution(const OrtKernelInfo*);
    void read_float_convolution(const OrtKernelInfo*);
    void read_pooling(const OrtKernelInfo*);
    void read_chain(const OrtKernelInfo*);  // in chain_operator.cpp
    // Makes a convolution with its constants: the inputs from `first` on are weights, then threshold, or scale and
    // bias; those from `further` on are the constants of RPReLU and RSign.
    std::unique_ptr<Convolution> make_convolution(const OrtKernelInfo*, const Attributes&, const Epilogue&,
                                                  size_t first, size_t further) const;
    // Makes a float convolution; the inputs from `first` on are weights, bias, and the constants of RPReLU and RSign.
    std::unique_ptr<FloatConvolution> make_float_convolution(const OrtKernelInfo*, const Attributes&, const Epilogue&,
                                                             bool last, size_t first) const;
    // Reads the constants of RPReLU and RSign from the inputs from `first` on, `outputs` numbers each.
    void read_further(const OrtKernelInfo*, const Epilogue&, size_t first, int64_t outputs, Constants&) const;
    // Returns the data of a constant input with one axis. Raises Error if it has another length.
    const void* vector_constant(const OrtKernelInfo*, size_t index, ort::Type, const char* name, int64_t length) const;
    void compute_sign(OrtKernelContext*) const;
    void compute_convolution(OrtKernelContext*) const;
    void compute_float_convolution(OrtKernelContext*) const;
    void compute_pooling(OrtKernelContext*) const;
    void compute_chain(OrtKernelContext*) const;
    // Return an input or the memory for an output of the present call. Raise Error on a shape without 4 axes, or one
    // that is too large.
    Tensor input(OrtKernelContext*, size_t index, ort::Type, const char* name) const;
    void* output(OrtKernelContext*, size_t index, const int64_t (&shape)[4]) const;

    const Operator& op;
    const bnn_kernel* const kernel;
    int64_t input_size[2] = {0, 0};
    std::unique_ptr<Convolution> convolution;
    std::unique_ptr<FloatConvolution> float_convolution;
    Pooling pooling;
    std::vector<float> level;  // for an RSign
    std::unique_ptr<Chain> chain;
    size_t chain_inputs = 0;
};

}  // namespace bnn
