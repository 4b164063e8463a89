// AVX2's registers: loads, folds and arithmetic.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "core/half.h"
#include "kernels/avx2/lanes.h"
#include "kernels/some_lanes.h"

namespace moestream {
namespace {

inline __m256i load256(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

inline __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// Whether this unit has masks, and instructions that take one.
#if defined(__AVX512BW__) && defined(__AVX512VL__)
inline constexpr bool kMasks = true;
#else
inline constexpr bool kMasks = false;
#endif

// Whether this unit may multiply bytes in fours, and words in pairs, and add them to a sum (VNNI,
// as AVX-512's or as AVX's own).
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
inline constexpr bool kVnni = true;
inline __m256i add_quads(__m256i sum, __m256i codes, __m256i input) {
    return _mm256_dpbusd_epi32(sum, codes, input);
}
inline __m256i add_pairs(__m256i sum, __m256i a, __m256i b) {
    return _mm256_dpwssd_epi32(sum, a, b);
}
#elif defined(__AVXVNNI__)
inline constexpr bool kVnni = true;
inline __m256i add_quads(__m256i sum, __m256i codes, __m256i input) {
    return _mm256_dpbusd_avx_epi32(sum, codes, input);
}
inline __m256i add_pairs(__m256i sum, __m256i a, __m256i b) {
    return _mm256_dpwssd_avx_epi32(sum, a, b);
}
#else
inline constexpr bool kVnni = false;
inline __m256i add_quads(__m256i sum, __m256i codes, __m256i input) {
    const __m256i pairs = _mm256_maddubs_epi16(codes, input);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline __m256i add_pairs(__m256i sum, __m256i a, __m256i b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}
#endif

// Even ones of 16 int16 to the low half, odd ones to the high half, and back.
inline __m256i split_even_odd(__m256i v) {
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,  //
                                           0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(v, order), 0xd8);
}

inline __m256i join_even_odd(__m256i v) {
    const __m256i order = _mm256_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15,  //
                                           0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    return _mm256_shuffle_epi8(_mm256_permute4x64_epi64(v, 0xd8), order);
}

inline __m256i broadcast32(const void* p) {
    int v;
    std::memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

// A sum that is added to where it stands: left to itself, GCC computes eight of them in other
// registers and then moves them back, and has none left for what it multiplies.
inline void keep_in_register(__m256i& v) { asm("" : "+x"(v)); }

// Lane r of the result is the sum of the lanes of v[r * stride].
inline __m256i fold8(const __m256i* v, int stride) {
    const auto fold = [&](int r) { return _mm256_hadd_epi32(v[r * stride], v[(r + 1) * stride]); };
    const __m256i low = _mm256_hadd_epi32(fold(0), fold(2));
    const __m256i high = _mm256_hadd_epi32(fold(4), fold(6));
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                            _mm256_permute2x128_si256(low, high, 0x31));
}

// The same as fold8 for registers of which only the low halves count.
inline __m256i fold8_low(const __m256i* v) {
    const auto both = [&](int r) {
        return _mm256_inserti128_si256(v[r], _mm256_castsi256_si128(v[r + 4]), 1);
    };
    const __m256i low = _mm256_hadd_epi32(both(0), both(1));
    return _mm256_hadd_epi32(low, _mm256_hadd_epi32(both(2), both(3)));
}

// The same of the low halves and of the high halves.
inline void fold8_halves(const __m256i* v, __m256i* sums) {
    const auto fold = [&](int r) { return _mm256_hadd_epi32(v[r], v[r + 1]); };
    const __m256i low = _mm256_hadd_epi32(fold(0), fold(2));
    const __m256i high = _mm256_hadd_epi32(fold(4), fold(6));
    sums[0] = _mm256_permute2x128_si256(low, high, 0x20);
    sums[1] = _mm256_permute2x128_si256(low, high, 0x31);
}

// The same as fold8 for lanes of at most 16383 in magnitude: these, and sums of two, pack into
// int16, and one multiply adds neighbours.
inline __m256i fold8_small(const __m256i* v, int stride) {
    const __m256i ones = _mm256_set1_epi16(1);
    const auto add = [&](__m256i a, __m256i b) {
        return _mm256_madd_epi16(_mm256_packs_epi32(a, b), ones);
    };
    const auto fold = [&](int r) { return add(v[r * stride], v[(r + 1) * stride]); };
    const __m256i low = add(fold(0), fold(2)), high = add(fold(4), fold(6));
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                            _mm256_permute2x128_si256(low, high, 0x31));
}

// Lane r of the result is the sum of half r % 2 of v[r / 2], whose lanes are as fold8_small's.
inline __m256i fold_two_rows(const __m256i* v) {
    const __m256i ones = _mm256_set1_epi16(1);
    const auto add = [&](__m256i a, __m256i b) {
        return _mm256_madd_epi16(_mm256_packs_epi32(a, b), ones);
    };
    const __m256i even_odd = add(add(v[0], v[1]), add(v[2], v[3]));
    return _mm256_permutevar8x32_epi32(even_odd, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// Two neighbouring float16 of eight rows.
inline void load_half_pairs8(const uint8_t* const* rows, size_t offset, __m256* first,
                             __m256* second) {
    const auto load = [&](int r) { return static_cast<int>(load_u32(rows[r] + offset)); };
    const __m256i pairs =
        _mm256_setr_epi32(load(0), load(1), load(2), load(3), load(4), load(5), load(6), load(7));
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,  //
                                           0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    const __m256i split = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(pairs, order), 0xd8);
    *first = _mm256_cvtph_ps(_mm256_castsi256_si128(split));
    *second = _mm256_cvtph_ps(_mm256_extracti128_si256(split, 1));
}

// Row r of eight rows of eight dwords becomes column r.
inline void transpose8(__m256i* v) {
    const __m256i a0 = _mm256_unpacklo_epi32(v[0], v[1]), a1 = _mm256_unpackhi_epi32(v[0], v[1]);
    const __m256i a2 = _mm256_unpacklo_epi32(v[2], v[3]), a3 = _mm256_unpackhi_epi32(v[2], v[3]);
    const __m256i a4 = _mm256_unpacklo_epi32(v[4], v[5]), a5 = _mm256_unpackhi_epi32(v[4], v[5]);
    const __m256i a6 = _mm256_unpacklo_epi32(v[6], v[7]), a7 = _mm256_unpackhi_epi32(v[6], v[7]);
    const __m256i b0 = _mm256_unpacklo_epi64(a0, a2), b1 = _mm256_unpackhi_epi64(a0, a2);
    const __m256i b2 = _mm256_unpacklo_epi64(a1, a3), b3 = _mm256_unpackhi_epi64(a1, a3);
    const __m256i b4 = _mm256_unpacklo_epi64(a4, a6), b5 = _mm256_unpackhi_epi64(a4, a6);
    const __m256i b6 = _mm256_unpacklo_epi64(a5, a7), b7 = _mm256_unpackhi_epi64(a5, a7);
    v[0] = _mm256_permute2x128_si256(b0, b4, 0x20), v[4] = _mm256_permute2x128_si256(b0, b4, 0x31);
    v[1] = _mm256_permute2x128_si256(b1, b5, 0x20), v[5] = _mm256_permute2x128_si256(b1, b5, 0x31);
    v[2] = _mm256_permute2x128_si256(b2, b6, 0x20), v[6] = _mm256_permute2x128_si256(b2, b6, 0x31);
    v[3] = _mm256_permute2x128_si256(b3, b7, 0x20), v[7] = _mm256_permute2x128_si256(b3, b7, 0x31);
}

// Ask for one row's share of the next eight rows' bytes. These are asked for in the order of
// memory, spread evenly over the work: rows are short and eight are read at once, which hardware
// prefetchers do not see through. Asking beyond the end of memory does no harm.
template <int Bytes>
inline void prefetch(uintptr_t ahead) {
    for (int i = 0; i < Bytes; i += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(ahead + i), _MM_HINT_T0);
    }
}

// Eight floats, or eight int32, to a register; see products.h and rows.h.
struct Avx2Registers : SomeLanes<Avx2Registers> {
    using Float = __m256;
    using Int = __m256i;
    static constexpr int kLanes = 8;

    static Float zero() { return _mm256_setzero_ps(); }
    static Float set(float v) { return _mm256_set1_ps(v); }
    static Float load(const float* p) { return _mm256_loadu_ps(p); }
    static Float load_halves(const uint8_t* p) { return _mm256_cvtph_ps(load128(p)); }
    static void store(float* p, Float v) { _mm256_storeu_ps(p, v); }
    static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
    static Float sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
    static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
    static Float div(Float a, Float b) { return _mm256_div_ps(a, b); }
    static Float negate(Float v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }
    static Float exp(Float v) { return exp_lanes<Avx2Registers>(v); }
    // `b` where either is NaN.
    static Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
    static Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
    static Float nearest(Float v) {
        return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    // Two to the power of whole numbers.
    static Float power_of_two(Float n) {
        const Int exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    }
    // `v`, but 0 where x is less than `low`, and x where that is NaN.
    static Float bounded_by(Float x, Float low, Float v) {
        const Float kept = _mm256_andnot_ps(_mm256_cmp_ps(x, low, _CMP_LT_OQ), v);
        return _mm256_blendv_ps(kept, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    }
    // c + a * b, and c - a * b.
    static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
    static Float fnma(Float a, Float b, Float c) { return _mm256_fnmadd_ps(a, b, c); }
    static float first(Float v) { return _mm256_cvtss_f32(v); }

    static Int zero_int() { return _mm256_setzero_si256(); }
    static Int set_int(int v) { return _mm256_set1_epi32(v); }
    static Int sub(Int a, Int b) { return _mm256_sub_epi32(a, b); }
    static Float to_float(Int v) { return _mm256_cvtepi32_ps(v); }
    static Int shift_left(Int v, int by) { return _mm256_slli_epi32(v, by); }

    // The same sum as sum_lanes, of one register.
    static float fold(const Float* v) {
        const __m128 half = _mm_add_ps(_mm256_castps256_ps128(*v), _mm256_extractf128_ps(*v, 1));
        const __m128 quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
    }
    // Those of four registers, times `scale`.
    static void fold4(const Float* v, float scale, float* to) {
        const auto halves = [](Float x) {
            return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        };
        __m128 v0 = halves(v[0]), v1 = halves(v[1]), v2 = halves(v[2]), v3 = halves(v[3]);
        _MM_TRANSPOSE4_PS(v0, v1, v2, v3);
        const __m128 sums = _mm_add_ps(_mm_add_ps(v0, v2), _mm_add_ps(v1, v3));
        _mm_storeu_ps(to, _mm_mul_ps(sums, _mm_set1_ps(scale)));
    }
};

}  // namespace
}  // namespace moestream
