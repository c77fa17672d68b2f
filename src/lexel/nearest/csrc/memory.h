// How much memory a search takes, and the buffers that hold it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace lexel {

// Packed codes, float32 panels and lists stay below ALL_BYTES together, so that a search takes less than 64 MB.
constexpr int64_t ALL_BYTES = 52 << 20;
constexpr int64_t BLOCK_BYTES = 16 << 20;  // packed codes that all rows go through before the next
constexpr int64_t FINE_BYTES = 24 << 20;   // float32 panels of the whole codebook, if they fit
constexpr int64_t LIST_BYTES = 12 << 20;   // lists of the rows of one chunk; more where each chunk packs the codes anew
constexpr int64_t PIECE_BYTES = 64 << 10;  // packed codes that a thread packs at a time

// What the caches hold.
constexpr int64_t CACHE_BYTES = 8 << 20;   // float32 panels that stay in the outer caches while rows are decided
constexpr int64_t TILE_BYTES = 384 << 10;  // packed rows of one thread: they stay in its L2 cache,
constexpr int64_t STRIP_BYTES = 36 << 10;  // or in its L1 cache where AMX does not multiply

template <class T>
class Buffer {  // aligned to cache lines, not initialised; what it held is lost when it grows
public:
    T* reserve(int64_t count) {
        if (count > size_) {
            memory_.reset(static_cast<char*>(::operator new(size_t(count) * sizeof(T) + 64)));
            size_ = count;
        }
        return data();
    }
    T* data() const {
        return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory_.get()) + 63) & ~uintptr_t(63));
    }

private:
    struct Free {
        void operator()(char* p) const { ::operator delete(p); }
    };
    std::unique_ptr<char, Free> memory_;
    int64_t size_ = 0;
};

}  // namespace lexel
