// What the kernels' checks share: memory that ends where it ends, random values, comparisons.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/kernels.h"

namespace moestream::check {

// An array whose last element is the last before memory that cannot be touched. It starts out as
// the same nonsense each time, so that what was not written is seen too.
template <class T>
class Guarded {
  public:
    explicit Guarded(size_t count) : count_(count) {
        const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        const size_t inside = (count * sizeof(T) + page - 1) / page * page;
        bytes_ = inside + page;
        base_ = static_cast<uint8_t*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (base_ == MAP_FAILED || mprotect(base_ + inside, page, PROT_NONE) != 0) {
            std::perror("no guarded memory");
            std::exit(2);
        }
        std::memset(base_, 0xa5, inside);
        data_ = reinterpret_cast<T*>(base_ + inside - count * sizeof(T));
    }
    Guarded(Guarded&& other) noexcept
        : base_(other.base_), bytes_(other.bytes_), data_(other.data_), count_(other.count_) {
        other.base_ = nullptr;
    }
    ~Guarded() {
        if (base_ != nullptr) munmap(base_, bytes_);
    }

    T* data() const { return data_; }
    size_t size() const { return count_; }
    T& operator[](size_t i) const { return data_[i]; }

  private:
    uint8_t* base_;
    size_t bytes_;
    T* data_;
    size_t count_;
};

class Random {
  public:
    explicit Random(uint32_t seed) : engine_(seed) {}
    uint32_t bits() { return static_cast<uint32_t>(engine_()); }
    int below(int count) { return static_cast<int>(bits() % static_cast<uint32_t>(count)); }
    float normal() { return normal_(engine_); }
    float uniform() { return static_cast<float>(bits()) * 0x1p-31f - 1.0f; }  // -1 to 1

  private:
    std::mt19937 engine_;
    std::normal_distribution<float> normal_;
};

// Floats to be awkward with.
enum class Style { Normal, Zero, Tiny, Least, Huge, Extreme, Bad, Any };
inline constexpr Style kStyles[] = {Style::Normal, Style::Zero,    Style::Tiny, Style::Least,
                                    Style::Huge,   Style::Extreme, Style::Bad,  Style::Any};
inline constexpr const char* kStyleNames[] = {"normal", "zero",    "tiny", "least",
                                              "huge",   "extreme", "bad",  "any"};

inline float styled(Random& random, Style style) {
    switch (style) {
        case Style::Normal: return random.normal();
        case Style::Zero: return random.below(8) == 0 ? -0.0f : 0.0f;
        // Down to where blocks are taken for zeros, and products vanish, signs and all.
        case Style::Tiny: return std::ldexp(random.uniform(), -20 - random.below(125));
        case Style::Least: return 0x1p-149f;
        case Style::Huge: return std::ldexp(random.uniform(), 60 + random.below(68));
        case Style::Extreme: return random.below(2) == 0 ? 3.0f : -3.0f;
        case Style::Bad: {
            constexpr float kInfinity = std::numeric_limits<float>::infinity();
            const int which = random.below(200);
            return which == 0   ? std::numeric_limits<float>::quiet_NaN()
                   : which == 1 ? kInfinity
                   : which == 2 ? -kInfinity
                                : random.normal();
        }
        default: return std::bit_cast<float>(random.bits());
    }
}

inline Guarded<float> floats(Random& random, Style style, size_t count) {
    Guarded<float> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = styled(random, style);
    return values;
}

// The check under way, for messages, and what has come out so far.
struct Progress {
    std::string what;
    long cases = 0, failures = 0;
};

inline Progress& progress() {
    static Progress instance;
    return instance;
}

// The same bits, but that any NaN is any NaN.
inline bool same(float a, float b) {
    return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (a != a && b != b);
}

inline bool same(int8_t a, int8_t b) { return a == b; }
inline bool same(int16_t a, int16_t b) { return a == b; }

inline bool same(uint16_t a, uint16_t b) {  // float16
    return a == b || ((a & 0x7fff) > 0x7c00 && (b & 0x7fff) > 0x7c00);
}

template <class T>
void compare(const char* part, const Guarded<T>& got, const Guarded<T>& expected) {
    for (size_t i = 0; i < expected.size(); ++i) {
        if (same(got[i], expected[i])) continue;
        if (++progress().failures <= 20) {
            std::printf("%s: %s[%zu] is %.9g, the scalar kernel gives %.9g\n",
                        progress().what.c_str(), part, i, static_cast<double>(got[i]),
                        static_cast<double>(expected[i]));
        }
        return;
    }
}

template <class... Args>
void begin_case(const char* format, Args... args) {
    char text[256];
    std::snprintf(text, sizeof text, format, args...);
    progress().what = text;
    ++progress().cases;
}

void check_products(const Kernels& kernels);
void check_packed_products(const Kernels& kernels);
void check_quantisation(const Kernels& kernels);
void check_elementwise(const Kernels& kernels);
void check_attention(const Kernels& kernels);

}  // namespace moestream::check
