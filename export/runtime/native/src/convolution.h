// Running a layer on a batch of images.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "kernel.h"
#include "plan.h"

namespace bnn {

// Calls task(data, 0), ..., task(data, count - 1), in any order, perhaps at the same time.
struct Pool {
    void (*run)(void* self, void (*task)(void*, size_t), size_t count, void* data);
    void* self;
    bool single = false;  // one thread: there is nothing to divide
};

// Signs as packed bits, floats, raw sums; which of them are there depends on the layer's epilogue.
struct Tensors {
    const uint8_t* input;  // (n, h, w, ceil(c / 8))
    int64_t images, height, width;
    const float* residual = nullptr;  // (n, h', w', o), as the outputs
    float* y = nullptr;
    uint8_t* signs = nullptr;  // (n, h', w', ceil(o / 8))
    int32_t* raw = nullptr;
};

// The kernel of this name, null for "portable". Raises Error where the processor or the name does not allow it.
const bnn_kernel* kernel_by_name(const std::string& name);
// The fastest one, or what the environment variable BNN_ITRD_KERNEL asks for.
const bnn_kernel* best_kernel();
const char* kernel_name(const bnn_kernel*);

// Buffers of one size for tasks whose windows do not fit on the stack: as many as run at the same time.
class Slots {
  public:
    Slots() = default;
    Slots(Slots&& other) noexcept : words_(other.words_), idle_(std::move(other.idle_)) {}
    Slots& operator=(Slots&& other) noexcept {
        words_ = other.words_, idle_ = std::move(other.idle_);
        return *this;
    }
    // Not while a buffer is out.
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

// Planes and windows of one run. The steps of a chain take them in turns, so that they stay in the cache.
struct Scratch {
    Aligned<uint32_t> planes, windows;
    int64_t plane_words = 0, window_words = 0;  // how many there are
    // Whose borders the planes have, and of how many images.
    const Plan* bordered = nullptr;
    int64_t images = 0;
};

// What else one run needs. Kept from run to run, as the scratch is.
struct Workspace {
    Plan plan;
    int64_t mask_count = 0, mask_places = 0;
    Slots slots;
    Aligned<uint16_t> masks;
};

class Convolution {
  public:
    Convolution(Layer constants, const bnn_kernel* which);
    ~Convolution();
    Convolution(const Convolution&) = delete;
    Convolution& operator=(const Convolution&) = delete;

    // May be called by several threads at once. Raises Error or std::bad_alloc, not from within `pool`.
    void run(const Tensors&, const Pool& pool) const;
    // The same with the caller's buffers, which no other call may use at the time.
    void run(const Tensors&, const Pool& pool, Workspace& space, Scratch& scratch) const;

    const Layer layer;
    const bnn_kernel* const kernel;

  private:
    struct Buffers {
        Workspace space;
        Scratch scratch;
    };
    // One run's buffers wait here for the next; a second run at the same time makes its own.
    mutable std::atomic<Buffers*> idle{nullptr};
};

// The portable version, from the bits as they lie in the file; rows of the output.
void portable(const Layer&, const Tensors&, int64_t out_height, int64_t out_width, int64_t first_row, int64_t last_row);
float rprelu(float y, float before, float slope, float after);
void portable_signs(const float* x, const float* level, int64_t pixels, int64_t channels, uint8_t* bytes);

// Signs of (pixels, channels) floats, packed: +1 from a channel's level on, from 0 where `level` is null.
void pack_signs(const bnn_kernel*, const float* x, const float* level, int64_t pixels, int64_t channels, uint8_t* bytes,
                const Pool& pool);

}  // namespace bnn
