// NEON's registers: loads, folds and arithmetic.
#pragma once

#include <arm_neon.h>

#include "core/half.h"
#include "core/scalar_math.h"
#include "kernels/loops.h"
#include "kernels/some_lanes.h"

namespace moestream {
namespace {

// Lane r of the result is the sum of the lanes of v[r].
inline int32x4_t fold4_int(const int32x4_t* v) {
    return vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
}

// The first and second halves of two registers: [a0 a1 b0 b1] and [a2 a3 b2 b3].
inline float32x4_t first_halves(float32x4_t a, float32x4_t b) {
    return vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

inline float32x4_t second_halves(float32x4_t a, float32x4_t b) {
    return vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

inline float32x4_t halves_to_float(uint16x4_t v) {
    return vcvt_f32_f16(vreinterpret_f16_u16(v));
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

// Four floats, or four int32, to a register; see products.h and rows.h.
struct NeonRegisters : SomeLanes<NeonRegisters> {
    using Float = float32x4_t;
    using Int = int32x4_t;
    static constexpr int kLanes = 4;

    static Float zero() { return vdupq_n_f32(0.0f); }
    static Float set(float v) { return vdupq_n_f32(v); }
    static Float load(const float* p) { return vld1q_f32(p); }
    static Float load_halves(const uint8_t* p) {
        return halves_to_float(vreinterpret_u16_u8(vld1_u8(p)));
    }
    static void store(float* p, Float v) { vst1q_f32(p, v); }
    static Float add(Float a, Float b) { return vaddq_f32(a, b); }
    static Float sub(Float a, Float b) { return vsubq_f32(a, b); }
    static Float mul(Float a, Float b) { return vmulq_f32(a, b); }
    static Float div(Float a, Float b) { return vdivq_f32(a, b); }
    static Float negate(Float v) { return vnegq_f32(v); }
    static Float exp(Float v) { return exp4(v); }
    // c + a * b, and c - a * b.
    static Float fma(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
    static Float fnma(Float a, Float b, Float c) { return vfmsq_f32(c, a, b); }
    static float first(Float v) { return vgetq_lane_f32(v, 0); }

    static Int zero_int() { return vdupq_n_s32(0); }
    static Int set_int(int v) { return vdupq_n_s32(v); }
    static Int sub(Int a, Int b) { return vsubq_s32(a, b); }
    static Float to_float(Int v) { return vcvtq_f32_s32(v); }
    static Int shift_left(Int v, int by) { return vshlq_s32(v, vdupq_n_s32(by)); }

    // The same sum as sum_lanes, of two registers.
    static float fold(const Float* v) {
        const Float half = add(v[0], v[1]);
        return vaddv_f32(vadd_f32(vget_low_f32(half), vget_high_f32(half)));
    }
    // Those of four times two registers, times `scale`.
    static void fold4(const Float* v, float scale, float* to) {
        Float half[4];
        unroll<4>([&](auto r) { half[r] = add(v[r * 2], v[r * 2 + 1]); });
        const auto quarters = [&](int r) {
            return add(first_halves(half[r], half[r + 1]), second_halves(half[r], half[r + 1]));
        };
        store(to, vmulq_n_f32(vpaddq_f32(quarters(0), quarters(2)), scale));
    }
};

}  // namespace
}  // namespace moestream
