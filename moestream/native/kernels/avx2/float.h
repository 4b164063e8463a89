// Products with F32, F16 and BF16 weights: eight lanes along the columns, as kernels.h says.
#pragma once

#include "kernels/avx2/gemv.h"

namespace moestream {
namespace {

template <Type T>
inline constexpr int kFloatBytes = T == Type::F32 ? 4 : 2;

template <Type T>
inline __m256 load_floats(const uint8_t* p) {
    if constexpr (T == Type::F32) {
        return _mm256_castsi256_ps(load256(p));
    } else if constexpr (T == Type::F16) {
        return _mm256_cvtph_ps(load128(p));
    } else {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p)), 16));
    }
}

// Four rows against one token.
template <Type T>
inline __m128 dot4_float(const uint8_t* const* rows, const float* x, int columns) {
    __m256 acc[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                     _mm256_setzero_ps()};
    int i = 0;
    for (; i + 8 <= columns; i += 8) {
        const __m256 input = _mm256_loadu_ps(x + i);
        for (int r = 0; r < 4; ++r) {
            acc[r] = _mm256_fmadd_ps(load_floats<T>(rows[r] + i * kFloatBytes<T>), input, acc[r]);
        }
    }
    if (i < columns) {
        // The other lanes are left alone: adding 0 would turn a sum of -0 into 0.
        const __m256 there = _mm256_castsi256_ps(_mm256_cmpgt_epi32(
            _mm256_set1_epi32(columns - i), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
        const __m256 input = load_some(x + i, columns - i);
        for (int r = 0; r < 4; ++r) {
            alignas(32) uint8_t rest[32] = {};
            std::memcpy(rest, rows[r] + i * kFloatBytes<T>, (columns - i) * kFloatBytes<T>);
            const __m256 sum = _mm256_fmadd_ps(load_floats<T>(rest), input, acc[r]);
            acc[r] = _mm256_blendv_ps(acc[r], sum, there);
        }
    }
    return fold_float4(acc[0], acc[1], acc[2], acc[3]);
}

template <Type T>
void matmul_float(const Panel& panel) {
    for (int first = 0; first < panel.rows; first += 4) {
        const uint8_t* rows[4];
        for (int r = 0; r < 4; ++r) {
            rows[r] = panel.weights + (first + r < panel.rows ? first + r : 0) * panel.row_bytes;
        }
        const int count = panel.rows - first < 4 ? panel.rows - first : 4;
        for (int t = 0; t < panel.tokens; ++t) {
            const int from = panel.in_rows ? panel.in_rows[t] : t;
            const int to = panel.out_rows ? panel.out_rows[t] : t;
            const int columns = panel.input->columns;
            float sums[4];
            _mm_storeu_ps(sums, dot4_float<T>(
                rows, panel.input->x + static_cast<size_t>(from) * columns, columns));
            std::memcpy(panel.out + static_cast<size_t>(to) * panel.out_stride + first, sums,
                        count * sizeof(float));
        }
    }
}

}  // namespace
}  // namespace moestream
