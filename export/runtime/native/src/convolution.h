// Runs a binary convolution on a batch of images, in tasks that a pool of threads shares.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "kernel.h"
#include "plan.h"

namespace bnn {

// A thread pool: `run` calls task(data, 0), ..., task(data, count - 1), in any order and possibly at the same time.
struct Pool {
    void (*run)(void* self, void (*task)(void*, size_t), size_t count, void* data);
    void* self;
    bool single = false;  // the pool has one thread, so dividing the work gains nothing
};

// Inputs and outputs of a run: packed signs, floats (y) and sums (raw). The layer's epilogue says which outputs there
// are; the others are null.
struct Tensors {
    const uint8_t* input;  // (n, h, w, ceil(c / 8))
    int64_t images, height, width;
    const float* residual = nullptr;  // (n, h', w', o), as y and raw
    float* y = nullptr;
    uint8_t* signs = nullptr;  // (n, h', w', ceil(o / 8))
    int32_t* raw = nullptr;
};

// Returns the kernel of this name; null for "portable", which is plain C++. Raises Error if the name is unknown, or if
// this processor cannot run the kernel.
const bnn_kernel* kernel_by_name(const std::string& name);
// Returns the fastest kernel that this processor can run, or the one that the environment variable BNN_ITRD_KERNEL
// names. Raises Error if there is none.
const bnn_kernel* best_kernel();
const char* kernel_name(const bnn_kernel*);

// A store of buffers of one size, for tasks whose windows do not fit on the stack. A task takes a buffer and gives it
// back, so there are as many buffers as tasks that run at the same time.
class Slots {
  public:
    Slots() = default;
    Slots(Slots&& other) noexcept : words_(other.words_), idle_(std::move(other.idle_)) {}
    Slots& operator=(Slots&& other) noexcept {
        words_ = other.words_, idle_ = std::move(other.idle_);
        return *this;
    }
    // Must not be called while a task has a buffer.
    void resize(int64_t words) {
        if (words == words_) return;
        idle_.clear();
        words_ = words;
    }
    Aligned<uint32_t> take();  // raises std::bad_alloc
    void give(Aligned<uint32_t> buffer);

  private:
    std::mutex mutex_;
    int64_t words_ = 0;
    std::vector<Aligned<uint32_t>> idle_;
};

// Buffers for the planes and windows of one run. All convolutions of a chain (chain.h) use the same ones, so that they
// stay in the cache.
struct Scratch {
    Aligned<uint32_t> planes, windows;
    int64_t plane_words = 0, window_words = 0;  // their sizes
    // The plan whose padding the planes contain now, and for how many images.
    const Plan* bordered = nullptr;
    int64_t images = 0;
};

// The other buffers of a run, which are kept for the next run.
struct Workspace {
    Plan plan;
    int64_t mask_count = 0, mask_places = 0;
    Slots slots;
    Aligned<uint16_t> masks;
};

// A binary convolution that can be run.
class Convolution {
  public:
    Convolution(Layer constants, const bnn_kernel* which);
    ~Convolution();
    Convolution(const Convolution&) = delete;
    Convolution& operator=(const Convolution&) = delete;

    // Several threads may call this at once. Raises Error or std::bad_alloc, in the calling thread only.
    void run(const Tensors&, const Pool& pool) const;
    // The same with the caller's buffers, which no other call may use at the same time.
    void run(const Tensors&, const Pool& pool, Workspace& space, Scratch& scratch) const;

    const Layer layer;
    const bnn_kernel* const kernel;

  private:
    struct Buffers {
        Workspace space;
        Scratch scratch;
    };
    // Buffers for the next run. A second run at the same time finds none and allocates its own.
    mutable std::atomic<Buffers*> idle{nullptr};
};

// Computes rows of the output in plain C++, from the weights in the file's order. Rows are counted over all images.
void portable(const Layer&, const Tensors&, int64_t out_height, int64_t out_width, int64_t first_row, int64_t last_row);
// Returns ReActNet's activation of y, see Epilogue.
float rprelu(float y, float before, float slope, float after);
// Does what `pack_signs` does in plain C++.
void portable_signs(const float* x, const float* level, int64_t pixels, int64_t channels, uint8_t* bytes);

// Packs the signs of floats (pixels, channels) to bits: +1 where a float is at least its channel's level, or at least 0
// if `level` is null.
void pack_signs(const bnn_kernel*, const float* x, const float* level, int64_t pixels, int64_t channels, uint8_t* bytes,
                const Pool& pool);

}  // namespace bnn
