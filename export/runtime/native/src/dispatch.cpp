// Which kernel runs: the best the processor has, or a lower one named by the environment.
#include <cstdlib>
#include <cstring>

#include "convolution.h"

namespace bnn {

namespace {

constexpr const char* kVariable = "BNN_ITRD_KERNEL";

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vpopcntdq");
}

}  // namespace

const bnn_kernel* kernel_by_name(const std::string& name) {
    if (name == "portable") return nullptr;
    if (name == "avx2" || name == "avx512") {
        if (name == "avx2" ? has_avx2() : has_avx512()) return name == "avx2" ? &bnn_kernel_avx2 : &bnn_kernel_avx512;
        throw Error("this processor cannot run the kernel \"" + name + "\"");
    }
    throw Error("unknown kernel \"" + name + "\": avx512, avx2 or portable");
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
    if (has_avx512()) return &bnn_kernel_avx512;
    if (has_avx2()) return &bnn_kernel_avx2;
    // The portable kernel is there to be compared with; the standard operations of the file are much faster.
    throw Error(std::string("this processor has neither AVX-512 VPOPCNTDQ nor AVX2 with FMA (") + kVariable +
                "=portable insists on the slow portable kernel)");
}

const char* kernel_name(const bnn_kernel* kernel) { return kernel ? kernel->name : "portable"; }

}  // namespace bnn
