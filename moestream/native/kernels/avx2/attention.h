// AVX2's vectors for attention.
#pragma once

#include "kernels/avx2/floats.h"

namespace moestream {
namespace {

struct Avx2Attention : Avx2Floats {
    using Half = Avx2Attention;
    // Twelve sums, two keys and a query's value leave one of the 16 registers.
    static constexpr int kQueries = 6, kVectors = 2;

    static float largest(Float v) {
        const __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        const __m128 quarter = _mm_max_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_max_ss(quarter, _mm_movehdup_ps(quarter)));
    }

    static Float low_singles(Float a, Float b) { return _mm256_unpacklo_ps(a, b); }
    static Float high_singles(Float a, Float b) { return _mm256_unpackhi_ps(a, b); }
    static Float low_pairs(Float a, Float b) {
        return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
    }
    static Float high_pairs(Float a, Float b) {
        return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
    }

    // Four values of eight rows become four vectors.
    static void transpose4(const float* from, int stride, Float* to) {
        const auto rows = [&](int r) {
            return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + r * stride)),
                                        _mm_loadu_ps(from + (r + 4) * stride), 1);
        };
        const Float four[4] = {rows(0), rows(1), rows(2), rows(3)};
        transpose_quarters<Avx2Attention>(four, to);
    }
};

}  // namespace
}  // namespace moestream
