// AVX-512's vectors for attention.
#pragma once

#include "kernels/avx2/attention.h"

namespace moestream {
namespace {

// exp_lane of sixteen lanes.
inline __m512 exp16(__m512 x) {
    const __m512 low = _mm512_set1_ps(kExpLow);
    // The second operand comes back when either is NaN, so NaN passes through.
    const __m512 clamped = _mm512_min_ps(_mm512_set1_ps(kExpHigh), _mm512_max_ps(low, x));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(clamped, _mm512_set1_ps(kLog2e)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 r = _mm512_fmadd_ps(
        n, _mm512_set1_ps(-kLn2Low), _mm512_fmadd_ps(n, _mm512_set1_ps(-kLn2High), clamped));
    __m512 p = _mm512_set1_ps(kExpP[0]);
    for (int i = 1; i < 6; ++i) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExpP[i]));
    const __m512 value = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r),
                                       _mm512_set1_ps(1.0f));
    const __m512i power = _mm512_slli_epi32(
        _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
    const __m512 scaled = _mm512_maskz_mul_ps(_mm512_cmp_ps_mask(x, low, _CMP_NLT_UQ), value,
                                              _mm512_castsi512_ps(power));
    return _mm512_mask_mov_ps(scaled, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

struct Avx512Attention {
    using Half = Avx2Attention;
    using Float = __m512;
    static constexpr int kLanes = 16;
    static constexpr int kQueries = 6, kVectors = 4;

    static Float zero() { return _mm512_setzero_ps(); }
    static Float set(float v) { return _mm512_set1_ps(v); }
    static Float load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, Float v) { _mm512_storeu_ps(p, v); }
    static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
    static Float sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
    static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
    // c + a * b.
    static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
    static Float exp(Float v) { return exp16(v); }
    static float first(Float v) { return _mm512_cvtss_f32(v); }
    // `b` where either is NaN.
    static Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
    static float largest(Float v) { return _mm512_reduce_max_ps(v); }

    static float half(const uint8_t* p) { return Half::half(p); }
    template <Type T>
    static void load_values(const uint8_t* p, Float* to) {
        static_assert(T == Type::F16);
        *to = _mm512_cvtph_ps(load256(p));
    }
    static void load_codes(const uint8_t* p, Float* to) {
        *to = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load128(p)));
    }

    // Four values of sixteen rows become four vectors.
    static void transpose4(const float* from, int stride, Float* to) {
        const auto rows = [&](int r) {
            const auto load = [&](int k) { return _mm_loadu_ps(from + (r + 4 * k) * stride); };
            Float v = _mm512_castps128_ps512(load(0));
            v = _mm512_insertf32x4(v, load(1), 1);
            v = _mm512_insertf32x4(v, load(2), 2);
            return _mm512_insertf32x4(v, load(3), 3);
        };
        const Float r0 = rows(0), r1 = rows(1), r2 = rows(2), r3 = rows(3);
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r0, r1));
        const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(r0, r1));
        const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(r2, r3));
        const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(r2, r3));
        to[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        to[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        to[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        to[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
};

}  // namespace
}  // namespace moestream
