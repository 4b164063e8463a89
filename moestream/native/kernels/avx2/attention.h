// AVX2's vectors for attention.
#pragma once

#include "kernels/avx2/floats.h"

namespace moestream {
namespace {

struct Avx2Attention : Avx2Floats {
    using Half = Avx2Attention;
    // Twelve sums, two keys and a query's value leave one of the 16 registers.
    static constexpr int kQueries = 6, kVectors = 2;

    // `b` where either is NaN.
    static Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
    static float largest(Float v) {
        const __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        const __m128 quarter = _mm_max_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_max_ss(quarter, _mm_movehdup_ps(quarter)));
    }

    // Four values of eight rows become four vectors.
    static void transpose4(const float* from, int stride, Float* to) {
        const auto rows = [&](int r) {
            return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + r * stride)),
                                        _mm_loadu_ps(from + (r + 4) * stride), 1);
        };
        const Float r0 = rows(0), r1 = rows(1), r2 = rows(2), r3 = rows(3);
        const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(r0, r1));
        const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(r0, r1));
        const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(r2, r3));
        const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(r2, r3));
        to[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        to[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        to[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        to[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
};

}  // namespace
}  // namespace moestream
