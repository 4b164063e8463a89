// NEON's vectors for attention.
#pragma once

#include "kernels/neon/floats.h"

namespace moestream {
namespace {

struct NeonAttention : NeonFloats {
    using Half = NeonAttention;
    // 24 sums, four keys and a query's value leave three of the 32 registers.
    static constexpr int kQueries = 6, kVectors = 4;

    // The number where one is NaN.
    static Float max(Float a, Float b) { return vmaxnmq_f32(a, b); }
    static float largest(Float v) { return vmaxvq_f32(v); }

    // Four values of four rows become four vectors.
    static void transpose4(const float* from, int stride, Float* to) {
        const Float r0 = load(from), r1 = load(from + stride);
        const Float r2 = load(from + 2 * stride), r3 = load(from + 3 * stride);
        const Float a = vtrn1q_f32(r0, r1), b = vtrn2q_f32(r0, r1);
        const Float c = vtrn1q_f32(r2, r3), d = vtrn2q_f32(r2, r3);
        to[0] = first_halves(a, c);
        to[1] = first_halves(b, d);
        to[2] = second_halves(a, c);
        to[3] = second_halves(b, d);
    }
};

}  // namespace
}  // namespace moestream
