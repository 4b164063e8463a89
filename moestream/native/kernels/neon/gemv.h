// Products with one or a few tokens: four rows side by side, blocks taken apart as they come.
//
// A lane of the accumulator is a row: the integer sum of each block is folded, four rows at once,
// before it becomes a float, which is what makes every instruction set's result the same.
#pragma once

#include "core/kernels.h"
#include "kernels/neon/types.h"

namespace moestream {
namespace {

// Rows of NT tokens in a Block32 or Block256 input.
template <int NT>
struct TokenRows {
    const int8_t* q[NT];
    const float* d[NT];
    const float* s[NT];
    const int16_t* sums[NT];  // of kGroup columns, 32 for the 32-value types

    TokenRows(const InputRows& in, const int* tokens, int block, int group) {
        const size_t columns = in.columns, blocks = columns / block;
        const int16_t* all = group == 16 ? in.sums16 : in.sums32;
        unroll<NT>([&](auto t) {
            const auto token = static_cast<size_t>(tokens[t]);
            q[t] = in.q + token * columns;
            d[t] = in.d + token * blocks;
            s[t] = block == 32 ? in.s + token * blocks : nullptr;
            sums[t] = all + token * (columns / group);
        });
    }
};

// The scales of a block of four rows, and its minimums where there are any.
template <class T>
inline void load_floats4(const uint8_t* const* rows, size_t at, float32x4_t* scale,
                         float32x4_t* min) {
    if constexpr (T::kHasMin) {
        load_half_pairs4(rows, at, scale, min);
    } else {
        *scale = load_scales4<T>(rows, at);
        *min = vdupq_n_f32(0.0f);
    }
}

// Of a block, four rows and one token, as kernels.h has it: from the integer sums to the result.
template <class T, int NT>
inline float32x4_t add_block32(float32x4_t acc, int32x4_t sum, float32x4_t scale, float32x4_t min,
                               const TokenRows<NT>& x, int token, int block) {
    if constexpr (T::kOffset != 0) {
        sum = vsubq_s32(sum, vdupq_n_s32(T::kOffset * x.sums[token][block]));
    }
    acc = vfmaq_f32(acc, vmulq_n_f32(scale, x.d[token][block]), vcvtq_f32_s32(sum));
    return T::kHasMin ? vfmaq_n_f32(acc, min, x.s[token][block]) : acc;
}

// A super-block's sum, given that of scales times input sums.
template <class T>
inline int32x4_t without_offset(int32x4_t sum, int32x4_t pair) {
    if constexpr (T::kShift >= 0) {
        return vsubq_s32(sum, vshlq_n_s32(pair, T::kShift));
    } else {
        return sum;
    }
}

template <class T>
inline float32x4_t add_block256(float32x4_t acc, int32x4_t sum, int32x4_t mins, float32x4_t scale,
                                float32x4_t min, float d) {
    acc = vfmaq_f32(acc, vmulq_n_f32(scale, d), vcvtq_f32_s32(sum));
    return T::kHasMin ? vfmsq_f32(acc, vmulq_n_f32(min, d), vcvtq_f32_s32(mins)) : acc;
}

template <class T, int NT>
[[gnu::flatten]] inline void dot4_block32(const uint8_t* const* rows, const InputRows& in, const int* tokens,
                         float32x4_t* acc) {
    const TokenRows<NT> x(in, tokens, 32, 32);
    const int blocks = in.columns / 32;
    for (int b = 0; b < blocks; ++b) {
        const size_t at = static_cast<size_t>(b) * kBytes<T>;
        int32x4_t v[NT][4];
        unroll<4>([&](auto r) {
            const Codes codes = T::codes(rows[r] + at);
            unroll<NT>([&](auto t) {
                const int8_t* q = x.q[t] + b * 32;
                const int32x4_t low = vdotq_s32(vdupq_n_s32(0), codes.low, vld1q_s8(q));
                v[t][r] = vdotq_s32(low, codes.high, vld1q_s8(q + 16));
            });
        });
        float32x4_t scale, min;
        load_floats4<T>(rows, at, &scale, &min);
        unroll<NT>([&](auto t) {
            acc[t] = add_block32<T>(acc[t], fold4(v[t]), scale, min, x, t, b);
        });
    }
}

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

// The lanes of one row's integer sums over a super-block for each token, and those of its
// minimums.
template <class T, int NT>
inline void dot_block256(const uint8_t* p, const TokenRows<NT>& x, int block, int32x4_t* sum,
                         int32x4_t* min) {
    constexpr int kGroups = 256 / T::kGroup;
    const Scales scales = T::scales(p);
    const Scales weights = weights_of_sums<T>(p, scales);
    const int32x4_t wide[4] = {
        vmovl_s16(vget_low_s16(scales.low)), vmovl_high_s16(scales.low),
        vmovl_s16(vget_low_s16(scales.high)), vmovl_high_s16(scales.high)};
    unroll<NT>([&](auto t) { sum[t] = min[t] = vdupq_n_s32(0); });
    unroll<8>([&](auto j) {
        constexpr int J = j;
        const Codes codes = T::template codes<J>(p);
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
        const int32x4_t pairs = dot_sums<T::kGroup>(weights, x.sums[t] + block * kGroups);
        if constexpr (T::kHasMin) min[t] = pairs;
        sum[t] = without_offset<T>(sum[t], pairs);
    });
}

template <class T, int NT>
[[gnu::flatten]] inline void dot4_block256(const uint8_t* const* rows, const InputRows& in, const int* tokens,
                          float32x4_t* acc) {
    const TokenRows<NT> x(in, tokens, 256, T::kGroup);
    const int blocks = in.columns / 256;
    for (int b = 0; b < blocks; ++b) {
        const size_t at = static_cast<size_t>(b) * kBytes<T>;
        int32x4_t sums[4][NT], mins[4][NT];
        // Not unrolled: four rows' work at once does not fit in the registers.
        for (int r = 0; r < 4; ++r) dot_block256<T, NT>(rows[r] + at, x, b, sums[r], mins[r]);
        float32x4_t scale, min;
        load_floats4<T>(rows, at + T::kDAt, &scale, &min);
        unroll<NT>([&](auto t) {
            const int32x4_t v[4] = {sums[0][t], sums[1][t], sums[2][t], sums[3][t]};
            const int32x4_t m[4] = {mins[0][t], mins[1][t], mins[2][t], mins[3][t]};
            acc[t] = add_block256<T>(acc[t], fold4(v), fold4(m), scale, min, x.d[t][b]);
        });
    }
}

// Rows from `first` on; those beyond the panel's last repeat it: computed, never stored.
template <int Rows>
inline void row_pointers(const Panel& panel, int first, const uint8_t** rows) {
    for (int r = 0; r < Rows; ++r) {
        const int row = first + r < panel.rows ? first + r : panel.rows - 1;
        rows[r] = panel.weights + row * panel.row_bytes;
    }
}

// Where the input of the panel's tokens from `first` on lies, and where their results go.
template <int NT>
inline void token_rows(const Panel& panel, int first, int* from, float** to) {
    for (int t = 0; t < NT; ++t) {
        const int row = panel.out_rows ? panel.out_rows[first + t] : first + t;
        from[t] = panel.in_rows ? panel.in_rows[first + t] : first + t;
        to[t] = panel.out + static_cast<size_t>(row) * panel.out_stride;
    }
}

// body(NT, first) for runs of at most Most tokens, NT being a constant.
template <int Most, class Body>
inline void in_runs(int tokens, const Body& body, int first = 0) {
    for (; first + Most <= tokens; first += Most) {
        body(std::integral_constant<int, Most>{}, first);
    }
    if constexpr (Most > 1) in_runs<Most - 1>(tokens, body, first);
}

// Tokens below which taking a panel apart first does not pay.
inline constexpr int kGemmTokens = 4;

template <class T, bool Super>
inline void gemv(const Panel& panel) {
    for (int first = 0; first < panel.rows; first += 4) {
        const uint8_t* rows[4];
        row_pointers<4>(panel, first, rows);
        in_runs<kGemmTokens - 1>(panel.tokens, [&](auto nt, int token) {
            int from[nt];
            float* to[nt];
            token_rows<nt>(panel, token, from, to);
            float32x4_t acc[nt];
            unroll<nt>([&](auto t) { acc[t] = vdupq_n_f32(0.0f); });
            if constexpr (Super) {
                dot4_block256<T, nt>(rows, *panel.input, from, acc);
            } else {
                dot4_block32<T, nt>(rows, *panel.input, from, acc);
            }
            for (int t = 0; t < nt; ++t) store_rows(to[t] + first, acc[t], panel.rows - first);
        });
    }
}

}  // namespace
}  // namespace moestream
