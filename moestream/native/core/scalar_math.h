// Scalar float steps that all instruction sets repeat lane by lane, in the same order.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace moestream {

inline constexpr float kExpLow = -87.3f, kExpHigh = 88.3f;
inline constexpr float kLog2e = 1.44269504f, kLn2High = 0.693145752f, kLn2Low = 1.42860677e-6f;
// e^r = 1 + r + r^2 * p(r) for |r| <= ln(2) / 2, to 1 unit in the last place.
inline constexpr float kExpP[6] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                   4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};

// The sum of eight lanes, as vector registers are folded: halves, quarters, pairs.
static inline float sum_lanes(const float* v) {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// e^x; 0 below kExpLow, saturating above kExpHigh, NaN for NaN.
static inline float exp_lane(float x) {
    const float low = kExpLow > x ? kExpLow : x;
    const float clamped = kExpHigh < low ? kExpHigh : low;
    const float n = std::nearbyint(clamped * kLog2e);
    const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, clamped));
    float p = kExpP[0];
    for (int i = 1; i < 6; ++i) p = std::fma(p, r, kExpP[i]);
    const float value = std::fma(p, r * r, r) + 1.0f;
    // NaN has no exponent to add to; the integer conversion of it is not defined either.
    if (!(x == x)) return x;
    const auto power = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
    return x < kExpLow ? 0.0f : value * std::bit_cast<float>(power);
}

}  // namespace moestream
