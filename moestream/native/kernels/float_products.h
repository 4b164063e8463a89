// Products with F32, F16 and BF16 weights: eight lanes along the columns, as kernels.h says.
#pragma once

#include "kernels/rows.h"

namespace moestream {
namespace {

template <Type T>
inline float load_value(const uint8_t* p) {
    if constexpr (T == Type::F32) return std::bit_cast<float>(load_u32(p));
    return T == Type::F16 ? load_half(p) : bf16_to_float(load_u16(p));
}

// The last columns, less than eight, into the lanes of one row: a zero in the others' place could
// turn a sum of -0 into 0.
template <class V, Type T>
inline void add_rest(const uint8_t* row, const float* x, int count, typename V::Float* acc) {
    float lanes[8];
    unroll<kParts<V>>([&](auto part) { V::store(lanes + part * V::kLanes, acc[part]); });
    for (int i = 0; i < count; ++i) {
        lanes[i] = std::fma(load_value<T>(row + i * layout_of(T).block_bytes), x[i], lanes[i]);
    }
    unroll<kParts<V>>([&](auto part) { acc[part] = V::load(lanes + part * V::kLanes); });
}

// Four rows against NT tokens.
template <class V, Type T, int NT>
[[gnu::flatten]] inline void dot4_float(const uint8_t* const* rows, const float* const* x,
                                        int columns, float (*sums)[4]) {
    constexpr int kBytes = layout_of(T).block_bytes, kPart = kParts<V>;
    typename V::Float acc[NT][4][kPart];
    unroll<NT * 4>([&](auto k) { fill<kPart>(acc[k / 4][k % 4], V::zero()); });
    int i = 0;
    for (; i + 8 <= columns; i += 8) {
        unroll<4>([&](auto r) {
            typename V::Float w[kPart];
            V::template load_values<T>(rows[r] + i * kBytes, w);
            unroll<NT * kPart>([&](auto k) {
                constexpr int kToken = k / kPart, part = k % kPart;
                acc[kToken][r][part] = V::fma(w[part], V::load(x[kToken] + i + part * V::kLanes),
                                              acc[kToken][r][part]);
            });
        });
    }
    if (i < columns) {
        unroll<NT * 4>([&](auto k) {
            constexpr int kToken = k / 4, row = k % 4;
            add_rest<V, T>(rows[row] + i * kBytes, x[kToken] + i, columns - i, acc[kToken][row]);
        });
    }
    unroll<NT>([&](auto t) { V::fold4(acc[t][0], 1.0f, sums[t]); });
}

template <class V, Type T>
void matmul_float(const Panel& panel) {
    const int columns = panel.input->columns;
    for (int first = 0; first < panel.rows; first += 4) {
        const uint8_t* rows[4];
        row_pointers<4>(panel, first, rows);
        const int count = panel.rows - first < 4 ? panel.rows - first : 4;
        in_runs<V::kFloatTokens>(panel.tokens, [&](auto nt, int token) {
            const float* x[nt];
            for (int t = 0; t < nt; ++t) {
                x[t] = panel.input->x + static_cast<size_t>(input_row(panel, token + t)) * columns;
            }
            float sums[nt][4];
            dot4_float<V, T, nt>(rows, x, columns, sums);
            for (int t = 0; t < nt; ++t) {
                std::memcpy(output_row(panel, token + t) + first, sums[t], count * sizeof(float));
            }
        });
    }
}

}  // namespace
}  // namespace moestream
