// AVX-512's vectors for attention.
#pragma once

#include "kernels/avx2/attention.h"

namespace moestream {
namespace {

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
    static Float exp(Float v) { return exp_lanes<Avx512Attention>(v); }
    static float first(Float v) { return _mm512_cvtss_f32(v); }
    // `b` where either is NaN.
    static Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
    static Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
    static Float nearest(Float v) {
        return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static Float power_of_two(Float n) {
        const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
        return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
    }
    // `v`, but 0 where x is less than `low`, and x where that is NaN.
    static Float bounded_by(Float x, Float low, Float v) {
        const Float kept = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, low, _CMP_NLT_UQ), v);
        return _mm512_mask_mov_ps(kept, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
    }
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

    static Float low_singles(Float a, Float b) { return _mm512_unpacklo_ps(a, b); }
    static Float high_singles(Float a, Float b) { return _mm512_unpackhi_ps(a, b); }
    static Float low_pairs(Float a, Float b) {
        return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    }
    static Float high_pairs(Float a, Float b) {
        return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
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
        const Float four[4] = {rows(0), rows(1), rows(2), rows(3)};
        transpose_quarters<Avx512Attention>(four, to);
    }
};

}  // namespace
}  // namespace moestream
