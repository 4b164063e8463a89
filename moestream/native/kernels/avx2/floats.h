// What AVX2 brings to rows of floats: float formats, and int8 blocks.
#pragma once

#include "core/types.h"
#include "kernels/avx2/registers.h"

namespace moestream {
namespace {

inline __m256i rounded8(const float* x, __m256 inverse) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
}

struct Avx2Floats : Avx2Registers {
    static constexpr int kFloatTokens = 2;  // of a product with float weights at once

    // Eight weights.
    template <Type T>
    static void load_values(const uint8_t* p, Float* to) {
        if constexpr (T == Type::F32) {
            *to = _mm256_castsi256_ps(load256(p));
        } else if constexpr (T == Type::F16) {
            *to = load_halves(p);
        } else {
            *to = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p)), 16));
        }
    }

    // Eight int8 as floats.
    static void load_codes(const uint8_t* p, Float* to) {
        const __m128i q = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
        *to = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
    }

    static float half(const uint8_t* p) { return _cvtsh_ss(load_u16(p)); }

    static void store_halves(uint16_t* to, Float v) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                         _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }

    static uint32_t largest_magnitude(const float* x, int count) {
        __m256i most = _mm256_setzero_si256();
        for (int i = 0; i < count; i += 8) {
            // As integers, so that NaN counts as more than infinity.
            const __m256i bits = _mm256_and_si256(load256(x + i), _mm256_set1_epi32(0x7fffffff));
            most = _mm256_max_epi32(most, bits);
        }
        const __m128i half =
            _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
        const __m128i quarter = _mm_max_epi32(half, _mm_unpackhi_epi64(half, half));
        return static_cast<uint32_t>(_mm_cvtsi128_si32(
            _mm_max_epi32(quarter, _mm_shuffle_epi32(quarter, 1))));
    }

    // 32 floats to int8, with the sums of both halves.
    static void quantize32(const float* x, float inverse, int8_t* q, int* sums) {
        const __m256 scale = _mm256_set1_ps(inverse);
        const __m256i a = _mm256_packs_epi32(rounded8(x, scale), rounded8(x + 8, scale));
        const __m256i b = _mm256_packs_epi32(rounded8(x + 16, scale), rounded8(x + 24, scale));
        // The packs work on each half of a register: put the dwords back in order.
        const __m256i packed = _mm256_permutevar8x32_epi32(
            _mm256_packs_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), packed);
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), packed);
        __m256i sum = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0x4e));
        sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0xb1));
        sums[0] = _mm_cvtsi128_si32(_mm256_castsi256_si128(sum));
        sums[1] = _mm_cvtsi128_si32(_mm256_extracti128_si256(sum, 1));
    }
};

}  // namespace
}  // namespace moestream
