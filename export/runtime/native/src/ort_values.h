// Reading tensors and attributes through onnxruntime's C interface, and turning errors into its statuses and back.
#pragma once

#include <string>
#include <vector>

#include "layer.h"
#include "ort_api.h"

namespace bnn {

// An exception for a call of onnxruntime that failed. Its status is returned to onnxruntime unchanged.
struct Refused {
    OrtStatus* status;
};

// Raises Refused unless the status is null.
void check(OrtStatus* status);

// The shape and the data of a tensor, which belong to onnxruntime.
struct Tensor {
    std::vector<int64_t> shape;
    void* data;
    int64_t size() const;  // number of elements
};

// Returns shape and data of a value. Raises Error if it is missing or has another element type. name: for the message.
Tensor tensor(const OrtApi*, const OrtValue*, ort::Type, const std::string& name);
// Returns an input that must be a constant of the file. Raises Error if it is computed, missing or of another type.
Tensor constant(const OrtApi*, const OrtKernelInfo*, size_t index, ort::Type, const std::string& name);

// Read an attribute of one or of `wanted` numbers. Raise Error if it is missing, or has another type or length.
int64_t integer(const OrtApi*, const OrtKernelInfo*, const char* name);
float number(const OrtApi*, const OrtKernelInfo*, const char* name);
void integers(const OrtApi*, const OrtKernelInfo*, const char* name, int64_t* values, size_t wanted);
// Read an attribute of any number of numbers. Raise Error if it is missing, empty or very long.
std::vector<int64_t> all_integers(const OrtApi*, const OrtKernelInfo*, const char* name);
std::vector<float> all_numbers(const OrtApi*, const OrtKernelInfo*, const char* name);

std::string node_name(const OrtApi*, const OrtKernelInfo*);

// Runs `body` and returns null, or a status with the message of the exception that it raised. where: what is put in
// front of an Error's message.
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
