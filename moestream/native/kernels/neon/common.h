// Building blocks of the NEON units: folds, loads from several rows, the exponential.
//
// Included by them alone. Everything is in an unnamed namespace: two units are made of these
// headers, with and without i8mm, and neither may be linked to the other's code.
#pragma once

#include <arm_neon.h>

#include <cstring>
#include <utility>

#include "core/half.h"
#include "core/scalar_math.h"

namespace moestream {
namespace {

// body(0), ..., body(N - 1), each number a constant: lane numbers must be, and a loop that is left
// standing would keep arrays of registers in memory.
// What uses it is marked gnu::flatten: left to itself, GCC makes calls of the bodies, with the same
// result (18 stack accesses for 8 products in the innermost loop, instead of none for 64).
template <int N, class Body>
inline void unroll(const Body& body) {
    [&]<int... I>(std::integer_sequence<int, I...>) {
        (body(std::integral_constant<int, I>{}), ...);
    }(std::make_integer_sequence<int, N>{});
}

// Lane r of the result is the sum of the lanes of v[r].
inline int32x4_t fold4(const int32x4_t* v) {
    return vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
}

// The first and second halves of two registers: [a0 a1 b0 b1] and [a2 a3 b2 b3].
inline float32x4_t first_halves(float32x4_t a, float32x4_t b) {
    return vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

inline float32x4_t second_halves(float32x4_t a, float32x4_t b) {
    return vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

// sum_lanes of eight lanes, lying in two registers.
inline float fold_float(const float32x4_t* v) {
    const float32x4_t half = vaddq_f32(v[0], v[1]);
    return vaddv_f32(vadd_f32(vget_low_f32(half), vget_high_f32(half)));
}

// The same of four times eight lanes.
inline float32x4_t fold_float4(const float32x4_t (*v)[2]) {
    float32x4_t half[4];
    unroll<4>([&](auto r) { half[r] = vaddq_f32(v[r][0], v[r][1]); });
    const auto quarters = [&](int r) {
        return vaddq_f32(first_halves(half[r], half[r + 1]), second_halves(half[r], half[r + 1]));
    };
    return vpaddq_f32(quarters(0), quarters(2));
}

inline float32x4_t halves_to_float(uint16x4_t v) {
    return vcvt_f32_f16(vreinterpret_f16_u16(v));
}

// float16 at the same offset of four rows.
inline float32x4_t load_halves4(const uint8_t* const* rows, size_t offset) {
    uint16x4_t v = vdup_n_u16(load_u16(rows[0] + offset));
    v = vset_lane_u16(load_u16(rows[1] + offset), v, 1);
    v = vset_lane_u16(load_u16(rows[2] + offset), v, 2);
    v = vset_lane_u16(load_u16(rows[3] + offset), v, 3);
    return halves_to_float(v);
}

// Two neighbouring float16 of four rows.
inline void load_half_pairs4(const uint8_t* const* rows, size_t offset, float32x4_t* first,
                             float32x4_t* second) {
    uint32x4_t v = vdupq_n_u32(load_u32(rows[0] + offset));
    v = vsetq_lane_u32(load_u32(rows[1] + offset), v, 1);
    v = vsetq_lane_u32(load_u32(rows[2] + offset), v, 2);
    v = vsetq_lane_u32(load_u32(rows[3] + offset), v, 3);
    *first = halves_to_float(vmovn_u32(v));
    *second = halves_to_float(vshrn_n_u32(v, 16));
}

// exp_lane of four lanes. NaN passes through each step.
inline float32x4_t exp4(float32x4_t x) {
    const float32x4_t low = vdupq_n_f32(kExpLow);
    const float32x4_t clamped = vminq_f32(vmaxq_f32(x, low), vdupq_n_f32(kExpHigh));
    const float32x4_t n = vrndnq_f32(vmulq_n_f32(clamped, kLog2e));
    const float32x4_t r = vfmaq_n_f32(vfmaq_n_f32(clamped, n, -kLn2High), n, -kLn2Low);
    float32x4_t p = vdupq_n_f32(kExpP[0]);
    unroll<5>([&](auto i) { p = vfmaq_f32(vdupq_n_f32(kExpP[i + 1]), p, r); });
    const float32x4_t value =
        vaddq_f32(vfmaq_f32(r, p, vmulq_f32(r, r)), vdupq_n_f32(1.0f));
    const int32x4_t power = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
    const float32x4_t scaled = vmulq_f32(value, vreinterpretq_f32_s32(power));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(scaled), vcltq_f32(x, low)));
}

// The first `count` of four floats, the rest zero.
inline float32x4_t load_some(const float* p, int count) {
    float v[4] = {};
    std::memcpy(v, p, count * sizeof(float));
    return vld1q_f32(v);
}

// At most four rows' results, of which there are `rows` left.
inline void store_rows(float* out, float32x4_t values, int rows) {
    if (rows >= 4) {
        vst1q_f32(out, values);
    } else if (rows > 0) {
        float v[4];
        vst1q_f32(v, values);
        std::memcpy(out, v, rows * sizeof(float));
    }
}

}  // namespace
}  // namespace moestream
