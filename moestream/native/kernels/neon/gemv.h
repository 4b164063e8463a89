// Products with one or a few tokens: four rows side by side, blocks taken apart as they come.
//
// A lane of the accumulator is a row: the integer sum of each block is folded, four rows at once,
// before it becomes a float, which is what makes every instruction set's result the same.
#pragma once

#include "kernels/neon/codebooks.h"
#include "kernels/neon/few_bits.h"
#include "kernels/neon/floats.h"
#include "kernels/products.h"

namespace moestream {
namespace {

// Lanes of the sum over groups of weight times input sum.
template <int Group>
inline int32x4_t dot_sums(Scales weights, const int16_t* sums) {
    const int16x8_t low = vld1q_s16(sums);
    int32x4_t total = vmull_s16(vget_low_s16(weights.low), vget_low_s16(low));
    total = vmlal_high_s16(total, weights.low, low);
    if constexpr (Group == 16) {
        const int16x8_t high = vld1q_s16(sums + 8);
        total = vmlal_s16(total, vget_low_s16(weights.high), vget_low_s16(high));
        total = vmlal_high_s16(total, weights.high, high);
    }
    return total;
}

struct NeonGemv : NeonFloats {
    static constexpr int kFewTokens = kGemmTokens - 1, kFewPacked = kFewTokens;
    template <class T>
    static constexpr int kTileOffset = T::kOffset;

    template <class T, int NT>
    [[gnu::flatten]] static void dot_block32(const uint8_t* const* rows, uintptr_t, int blocks,
                                             const TokenRows<T, NT>& x, Float* acc) {
        for (int b = 0; b < blocks; ++b) {
            const size_t at = static_cast<size_t>(b) * T::kBytes;
            unroll<T::kParts>([&](auto part) {
                dot_part<T, part>(rows, at, b * T::kParts + part, x, acc);
            });
        }
    }

    // The 32 columns number `unit`, which are part J of the blocks at `at`.
    template <class T, int J, int NT>
    static void dot_part(const uint8_t* const* rows, size_t at, int unit,
                         const TokenRows<T, NT>& x, Float* acc) {
        constexpr int kFloats = 32 / T::kBlock;
        Int v[NT][kFloats][4];
        unroll<4>([&](auto r) {
            const Codes codes = codes_of_part<T, J>(rows[r] + at);
            unroll<NT>([&](auto t) {
                const int8_t* q = x.q[t] + unit * 32;
                v[t][0][r] = vdotq_s32(zero_int(), codes.low, vld1q_s8(q));
                const Int high = kFloats == 1 ? v[t][0][r] : zero_int();
                v[t][kFloats - 1][r] = vdotq_s32(high, codes.high, vld1q_s8(q + 16));
            });
        });
        unroll<kFloats>([&](auto i) {
            Float d, m = zero();
            load_floats4<T>(rows, at, J * kFloats + i, &d, &m);
            unroll<NT>([&](auto t) {
                acc[t] = add_block32<NeonGemv, T, T::kOffset>(acc[t], fold4_int(v[t][i]), d, m, x,
                                                              t, unit * kFloats + i);
            });
        });
    }

    // The lanes of one row's integer sums over a super-block for each token, and those of its
    // minimums.
    template <class T, int NT>
    static void row_lanes(const uint8_t* p, const TokenRows<T, NT>& x, int block, Int* sum,
                             Int* min) {
        const auto opened = T::open(p);
        const Scales scales = T::scales(opened);
        const Scales weights = weights_of_sums<T>(opened, scales);
        const int32x4_t wide[4] = {
            vmovl_s16(vget_low_s16(scales.low)), vmovl_high_s16(scales.low),
            vmovl_s16(vget_low_s16(scales.high)), vmovl_high_s16(scales.high)};
        unroll<NT>([&](auto t) { sum[t] = min[t] = vdupq_n_s32(0); });
        unroll<8>([&](auto j) {
            constexpr int J = j;
            const Codes codes = T::template codes<J>(opened);
            unroll<NT>([&](auto t) {
                const int8_t* q = x.q[t] + block * 256 + J * 32;
                const int32x4_t low = vdotq_s32(vdupq_n_s32(0), codes.low, vld1q_s8(q));
                if constexpr (T::kGroup == 32) {
                    const int32x4_t both = vdotq_s32(low, codes.high, vld1q_s8(q + 16));
                    sum[t] = vmlaq_laneq_s32(sum[t], both, wide[J / 4], J % 4);
                } else {
                    const int32x4_t high = vdotq_s32(vdupq_n_s32(0), codes.high, vld1q_s8(q + 16));
                    sum[t] = vmlaq_laneq_s32(sum[t], low, wide[J / 2], J % 2 * 2);
                    sum[t] = vmlaq_laneq_s32(sum[t], high, wide[J / 2], J % 2 * 2 + 1);
                }
            });
        });
        unroll<NT>([&](auto t) {
            const int32x4_t pairs = dot_sums<T::kGroup>(weights, x.sums(t, block * T::kGroups));
            if constexpr (T::kHasMin) min[t] = pairs;
            sum[t] = without_offset<NeonGemv, T::kOffset>(sum[t], pairs);
        });
    }

    template <class T, int NT>
    [[gnu::flatten]] static void dot_block256(const uint8_t* const* rows, uintptr_t, int blocks,
                                              const TokenRows<T, NT>& x, Float* acc) {
        for (int b = 0; b < blocks; ++b) {
            const size_t at = static_cast<size_t>(b) * T::kBytes;
            Int sums[4][NT], mins[4][NT];
            // Not unrolled: four rows' work at once does not fit in the registers.
            for (int r = 0; r < 4; ++r) row_lanes<T, NT>(rows[r] + at, x, b, sums[r], mins[r]);
            Float d, m = zero();
            load_floats4<T>(rows, at, 0, &d, &m);
            unroll<NT>([&](auto t) {
                const Int v[4] = {sums[0][t], sums[1][t], sums[2][t], sums[3][t]};
                const Int w[4] = {mins[0][t], mins[1][t], mins[2][t], mins[3][t]};
                acc[t] = add_block256<NeonGemv, T>(acc[t], fold4_int(v), fold4_int(w), d, m,
                                                   x.d(t, b));
            });
        }
    }
};

}  // namespace
}  // namespace moestream
