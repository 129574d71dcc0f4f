// The part of onnxruntime's C interface that the operators use, declared by hand.
//
// Declared by hand, it needs no headers of onnxruntime to compile. The interface is a table of function pointers. Later
// versions add functions only at its end, so that a function is known by its index, its slot. The numbers of the slots
// are from the public documentation of the interface and hold for all versions from 18 (onnxruntime 1.18) on.
#pragma once

#include <cstddef>
#include <cstdint>

struct OrtStatus;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtShapeInferContext;
struct OrtTensorTypeAndShapeInfo;
struct OrtValue;
struct OrtOpAttr;

namespace ort {

// The version of the interface that the operators declare: 18 is the first one in which GetMayInplace is read.
constexpr uint32_t kVersion = 18;
// The version of the oldest onnxruntime that is accepted, 1.20. Older ones were not tested.
constexpr uint32_t kOldest = 20;

enum Code { kFail = 1, kInvalidArgument = 2, kInvalidGraph = 10 };
enum AttributeType { kInts = 2 };
enum Type { kAny = 0, kFloat = 1, kUint8 = 2, kInt32 = 6 };

}  // namespace ort

// The table of functions.
struct OrtApi {
    void (*slots[275])();
};

struct OrtApiBase {
    const OrtApi* (*GetApi)(uint32_t version);
    const char* (*GetVersionString)();
};

// What an operator must provide. The interface fixes the order of the members. Later versions have more members, which
// onnxruntime does not read for an operator of version 18.
struct OrtCustomOp {
    uint32_t version;
    void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
    const char* (*GetName)(const OrtCustomOp*);
    const char* (*GetExecutionProviderType)(const OrtCustomOp*);
    int (*GetInputType)(const OrtCustomOp*, size_t);
    size_t (*GetInputTypeCount)(const OrtCustomOp*);
    int (*GetOutputType)(const OrtCustomOp*, size_t);
    size_t (*GetOutputTypeCount)(const OrtCustomOp*);
    void (*KernelCompute)(void*, OrtKernelContext*);
    void (*KernelDestroy)(void*);
    int (*GetInputCharacteristic)(const OrtCustomOp*, size_t);
    int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t);
    int (*GetInputMemoryType)(const OrtCustomOp*, size_t);
    int (*GetVariadicInputMinArity)(const OrtCustomOp*);
    int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
    int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
    int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
    OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void**);
    OrtStatus* (*KernelComputeV2)(void*, OrtKernelContext*);
    OrtStatus* (*InferOutputShape)(const OrtCustomOp*, OrtShapeInferContext*);
    int (*GetStartVersion)(const OrtCustomOp*);
    int (*GetEndVersion)(const OrtCustomOp*);
    size_t (*GetMayInplace)(int**, int**);
    void (*ReleaseMayInplace)(int*, int*);
    size_t (*GetAliasMap)(int**, int**);
    void (*ReleaseAliasMap)(int*, int*);
};

namespace ort {

// A function of the table: `GetDimensions(api, info, values, count)` calls what is in its slot.
template <int slot, typename Result, typename... Arguments>
struct Function {
    Result operator()(const OrtApi* api, Arguments... arguments) const {
        return reinterpret_cast<Result (*)(Arguments...)>(api->slots[slot])(arguments...);
    }
};

using Info = const OrtKernelInfo*;
using Context = const OrtKernelContext*;
using Inference = const OrtShapeInferContext*;
using Shape = const OrtTensorTypeAndShapeInfo*;

constexpr Function<0, OrtStatus*, int, const char*> CreateStatus;
constexpr Function<2, const char*, const OrtStatus*> GetErrorMessage;
constexpr Function<26, OrtStatus*, const char*, OrtCustomOpDomain**> CreateCustomOpDomain;
constexpr Function<27, OrtStatus*, OrtCustomOpDomain*, const OrtCustomOp*> CustomOpDomain_Add;
constexpr Function<28, OrtStatus*, OrtSessionOptions*, OrtCustomOpDomain*> AddCustomOpDomain;
constexpr Function<51, OrtStatus*, const OrtValue*, void**> GetTensorMutableData;
constexpr Function<57, OrtStatus*, OrtTensorTypeAndShapeInfo**> CreateTensorTypeAndShapeInfo;
constexpr Function<58, OrtStatus*, OrtTensorTypeAndShapeInfo*, int> SetTensorElementType;
constexpr Function<59, OrtStatus*, OrtTensorTypeAndShapeInfo*, const int64_t*, size_t> SetDimensions;
constexpr Function<60, OrtStatus*, Shape, int*> GetTensorElementType;
constexpr Function<61, OrtStatus*, Shape, size_t*> GetDimensionsCount;
constexpr Function<62, OrtStatus*, Shape, int64_t*, size_t> GetDimensions;
constexpr Function<63, OrtStatus*, Shape, const char**, size_t> GetSymbolicDimensions;
constexpr Function<65, OrtStatus*, const OrtValue*, OrtTensorTypeAndShapeInfo**> GetTensorTypeAndShape;
constexpr Function<85, OrtStatus*, Info, const char*, float*> KernelInfoGetAttribute_float;
constexpr Function<86, OrtStatus*, Info, const char*, int64_t*> KernelInfoGetAttribute_int64;
constexpr Function<90, OrtStatus*, Context, size_t, const OrtValue**> KernelContext_GetInput;
constexpr Function<91, OrtStatus*, OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**>
    KernelContext_GetOutput;
constexpr Function<93, void, OrtStatus*> ReleaseStatus;
constexpr Function<99, void, OrtTensorTypeAndShapeInfo*> ReleaseTensorTypeAndShapeInfo;
constexpr Function<162, OrtStatus*, Info, const char*, float*, size_t*> KernelInfoGetAttributeArray_float;
constexpr Function<163, OrtStatus*, Info, const char*, int64_t*, size_t*> KernelInfoGetAttributeArray_int64;
constexpr Function<230, OrtStatus*, Info, size_t*> KernelInfo_GetInputCount;
constexpr Function<244, OrtStatus*, Info, char*, size_t*> KernelInfo_GetNodeName;
constexpr Function<249, OrtStatus*, Info, size_t, int*, const OrtValue**> KernelInfoGetConstantInput_tensor;
constexpr Function<268, OrtStatus*, Inference, size_t, OrtTensorTypeAndShapeInfo**> ShapeInferContext_GetInputTypeShape;
constexpr Function<269, OrtStatus*, Inference, const char*, const OrtOpAttr**> ShapeInferContext_GetAttribute;
constexpr Function<270, OrtStatus*, Inference, size_t, Shape> ShapeInferContext_SetOutputTypeShape;
constexpr Function<271, OrtStatus*, OrtTensorTypeAndShapeInfo*, const char**, size_t> SetSymbolicDimensions;
constexpr Function<272, OrtStatus*, const OrtOpAttr*, int, void*, size_t, size_t*> ReadOpAttr;
constexpr Function<274, OrtStatus*, Context, void (*)(void*, size_t), size_t, size_t, void*> KernelContext_ParallelFor;

}  // namespace ort
