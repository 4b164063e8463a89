// Growing scratch memory that keeps its size: no allocation in the steady state.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace moestream {

inline constexpr size_t kAlignment = 64;

class Buffer {
  public:
    // At least `count` elements of T, 64-byte aligned, contents not kept.
    template <class T>
    T* get(size_t count) {
        const size_t bytes = count * sizeof(T);
        if (bytes > size_) {
            data_.reset();
            size_ = 0;
            data_.reset(static_cast<std::byte*>(
                ::operator new(bytes, std::align_val_t{kAlignment})));
            size_ = bytes;
        }
        return reinterpret_cast<T*>(data_.get());
    }

  private:
    struct Free {
        void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{kAlignment}); }
    };
    std::unique_ptr<std::byte, Free> data_;
    size_t size_ = 0;
};

}  // namespace moestream
