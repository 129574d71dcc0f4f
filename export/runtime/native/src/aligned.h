// A buffer of zeros that begins at a cache line, so that loading a whole register never touches two cache lines.
#pragma once

#ifdef _WIN32
#include <malloc.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace bnn {

template <typename T>
class Aligned {
  public:
    Aligned() = default;
    explicit Aligned(int64_t count) {
        // No real buffer has more than 2^40 bytes: such a count comes from an overflow.
        if (count < 0 || count > (int64_t(1) << 40) / int64_t(sizeof(T))) throw std::bad_alloc();
        const size_t bytes = (size_t(count) * sizeof(T) + 63) / 64 * 64;
        data_ = static_cast<T*>(allocate(bytes ? bytes : 64));
        if (!data_) throw std::bad_alloc();
        std::memset(static_cast<void*>(data_), 0, bytes);
    }
    Aligned(const Aligned&) = delete;
    Aligned& operator=(const Aligned&) = delete;
    Aligned(Aligned&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
    Aligned& operator=(Aligned&& other) noexcept {
        T* const mine = data_;
        data_ = other.data_;
        other.data_ = mine;
        return *this;
    }
    ~Aligned() { release(data_); }

    T* get() const { return data_; }
    T& operator[](int64_t index) const { return data_[index]; }

  private:
#ifdef _WIN32  // Windows' C library has no aligned_alloc
    static void* allocate(size_t bytes) { return _aligned_malloc(bytes, 64); }
    static void release(void* data) { _aligned_free(data); }
#else
    static void* allocate(size_t bytes) { return std::aligned_alloc(64, bytes); }
    static void release(void* data) { std::free(data); }
#endif

    T* data_ = nullptr;
};

}  // namespace bnn
