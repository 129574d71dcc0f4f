// The function that onnxruntime calls to register the library's operators, and the table of these operators.
#include <mutex>
#include <utility>

#include "operators.h"

namespace {

using namespace bnn;

const Operator& of(const OrtCustomOp* op) { return *static_cast<const Operator*>(op); }

// Returns an operator with onnxruntime's functions filled in; the caller sets the other members.
Operator make(const OrtApi* api, const std::string& name, Family family) {
    Operator op{};
    op.api = api;
    op.name = name;
    op.family = family;
    op.version = ort::kVersion;
    op.GetName = [](const OrtCustomOp* it) { return of(it).name.c_str(); };
    op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // null means the CPU
    op.GetInputType = [](const OrtCustomOp* it, size_t i) -> int { return of(it).input_type(i); };
    op.GetInputTypeCount = [](const OrtCustomOp* it) { return of(it).inputs(); };
    op.GetOutputType = [](const OrtCustomOp* it, size_t i) -> int { return of(it).output_type(i); };
    op.GetOutputTypeCount = [](const OrtCustomOp* it) { return of(it).outputs(); };
    op.GetInputCharacteristic = [](const OrtCustomOp* it, size_t) {
        return of(it).family == Family::kChain ? 2 : 0;  // variadic, required
    };
    op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return 0; };
    op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };  // default
    op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
    op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
    op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
    op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
    op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
    op.GetEndVersion = [](const OrtCustomOp*) { return INT32_MAX; };
    op.CreateKernelV2 = [](const OrtCustomOp* it, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
        return guarded(api, "bnn_itrd", [&] {
            const std::string where = of(it).name + " \"" + node_name(api, info) + "\"";
            check(guarded(api, where, [&] { *kernel = new Kernel(api, of(it), info, where); }));
        });
    };
    op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
        const Kernel& it = *static_cast<const Kernel*>(kernel);
        return guarded(it.api, it.where, [&] { it.compute(context); });
    };
    op.InferOutputShape = [](const OrtCustomOp* it, OrtShapeInferContext* context) -> OrtStatus* {
        infer_shapes(of(it), context);
        return nullptr;
    };
    op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    return op;
}

// Allows onnxruntime to write y to the memory of the residual, if nothing reads the residual later. This is safe
// because each element is read before it is written, by the same task.
void allow_in_place(Operator& op) {
    op.GetMayInplace = [](int** from, int** to) -> size_t {
        static int residual = 4, y = 0;
        *from = &residual, *to = &y;
        return 1;
    };
    op.ReleaseMayInplace = [](int*, int*) {};
}

// Returns every epilogue that can follow a scaled sum.
std::vector<Epilogue> epilogues() {
    std::vector<Epilogue> all;
    for (const bool add : {false, true}) {
        for (const int activation : {0, 1, 2}) {
            for (const int sign : {0, 1, 2}) {
                Epilogue e;
                e.kind = Kind::kFloat, e.add = add;
                e.clip = activation == 1, e.rprelu = activation == 2;
                e.sign = sign > 0, e.rsign = sign == 2;
                all.push_back(e);
            }
        }
    }
    return all;
}

// Returns the part of an operator's name that says its epilogue.
std::string suffix(const Epilogue& e) {
    return std::string(e.add ? "Add" : "") + (e.clip ? "Clip" : e.rprelu ? "RPReLU" : "") +
           (e.rsign ? "RSign" : e.sign ? "Sign" : "");
}

// Maximum number of chains of each kind in a file.
constexpr int kChains = 16;

std::vector<Operator> make_all(const OrtApi* api) {
    std::vector<Operator> all;
    all.push_back(make(api, "Sign", Family::kSign));
    all.push_back(make(api, "RSign", Family::kSign));
    all.back().epilogue.rsign = true;
    for (const bool mean : {false, true}) {
        for (const bool zeros : {false, true}) {
            all.push_back(
                make(api, std::string(mean ? "AveragePool" : "MaxPool") + (zeros ? "Pad" : ""), Family::kPooling));
            all.back().mean = mean, all.back().zeros = zeros;
        }
    }
    for (const bool grouped : {false, true}) {
        const std::string prefix = grouped ? "GroupedBinaryConv" : "BinaryConv";
        all.push_back(make(api, prefix + "Threshold", Family::kConvolution));
        all.back().grouped = grouped, all.back().epilogue.kind = Kind::kThreshold;
        for (const Epilogue& e : epilogues()) {
            all.push_back(make(api, prefix + suffix(e), Family::kConvolution));
            all.back().grouped = grouped, all.back().epilogue = e;
            if (e.add) allow_in_place(all.back());
        }
    }
    for (const bool last : {false, true}) {
        for (const Epilogue& e : epilogues()) {
            if (e.add) continue;
            const std::string name = std::string(last ? "InnerFloatConv" : "FloatConv") + suffix(e);
            all.push_back(make(api, name, Family::kFloatConvolution));
            all.back().last = last, all.back().epilogue = e;
        }
    }
    // A chain in a file is a function of the file. Names of functions are unique, so chains are numbered.
    for (int i = 0; i < kChains; ++i) {
        for (const bool sign : {false, true}) {
            all.push_back(make(api, std::string(sign ? "ChainSign" : "Chain") + std::to_string(i), Family::kChain));
            all.back().epilogue.kind = Kind::kFloat;
            all.back().epilogue.sign = sign;
        }
    }
    return all;
}

// Returns the domain with all operators, for one copy of onnxruntime: a process can have several. Domain and operators
// are never freed, because sessions point to them.
OrtCustomOpDomain* domain_of(const OrtApi* api) {
    static std::mutex mutex;
    static auto* const known = new std::vector<std::pair<const OrtApi*, OrtCustomOpDomain*>>;
    const std::lock_guard<std::mutex> lock(mutex);
    for (const auto& entry : *known) {
        if (entry.first == api) return entry.second;
    }
    auto* const operators = new std::vector<Operator>(make_all(api));
    OrtCustomOpDomain* domain = nullptr;
    check(ort::CreateCustomOpDomain(api, "bnn_itrd", &domain));
    for (const Operator& op : *operators) check(ort::CustomOpDomain_Add(api, domain, &op));
    known->emplace_back(api, domain);
    return domain;
}

}  // namespace

// Returns the highest `format_version` of a file whose operations are all in this library.
extern "C" __attribute__((visibility("default"))) int bnn_itrd_format() { return 3; }

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
    if (const OrtApi* const api = base->GetApi(ort::kOldest)) {
        return guarded(api, "bnn_itrd", [&] {
            best_kernel();  // raises Error if no kernel can run here, which the user then learns at once
            check(ort::AddCustomOpDomain(api, options, domain_of(api)));
        });
    }
    // This onnxruntime is too old for kOldest, but every version has the function that makes a status.
    return ort::CreateStatus(
        base->GetApi(1), ort::kFail,
        "the native library of bnn_itrd needs onnxruntime 1.20 or newer: update onnxruntime");
}
