// How AVX2 takes each block type apart: codes as bytes, 32 at a time, and small-integer scales.
//
// kSteps is how many pair sums of codes with int8 input fit in int16 on top of one another; signed
// codes go through |code| * sign(input, code).
#pragma once

#include "core/types.h"
#include "kernels/avx2/common.h"

namespace moestream {
namespace {

inline __m256i nibbles(const uint8_t* p) {
    const __m256i both = _mm256_broadcastsi128_si256(load128(p));
    const __m256i shifted = _mm256_srlv_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
    return _mm256_and_si256(shifted, _mm256_set1_epi8(15));
}

// 0x10 in each byte whose bit, of the 32 at `p`, is set.
inline __m256i fifth_bits(const uint8_t* p) {
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,  //
                                            2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
    const __m256i bytes = _mm256_shuffle_epi8(broadcast32(p), spread);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

inline __m256i look_up(const int8_t* table, __m256i codes) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load128(table)), codes);
}

struct Block32Type {
    static constexpr bool kSigned = false, kHasMin = false;
    static constexpr bool kSmall = false;  // four products fit fold8_small
    static constexpr int kOffset = 0;
};

struct Q8_0 : Block32Type {
    static constexpr Type kType = Type::Q8_0;
    static constexpr bool kSigned = true;
    static constexpr int kSteps = 1;
    static __m256i codes(const uint8_t* p) { return load256(p + 2); }
};

struct Q4_0 : Block32Type {
    static constexpr Type kType = Type::Q4_0;
    static constexpr bool kSmall = true;
    static constexpr int kSteps = 8, kOffset = 8;
    static __m256i codes(const uint8_t* p) { return nibbles(p + 2); }
};

struct Q4_1 : Block32Type {
    static constexpr Type kType = Type::Q4_1;
    static constexpr bool kHasMin = true, kSmall = true;
    static constexpr int kSteps = 8;
    static __m256i codes(const uint8_t* p) { return nibbles(p + 4); }
};

struct Q5_0 : Block32Type {
    static constexpr Type kType = Type::Q5_0;
    static constexpr int kSteps = 4, kOffset = 16;
    static __m256i codes(const uint8_t* p) {
        return _mm256_or_si256(nibbles(p + 6), fifth_bits(p + 2));
    }
};

struct Q5_1 : Block32Type {
    static constexpr Type kType = Type::Q5_1;
    static constexpr bool kHasMin = true;
    static constexpr int kSteps = 4;
    static __m256i codes(const uint8_t* p) {
        return _mm256_or_si256(nibbles(p + 8), fifth_bits(p + 4));
    }
};

struct IQ4_NL : Block32Type {
    static constexpr Type kType = Type::IQ4_NL;
    static constexpr bool kSigned = true;
    static constexpr int kSteps = 1;
    static __m256i codes(const uint8_t* p) { return look_up(kIq4Values, nibbles(p + 2)); }
};

struct MXFP4 : Block32Type {
    static constexpr Type kType = Type::MXFP4;
    static constexpr bool kSigned = true, kSmall = true;
    static constexpr int kSteps = 8;  // codes of at most 12
    static __m256i codes(const uint8_t* p) { return look_up(kMxfp4Values, nibbles(p + 1)); }
};

// e8m0_half_to_float of eight exponents.
inline __m256 e8m0_halves8(__m256i exponents) {
    const __m256i normal =
        _mm256_slli_epi32(_mm256_sub_epi32(exponents, _mm256_set1_epi32(1)), 23);
    const __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), exponents);
    const __m256i is_tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), exponents);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, tiny, is_tiny));
}

// Scales of a block in eight rows.
template <class T>
inline __m256 load_scales8(const uint8_t* const* rows, size_t offset) {
    if constexpr (T::kType == Type::MXFP4) {
        const auto at = [&](int r) { return static_cast<int>(rows[r][offset]); };
        return e8m0_halves8(
            _mm256_setr_epi32(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)));
    } else {
        return load_halves8(rows, offset);
    }
}

// Super-blocks. scales() and mins() are int16, 16 of them: one for each 16 codes in order, or,
// if kGroup is 32, one for each 32 in the low half and the same again in the high half.
// With kShift, codes carry an offset of 1 << kShift. Scales are at kDAt, minimums two bytes on.
struct Block256Type {
    static constexpr bool kSigned = false, kHasMin = false;
    static constexpr int kShift = -1, kDAt = 0;
    static __m256i mins(const uint8_t*) { return _mm256_setzero_si256(); }
};

// Scales (first) and minimums (last 8 bytes) of Q4_K and Q5_K.
inline __m128i k4_scales(const uint8_t* p) {
    const uint32_t a = load_u32(p), b = load_u32(p + 4), c = load_u32(p + 8);
    const uint32_t low6 = 0x3f3f3f3fu, low4 = 0x0f0f0f0fu, low2 = 0x03030303u;
    const uint32_t s1 = (c & low4) | (((a >> 6) & low2) << 4);
    const uint32_t m1 = ((c >> 4) & low4) | (((b >> 6) & low2) << 4);
    return _mm_setr_epi32(static_cast<int>(a & low6), static_cast<int>(s1),
                          static_cast<int>(b & low6), static_cast<int>(m1));
}

struct K4Scales : Block256Type {
    static constexpr bool kHasMin = true;
    static constexpr int kGroup = 32;
    static __m256i scales(const uint8_t* p) {
        return _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(k4_scales(p + 4)));
    }
    static __m256i mins(const uint8_t* p) {
        return _mm256_broadcastsi128_si256(
            _mm_cvtepu8_epi16(_mm_unpackhi_epi64(k4_scales(p + 4), _mm_setzero_si128())));
    }
};

struct Q4_K : K4Scales {
    static constexpr Type kType = Type::Q4_K;
    static constexpr int kSteps = 8;
    template <int J>
    static __m256i codes(const uint8_t* p) {
        const __m256i v = load256(p + 16 + J / 2 * 32);
        return _mm256_and_si256(J % 2 ? _mm256_srli_epi16(v, 4) : v, _mm256_set1_epi8(15));
    }
};

struct Q5_K : K4Scales {
    static constexpr Type kType = Type::Q5_K;
    static constexpr int kSteps = 4;
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

struct Q6_K : Block256Type {
    static constexpr Type kType = Type::Q6_K;
    static constexpr int kGroup = 16, kSteps = 2, kShift = 5, kDAt = 208;
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

struct Q2_K : Block256Type {
    static constexpr Type kType = Type::Q2_K;
    static constexpr bool kHasMin = true;
    static constexpr int kGroup = 16, kSteps = 8, kDAt = 80;
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

struct Q3_K : Block256Type {
    static constexpr Type kType = Type::Q3_K;
    static constexpr int kGroup = 16, kSteps = 8, kShift = 2, kDAt = 108;
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
        const __m256i mask = load256(p);
        const __m256i third = J < 2 ? _mm256_slli_epi16(mask, J < 2 ? 2 - J : 0)
                                    : _mm256_srli_epi16(mask, J < 2 ? 0 : J - 2);
        return _mm256_or_si256(low, _mm256_and_si256(third, _mm256_set1_epi8(4)));
    }
};

struct IQ4_XS : Block256Type {
    static constexpr Type kType = Type::IQ4_XS;
    static constexpr bool kSigned = true;
    static constexpr int kGroup = 32, kSteps = 1;
    static __m256i scales(const uint8_t* p) {
        // Nibbles of the low parts and bit pairs of the high parts, spread to a lane each.
        const __m128i low = _mm_and_si128(
            _mm_srlv_epi32(_mm_set1_epi32(static_cast<int>(load_u32(p + 4))),
                           _mm_setr_epi32(0, 4, 8, 12)),
            _mm_set1_epi32(15));
        const __m128i low2 = _mm_and_si128(
            _mm_srlv_epi32(_mm_set1_epi32(static_cast<int>(load_u32(p + 4))),
                           _mm_setr_epi32(16, 20, 24, 28)),
            _mm_set1_epi32(15));
        const __m128i bits = _mm_set1_epi32(load_u16(p + 2));
        const __m128i high =
            _mm_and_si128(_mm_srlv_epi32(bits, _mm_setr_epi32(0, 2, 4, 6)), _mm_set1_epi32(3));
        const __m128i high2 =
            _mm_and_si128(_mm_srlv_epi32(bits, _mm_setr_epi32(8, 10, 12, 14)), _mm_set1_epi32(3));
        const __m128i scale =
            _mm_packs_epi32(_mm_or_si128(low, _mm_slli_epi32(high, 4)),
                            _mm_or_si128(low2, _mm_slli_epi32(high2, 4)));
        return _mm256_broadcastsi128_si256(_mm_sub_epi16(scale, _mm_set1_epi16(32)));
    }
    template <int J>
    static __m256i codes(const uint8_t* p) {
        return look_up(kIq4Values, nibbles(p + 8 + J * 16));
    }
};

template <class T>
inline constexpr int kBytes = kTypeLayouts[type_index(static_cast<int>(T::kType))].block_bytes;

// Sums of two neighbouring products, int16.
template <class T>
inline __m256i pair_sums(__m256i codes, __m256i input) {
    if constexpr (T::kSigned) {
        return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(input, codes));
    } else {
        return _mm256_maddubs_epi16(codes, input);
    }
}

// sum + the sums of four neighbouring products, int32.
template <class T>
inline __m256i quad_sums(__m256i sum, __m256i codes, __m256i input) {
    if constexpr (T::kSigned) {
        return add_quads(sum, _mm256_abs_epi8(codes), _mm256_sign_epi8(input, codes));
    } else {
        return add_quads(sum, codes, input);
    }
}

}  // namespace
}  // namespace moestream
