// How AVX2 takes the types of 256 values with scales and codes in place apart (K-quants, IQ4_XS).
#pragma once

#include "kernels/avx2/types.h"

namespace moestream {
namespace {

// Scales (first) and minimums (last 8 bytes) of Q4_K and Q5_K.
inline __m128i k4_scales(const uint8_t* p) {
    const __m128i v = load128(p);  // and four bytes more
    const __m128i low =
        _mm_srlv_epi32(_mm_shuffle_epi32(v, 0b10011000), _mm_setr_epi32(0, 0, 0, 4));
    const __m128i high = _mm_srli_epi32(_mm_shuffle_epi32(v, 0b01010000), 2);
    const int low6 = 0x3f3f3f3f, low4 = 0x0f0f0f0f, top2 = 0x30303030;
    return _mm_or_si128(_mm_and_si128(low, _mm_setr_epi32(low6, low4, low6, low4)),
                        _mm_and_si128(high, _mm_setr_epi32(0, top2, 0, top2)));
}

template <Type T>
struct K4Scales : Avx2Format<T> {
    static __m256i scales(const uint8_t* p) {
        return _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(k4_scales(p + 4)));
    }
    static __m256i mins(const uint8_t* p) {
        return _mm256_broadcastsi128_si256(
            _mm_unpackhi_epi8(k4_scales(p + 4), _mm_setzero_si128()));
    }
};

template <>
struct Blocks<Type::Q4_K> : K4Scales<Type::Q4_K> {
    template <int J>
    static __m256i codes(const uint8_t* p) {
        const __m256i v = load256(p + 16 + J / 2 * 32);
        return _mm256_and_si256(J % 2 ? _mm256_srli_epi16(v, 4) : v, _mm256_set1_epi8(15));
    }
};

template <>
struct Blocks<Type::Q5_K> : K4Scales<Type::Q5_K> {
    template <int J>
    static __m256i codes(const uint8_t* p) {
        const __m256i v = load256(p + 48 + J / 2 * 32), high = load256(p + 16);
        const __m256i low =
            _mm256_and_si256(J % 2 ? _mm256_srli_epi16(v, 4) : v, _mm256_set1_epi8(15));
        const __m256i fifth = J < 4 ? _mm256_slli_epi16(high, J < 4 ? 4 - J : 0)
                                    : _mm256_srli_epi16(high, J < 4 ? 0 : J - 4);
        return _mm256_or_si256(low, _mm256_and_si256(fifth, _mm256_set1_epi8(16)));
    }
};

template <>
struct Blocks<Type::Q6_K> : Avx2Format<Type::Q6_K> {
    static __m256i scales(const uint8_t* p) { return _mm256_cvtepi8_epi16(load128(p + 192)); }
    template <int J>
    static __m256i codes(const uint8_t* p) {
        const __m256i v = load256(p + J / 4 * 64 + J % 2 * 32);
        const __m256i low =
            _mm256_and_si256(J % 4 < 2 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
        const __m256i pairs = load256(p + 128 + J / 4 * 32);
        const __m256i high = J % 4 < 2 ? _mm256_slli_epi16(pairs, J % 4 < 2 ? 4 - J % 4 * 2 : 0)
                                       : _mm256_srli_epi16(pairs, J % 4 < 2 ? 0 : J % 4 * 2 - 4);
        return _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(48)));
    }
};

// Codes of two bits, a group of 32 in the same bits of 32 bytes: odd groups four times as large.
template <int J>
inline __m256i fourfold_twos(const uint8_t* p) {
    const __m256i v = load256(p + J / 4 * 32);
    return _mm256_and_si256(J % 4 < 2 ? v : _mm256_srli_epi16(v, 4),
                            _mm256_set1_epi8(J % 2 ? 12 : 3));
}

template <>
struct Blocks<Type::Q2_K> : Avx2Format<Type::Q2_K> {
    template <int J>
    static __m256i fourfold(const uint8_t* p) {
        return fourfold_twos<J>(p + 16);
    }
    static __m256i scales(const uint8_t* p) {
        return _mm256_cvtepu8_epi16(_mm_and_si128(load128(p), _mm_set1_epi8(15)));
    }
    static __m256i mins(const uint8_t* p) {
        return _mm256_cvtepu8_epi16(
            _mm_and_si128(_mm_srli_epi16(load128(p), 4), _mm_set1_epi8(15)));
    }
    template <int J>
    static __m256i codes(const uint8_t* p) {
        return _mm256_and_si256(_mm256_srli_epi16(load256(p + 16 + J / 4 * 32), J % 4 * 2),
                                _mm256_set1_epi8(3));
    }
};

template <>
struct Blocks<Type::Q3_K> : Avx2Format<Type::Q3_K> {
    static __m256i scales(const uint8_t* p) {
        const uint32_t a = load_u32(p + 96), b = load_u32(p + 100), c = load_u32(p + 104);
        const uint32_t low4 = 0x0f0f0f0fu, low2 = 0x03030303u;
        const __m128i v =
            _mm_setr_epi32(static_cast<int>((a & low4) | ((c & low2) << 4)),
                           static_cast<int>((b & low4) | (((c >> 2) & low2) << 4)),
                           static_cast<int>(((a >> 4) & low4) | (((c >> 4) & low2) << 4)),
                           static_cast<int>(((b >> 4) & low4) | (((c >> 6) & low2) << 4)));
        return _mm256_cvtepi8_epi16(_mm_sub_epi8(v, _mm_set1_epi8(32)));
    }
    template <int J>
    static __m256i codes(const uint8_t* p) {
        const __m256i low = _mm256_and_si256(
            _mm256_srli_epi16(load256(p + 32 + J / 4 * 32), J % 4 * 2), _mm256_set1_epi8(3));
        return _mm256_or_si256(low, bit_at<2 - J>(p, 4));
    }
    template <int J>
    static __m256i fourfold(const uint8_t* p) {
        constexpr int kTop = J % 2 ? 4 : 2;
        return _mm256_or_si256(fourfold_twos<J>(p + 32), bit_at<kTop - J>(p, 1 << kTop));
    }

  private:
    // The third bits, moved up by `By`.
    template <int By>
    static __m256i bit_at(const uint8_t* p, char bit) {
        const __m256i all = load256(p);
        const __m256i moved = By > 0 ? _mm256_slli_epi16(all, By > 0 ? By : 0)
                                     : _mm256_srli_epi16(all, By > 0 ? 0 : -By);
        return _mm256_and_si256(moved, _mm256_set1_epi8(bit));
    }
};

template <>
struct Blocks<Type::IQ4_XS> : Avx2Format<Type::IQ4_XS> {
    static __m256i scales(const uint8_t* p) {
        // Nibbles of the low parts and bit pairs of the high parts, spread to a lane each.
        const __m128i low = _mm_set1_epi32(static_cast<int>(load_u32(p + 4)));
        const __m128i high = _mm_set1_epi32(load_u16(p + 2));
        const auto four = [&](__m128i nibbles, __m128i pairs) {
            const __m128i l = _mm_and_si128(_mm_srlv_epi32(low, nibbles), _mm_set1_epi32(15));
            const __m128i h = _mm_and_si128(_mm_srlv_epi32(high, pairs), _mm_set1_epi32(3));
            return _mm_or_si128(l, _mm_slli_epi32(h, 4));
        };
        const __m128i scale =
            _mm_packs_epi32(four(_mm_setr_epi32(0, 4, 8, 12), _mm_setr_epi32(0, 2, 4, 6)),
                            four(_mm_setr_epi32(16, 20, 24, 28), _mm_setr_epi32(8, 10, 12, 14)));
        return _mm256_broadcastsi128_si256(_mm_sub_epi16(scale, _mm_set1_epi16(32)));
    }
    template <int J>
    static __m256i codes(const uint8_t* p) {
        return look_up(kIq4Values, nibbles(p + 8 + J * 16));
    }
};

}  // namespace
}  // namespace moestream
