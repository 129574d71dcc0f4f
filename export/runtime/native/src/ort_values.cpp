#include "ort_values.h"

namespace bnn {

void check(OrtStatus* status) {
    if (status) throw Refused{status};
}

namespace {

// Returns whether a call failed, and frees its status, because the caller has a message of its own.
bool failed(const OrtApi* api, OrtStatus* status) {
    if (status) ort::ReleaseStatus(api, status);
    return status != nullptr;
}

// Frees onnxruntime's description of a tensor at the end of a scope.
struct Information {
    const OrtApi* api;
    OrtTensorTypeAndShapeInfo* info = nullptr;
    ~Information() {
        if (info) ort::ReleaseTensorTypeAndShapeInfo(api, info);
    }
};

}  // namespace

int64_t Tensor::size() const {
    int64_t result = 1;
    for (int64_t side : shape) result *= side;
    return result;
}

Tensor tensor(const OrtApi* api, const OrtValue* value, ort::Type type, const std::string& name) {
    if (!value) throw Error("input " + name + " is missing");
    Information information{api};
    check(ort::GetTensorTypeAndShape(api, value, &information.info));
    int element = 0;
    check(ort::GetTensorElementType(api, information.info, &element));
    if (element != type) {
        throw Error("input " + name + " has element type " + std::to_string(element) + " (ONNX's number), expected " +
                    std::to_string(type));
    }
    size_t count = 0;
    check(ort::GetDimensionsCount(api, information.info, &count));
    Tensor result;
    result.shape.resize(count);
    check(ort::GetDimensions(api, information.info, result.shape.data(), count));
    check(ort::GetTensorMutableData(api, value, &result.data));
    return result;
}

Tensor constant(const OrtApi* api, const OrtKernelInfo* info, size_t index, ort::Type type, const std::string& name) {
    int is_constant = 0;
    const OrtValue* value = nullptr;
    check(ort::KernelInfoGetConstantInput_tensor(api, info, index, &is_constant, &value));
    if (!is_constant) throw Error("input " + name + " must be a constant of the file");
    return tensor(api, value, type, name);
}

int64_t integer(const OrtApi* api, const OrtKernelInfo* info, const char* name) {
    int64_t value = 0;
    if (failed(api, ort::KernelInfoGetAttribute_int64(api, info, name, &value))) {
        throw Error(std::string("attribute ") + name + " is missing or not an integer");
    }
    return value;
}

float number(const OrtApi* api, const OrtKernelInfo* info, const char* name) {
    float value = 0;
    if (failed(api, ort::KernelInfoGetAttribute_float(api, info, name, &value))) {
        throw Error(std::string("attribute ") + name + " is missing or not a float");
    }
    return value;
}

void integers(const OrtApi* api, const OrtKernelInfo* info, const char* name, int64_t* values, size_t wanted) {
    size_t count = 0;
    // With a null buffer it writes the number of elements; some versions also return a failure.
    failed(api, ort::KernelInfoGetAttributeArray_int64(api, info, name, nullptr, &count));
    if (count != wanted) {
        throw Error(std::string("attribute ") + name + " must be " + std::to_string(wanted) + " integers, got " +
                    std::to_string(count));
    }
    check(ort::KernelInfoGetAttributeArray_int64(api, info, name, values, &count));
}

namespace {

// Reads an attribute of any length with `read`, a function of onnxruntime's table.
template <typename T, typename Read>
std::vector<T> all_of(const OrtApi* api, const OrtKernelInfo* info, const char* name, Read read) {
    size_t count = 0;
    failed(api, read(api, info, name, nullptr, &count));
    if (count == 0 || count > (size_t(1) << 24)) {
        throw Error(std::string("attribute ") + name + " is missing, empty or too long");
    }
    std::vector<T> values(count);
    check(read(api, info, name, values.data(), &count));
    return values;
}

}  // namespace

std::vector<int64_t> all_integers(const OrtApi* api, const OrtKernelInfo* info, const char* name) {
    return all_of<int64_t>(api, info, name, ort::KernelInfoGetAttributeArray_int64);
}

std::vector<float> all_numbers(const OrtApi* api, const OrtKernelInfo* info, const char* name) {
    return all_of<float>(api, info, name, ort::KernelInfoGetAttributeArray_float);
}

std::string node_name(const OrtApi* api, const OrtKernelInfo* info) {
    size_t size = 0;
    failed(api, ort::KernelInfo_GetNodeName(api, info, nullptr, &size));
    if (size < 2) return "";
    std::string name(size, '\0');
    if (failed(api, ort::KernelInfo_GetNodeName(api, info, &name[0], &size))) return "";
    name.resize(size - 1);
    return name;
}

}  // namespace bnn
