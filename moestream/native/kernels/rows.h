// What is done to rows of floats between the products: int8 blocks, norms, activations, float16.
//
// V is an instruction set's vectors; a sum has eight lanes, which are kParts registers.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/half.h"
#include "kernels/loops.h"

namespace moestream {
namespace {

// As in scalar.cpp.
constexpr float kTiny = 1e-30f;

// Registers of eight lanes.
template <class V>
inline constexpr int kParts = 8 / V::kLanes;

template <class V, int Block>
void quantize(const float* x, int columns, const QuantizedRow& out) {
    for (int b = 0; b < columns / Block; ++b, x += Block) {
        const uint32_t largest = V::largest_magnitude(x, Block);
        const float amax = std::bit_cast<float>(largest);
        const bool usable = largest < 0x7f800000u && amax >= kTiny;
        out.d[b] = largest >= 0x7f800000u ? std::numeric_limits<float>::quiet_NaN()
                   : usable               ? amax / 127.0f
                                          : 0.0f;
        const float inverse = 127.0f / amax;
        for (int g = 0; g < Block / 32; ++g) {
            const int at = b * (Block / 32) + g;
            int sums[2] = {};
            if (usable) {
                V::quantize32(x + g * 32, inverse, out.q + at * 32, sums);
            } else {
                std::memset(out.q + at * 32, 0, 32);
            }
            const int total = sums[0] + sums[1];
            out.sums32[at] = static_cast<int16_t>(total);
            out.sums16[2 * at] = static_cast<int16_t>(sums[0]);
            out.sums16[2 * at + 1] = static_cast<int16_t>(sums[1]);
            if constexpr (Block == 32) out.s[b] = out.d[b] * static_cast<float>(total);
        }
    }
}

template <class V>
void rms_norm(const float* x, const float* weight, int columns, float eps, float* out) {
    typename V::Float acc[kParts<V>];
    fill<kParts<V>>(acc, V::zero());
    const auto add = [&](auto part, auto v) { acc[part] = V::fma(v, v, acc[part]); };
    int i = 0;
    for (; i + 8 <= columns; i += 8) {
        unroll<kParts<V>>([&](auto part) { add(part, V::load(x + i + part * V::kLanes)); });
    }
    unroll<kParts<V>>([&](auto part) {
        const int at = i + part * V::kLanes, left = columns - at;
        if (left <= 0) return;
        // Squares are never -0: zeros in place of what is not there change nothing.
        add(part, left >= V::kLanes ? V::load(x + at) : V::load_some(x + at, left));
    });
    const float scale = 1.0f / std::sqrt(V::fold(acc) / static_cast<float>(columns) + eps);
    for (int i = 0; i < columns; ++i) out[i] = x[i] * scale * weight[i];
}

// out = of(x, y), lane by lane.
template <class V, class Of>
inline void map_rows(const float* x, const float* y, int count, float* out, const Of& of) {
    int i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) {
        V::store(out + i, of(V::load(x + i), V::load(y + i)));
    }
    if (i < count) {
        const int left = count - i;
        V::store_some(out + i, of(V::load_some(x + i, left), V::load_some(y + i, left)), left);
    }
}

template <class V>
void swiglu(const float* gate, const float* up, int count, float* out) {
    using Float = typename V::Float;
    map_rows<V>(gate, up, count, out, [](Float g, Float u) {
        return V::mul(V::div(g, V::add(V::set(1.0f), V::exp(V::negate(g)))), u);
    });
}

template <class V>
void exponentials(const float* x, int count, float shift, float* out) {
    using Float = typename V::Float;
    const Float by = V::set(shift);
    map_rows<V>(x, x, count, out, [&](Float v, Float) { return V::exp(V::sub(v, by)); });
}

template <class V>
void to_half(const float* x, int count, uint16_t* out) {
    int i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) V::store_halves(out + i, V::load(x + i));
    for (; i < count; ++i) out[i] = float_to_half(x[i]);
}

}  // namespace
}  // namespace moestream
