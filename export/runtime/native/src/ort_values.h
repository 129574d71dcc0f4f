// Tensors, attributes and errors of onnxruntime's C interface.
#pragma once

#include <string>
#include <vector>

#include "layer.h"
#include "ort_api.h"

namespace bnn {

// A failure status of onnxruntime, which is returned to it unchanged.
struct Refused {
    OrtStatus* status;
};

// Raises Refused unless the status is null.
void check(OrtStatus* status);

struct Tensor {
    std::vector<int64_t> shape;
    void* data;
    int64_t size() const;
};

// Returns shape and data of a value. Raises Error where it is missing or of another type.
Tensor tensor(const OrtApi*, const OrtValue*, ort::Type, const std::string& name);
// Returns an input that must be a constant. Raises Error where it is computed, missing or of another type.
Tensor constant(const OrtApi*, const OrtKernelInfo*, size_t index, ort::Type, const std::string& name);

// Read attributes. Raise Error where one is missing, or of another type or length.
int64_t integer(const OrtApi*, const OrtKernelInfo*, const char* name);
float number(const OrtApi*, const OrtKernelInfo*, const char* name);
void integers(const OrtApi*, const OrtKernelInfo*, const char* name, int64_t* values, size_t wanted);
// Read attributes of any length.
std::vector<int64_t> all_integers(const OrtApi*, const OrtKernelInfo*, const char* name);
std::vector<float> all_numbers(const OrtApi*, const OrtKernelInfo*, const char* name);

std::string node_name(const OrtApi*, const OrtKernelInfo*);

// Runs `body` and turns its exceptions into a status; `where` is put in front of the message of an Error.
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
