// Tensors, attributes and errors at the border to onnxruntime.
#pragma once

#include <string>
#include <vector>

#include "layer.h"
#include "ort_api.h"

namespace bnn {

// What onnxruntime itself refused: goes back to it as it is.
struct Refused {
    OrtStatus* status;
};

// Raises Refused where there is a status.
void check(OrtStatus* status);

struct Tensor {
    std::vector<int64_t> shape;
    void* data;
    int64_t size() const;
};

// Shape and data of a value. Raises Error where it is missing or of another type.
Tensor tensor(const OrtApi*, const OrtValue*, ort::Type, const std::string& name);
// The same of an input that must be known when the session is made. Raises Error where it is computed.
Tensor constant(const OrtApi*, const OrtKernelInfo*, size_t index, ort::Type, const std::string& name);

// Attributes. Raise Error where one is missing, of another type or length.
int64_t integer(const OrtApi*, const OrtKernelInfo*, const char* name);
float number(const OrtApi*, const OrtKernelInfo*, const char* name);
void integers(const OrtApi*, const OrtKernelInfo*, const char* name, int64_t* values, size_t wanted);
// As many as there are.
std::vector<int64_t> all_integers(const OrtApi*, const OrtKernelInfo*, const char* name);
std::vector<float> all_numbers(const OrtApi*, const OrtKernelInfo*, const char* name);

std::string node_name(const OrtApi*, const OrtKernelInfo*);

// Runs `body`; what it throws becomes a status, with `where` in front of our own errors.
template <typename Body>
OrtStatus* guarded(const OrtApi* api, const std::string& where, Body body) noexcept {
    try {
        try {
            body();
            return nullptr;
        } catch (const Refused& refused) {
            return refused.status;
        } catch (const Error& error) {
            return ort::CreateStatus(api, ort::kInvalidArgument, (where + ": " + error.what()).c_str());
        }
    } catch (...) {
        return ort::CreateStatus(api, ort::kFail, "bnn_itrd: not enough memory");
    }
}

}  // namespace bnn
