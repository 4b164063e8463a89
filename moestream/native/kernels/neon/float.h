// Products with F32, F16 and BF16 weights: eight lanes along the columns, as kernels.h says.
#pragma once

#include <cmath>

#include "kernels/neon/gemv.h"

namespace moestream {
namespace {

template <Type T>
inline constexpr int kFloatBytes = T == Type::F32 ? 4 : 2;

// Eight weights, in two registers.
template <Type T>
inline void load_floats(const uint8_t* p, float32x4_t* to) {
    if constexpr (T == Type::F32) {
        to[0] = vreinterpretq_f32_u8(vld1q_u8(p));
        to[1] = vreinterpretq_f32_u8(vld1q_u8(p + 16));
    } else {
        const uint16x8_t v = vreinterpretq_u16_u8(vld1q_u8(p));
        if constexpr (T == Type::F16) {
            to[0] = halves_to_float(vget_low_u16(v));
            to[1] = halves_to_float(vget_high_u16(v));
        } else {
            to[0] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(v), 16));
            to[1] = vreinterpretq_f32_u32(vshll_high_n_u16(v, 16));
        }
    }
}

template <Type T>
inline float load_float(const uint8_t* p) {
    if constexpr (T == Type::F32) return std::bit_cast<float>(load_u32(p));
    return T == Type::F16 ? load_half(p) : bf16_to_float(load_u16(p));
}

// The last columns, less than eight, into the lanes of one row: a zero in the others' place could
// turn a sum of -0 into 0.
template <Type T>
inline void add_rest(const uint8_t* row, const float* x, int count, float32x4_t* acc) {
    float lanes[8];
    vst1q_f32(lanes, acc[0]);
    vst1q_f32(lanes + 4, acc[1]);
    for (int i = 0; i < count; ++i) {
        lanes[i] = std::fma(load_float<T>(row + i * kFloatBytes<T>), x[i], lanes[i]);
    }
    acc[0] = vld1q_f32(lanes);
    acc[1] = vld1q_f32(lanes + 4);
}

// Four rows against NT tokens.
template <Type T, int NT>
[[gnu::flatten]] inline void dot4_float(const uint8_t* const* rows, const float* const* x, int columns,
                       float32x4_t* sums) {
    float32x4_t acc[NT][4][2];
    unroll<NT * 4>([&](auto i) { acc[i / 4][i % 4][0] = acc[i / 4][i % 4][1] = vdupq_n_f32(0.0f); });
    int i = 0;
    for (; i + 8 <= columns; i += 8) {
        unroll<4>([&](auto r) {
            float32x4_t w[2];
            load_floats<T>(rows[r] + i * kFloatBytes<T>, w);
            unroll<NT>([&](auto t) {
                acc[t][r][0] = vfmaq_f32(acc[t][r][0], w[0], vld1q_f32(x[t] + i));
                acc[t][r][1] = vfmaq_f32(acc[t][r][1], w[1], vld1q_f32(x[t] + i + 4));
            });
        });
    }
    if (i < columns) {
        unroll<NT * 4>([&](auto k) {
            const int t = k / 4, r = k % 4;
            add_rest<T>(rows[r] + i * kFloatBytes<T>, x[t] + i, columns - i, acc[t][r]);
        });
    }
    unroll<NT>([&](auto t) { sums[t] = fold_float4(acc[t]); });
}

// Tokens whose 2 x 4 x 2 accumulators fit in the registers.
inline constexpr int kFloatTokens = 2;

template <Type T>
void matmul_float(const Panel& panel) {
    const int columns = panel.input->columns;
    for (int first = 0; first < panel.rows; first += 4) {
        const uint8_t* rows[4];
        row_pointers<4>(panel, first, rows);
        in_runs<kFloatTokens>(panel.tokens, [&](auto nt, int token) {
            int from[nt];
            float* to[nt];
            token_rows<nt>(panel, token, from, to);
            const float* x[nt];
            float32x4_t sums[nt];
            for (int t = 0; t < nt; ++t) {
                x[t] = panel.input->x + static_cast<size_t>(from[t]) * columns;
            }
            dot4_float<T, nt>(rows, x, columns, sums);
            for (int t = 0; t < nt; ++t) store_rows(to[t] + first, sums[t], panel.rows - first);
        });
    }
}

}  // namespace
}  // namespace moestream
