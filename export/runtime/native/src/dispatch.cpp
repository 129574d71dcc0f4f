// Chooses the kernel: the fastest one that this processor can run, or the one that the environment variable
// BNN_ITRD_KERNEL names.
#include <cstdlib>
#include <vector>

#include "convolution.h"

namespace bnn {

namespace {

constexpr const char* kVariable = "BNN_ITRD_KERNEL";

// A kernel that is compiled for this kind of processor, and whether this processor can run it. `choices` returns all,
// the fastest first.
struct Choice {
    const bnn_kernel* kernel;
    bool runs;
};

#if defined(__aarch64__)

std::vector<Choice> choices() { return {{&bnn_kernel_neon, true}}; }

constexpr const char* kLacking = "this processor has no NEON";

#else

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vpopcntdq");
}

std::vector<Choice> choices() {
    return {{&bnn_kernel_avx512, has_avx512()}, {&bnn_kernel_avx2, has_avx2()}};
}

constexpr const char* kLacking = "this processor has neither AVX-512 VPOPCNTDQ nor AVX2 with FMA";

#endif

}  // namespace

const bnn_kernel* kernel_by_name(const std::string& name) {
    if (name == "portable") return nullptr;
    for (const Choice& choice : choices()) {
        if (name != choice.kernel->name) continue;
        if (choice.runs) return choice.kernel;
        throw Error("this processor cannot run the kernel \"" + name + "\"");
    }
    // The kernels for other kinds of processors are not compiled, but their names deserve this message too.
    if (name == "avx512" || name == "avx2" || name == "neon") {
        throw Error("this processor cannot run the kernel \"" + name + "\"");
    }
    throw Error("unknown kernel \"" + name + "\": it must be avx512, avx2, neon or portable");
}

const bnn_kernel* best_kernel() {
    const char* const wish = std::getenv(kVariable);
    if (wish && *wish) {
        try {
            return kernel_by_name(wish);
        } catch (const Error& error) {
            throw Error(std::string(error.what()) + " (environment variable " + kVariable + ")");
        }
    }
    for (const Choice& choice : choices()) {
        if (choice.runs) return choice.kernel;
    }
    // The portable kernel is never chosen by itself, because onnxruntime's own operations are much faster.
    throw Error(std::string(kLacking) + " (" + kVariable + "=portable would choose the slow kernel in plain C++)");
}

const char* kernel_name(const bnn_kernel* kernel) { return kernel ? kernel->name : "portable"; }

}  // namespace bnn
