// How AVX2 takes each block type apart: codes as bytes, 32 at a time, and small-integer scales.
//
// Signed codes go through |code| * sign(input, code).
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/avx2/registers.h"
#include "kernels/format.h"

namespace moestream {
namespace {

inline __m256i nibbles(const uint8_t* p) {
    const __m256i both = _mm256_broadcastsi128_si256(load128(p));
    const __m256i shifted = _mm256_srlv_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
    return _mm256_and_si256(shifted, _mm256_set1_epi8(15));
}

// A bit of each of eight bytes.
inline __m256i bit_of_byte() {
    return _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
}

// In each byte its own of the 32 bits at `p`, where it stands.
inline __m256i own_bits(const uint8_t* p) {
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,  //
                                            2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    return _mm256_and_si256(_mm256_shuffle_epi8(broadcast32(p), spread), bit_of_byte());
}

// `value` in each byte whose bit, of the 32 at `p`, is set.
inline __m256i where_set(const uint8_t* p, char value) {
    const __m256i set = _mm256_cmpeq_epi8(own_bits(p), bit_of_byte());
    return _mm256_and_si256(set, _mm256_set1_epi8(value));
}

inline __m256i look_up(const int8_t* table, __m256i codes) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load128(table)), codes);
}

// How many pair sums of codes up to `largest` with int8 input fit in int16 on top of one another: a
// power of two, at most 8.
constexpr int steps_of(int largest) {
    return std::min(8, static_cast<int>(std::bit_floor(32767u / (2 * 127 * largest))));
}

template <Type T>
struct Avx2Format : Format<T> {
    static constexpr int kSteps = steps_of(Format<T>::kLayout.largest);
    // Whether opening takes so long that it is done ahead of the products.
    static constexpr bool kAhead = false;
    // Whether scales are put in memory ahead of them: broadcast from there, they take no shuffle.
    static constexpr bool kScalesAhead = Format<T>::kGroup == 32;
    // Whether sums of four products fit fold8_small.
    static constexpr bool kSmall = 4 * 127 * Format<T>::kLayout.largest <= 16383;
};

// The trait of a type. Of a 32-value type: codes() of a block, or codes<J>() of the J-th 32 of a
// larger one. Of a 256-value type: codes<J>() of the J-th 32, and scales() and mins() as int16, 16
// of them, one for each 16 codes in order, or, if a group is 32, one for each 32 in the low half
// and the same again in the high half. They are given what open() made of the block, which is the
// block itself if a type has no open(). For one token or a few, a type may have these as well:
// halves<J>() of codes that are all even; fourfold<J>(), codes that are four times as large if J is
// odd.
template <Type T>
struct Blocks;

// Super-blocks of eight rows, opened one by one as they are asked for, or, if a type has kAhead,
// all before the first is.
template <class T>
class OpenedOneByOne {
  public:
    OpenedOneByOne(const uint8_t* const* rows, size_t at) : rows_(rows), at_(at) {}
    auto operator[](int r) const { return T::open(rows_[r] + at_); }

  private:
    const uint8_t* const* rows_;
    size_t at_;
};

// A processor sees the work of two rows or three: lookups, whose numbers come by way of memory,
// would wait for them and leave nothing to do.
template <class T>
class OpenedAhead {
  public:
    OpenedAhead(const uint8_t* const* rows, size_t at)
        : opened_{T::open(rows[0] + at), T::open(rows[1] + at), T::open(rows[2] + at),
                  T::open(rows[3] + at), T::open(rows[4] + at), T::open(rows[5] + at),
                  T::open(rows[6] + at), T::open(rows[7] + at)} {}
    const auto& operator[](int r) const { return opened_[r]; }

  private:
    decltype(T::open(nullptr)) opened_[8];
};

template <class T>
using Opened = std::conditional_t<T::kAhead, OpenedAhead<T>, OpenedOneByOne<T>>;

template <>
struct Blocks<Type::Q8_0> : Avx2Format<Type::Q8_0> {
    static __m256i codes(const uint8_t* p) { return load256(p + 2); }
};

template <>
struct Blocks<Type::Q4_0> : Avx2Format<Type::Q4_0> {
    static __m256i codes(const uint8_t* p) { return nibbles(p + 2); }
};

template <>
struct Blocks<Type::Q4_1> : Avx2Format<Type::Q4_1> {
    static __m256i codes(const uint8_t* p) { return nibbles(p + 4); }
};

template <>
struct Blocks<Type::Q5_0> : Avx2Format<Type::Q5_0> {
    static __m256i codes(const uint8_t* p) {
        return _mm256_or_si256(nibbles(p + 6), where_set(p + 2, 16));
    }
};

template <>
struct Blocks<Type::Q5_1> : Avx2Format<Type::Q5_1> {
    static __m256i codes(const uint8_t* p) {
        return _mm256_or_si256(nibbles(p + 8), where_set(p + 4, 16));
    }
};

template <>
struct Blocks<Type::IQ4_NL> : Avx2Format<Type::IQ4_NL> {
    static __m256i codes(const uint8_t* p) { return look_up(kIq4Values, nibbles(p + 2)); }
};

template <>
struct Blocks<Type::MXFP4> : Avx2Format<Type::MXFP4> {
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

// ue4m3_half_to_float of byte `which` of eight dwords.
inline __m256 ue4m3_halves8(__m256i four, int which) {
    const __m256i e = _mm256_and_si256(_mm256_srli_epi32(four, 8 * which), _mm256_set1_epi32(255));
    const __m256i bits = _mm256_slli_epi32(_mm256_and_si256(e, _mm256_set1_epi32(127)), 20);
    const __m256 value = _mm256_mul_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(0x1p119f));
    const __m256i zero = _mm256_cmpeq_epi32(e, _mm256_set1_epi32(127));
    return _mm256_andnot_ps(_mm256_castsi256_ps(zero), value);
}

// d of a block in eight rows (its `which`-th), and m where there is one.
template <class T>
inline void load_floats8(const uint8_t* const* rows, size_t block, int which, __m256* d,
                         __m256* m) {
    const size_t at = block + T::kDAt;
    if constexpr (T::kHasMin) {
        load_half_pairs8(rows, at, d, m);
    } else if constexpr (T::kType == Type::NVFP4) {
        const auto four = [&](int r) { return static_cast<int>(load_u32(rows[r] + at)); };
        *d = ue4m3_halves8(_mm256_setr_epi32(four(0), four(1), four(2), four(3), four(4), four(5),
                                             four(6), four(7)),
                           which);
    } else if constexpr (T::kType == Type::MXFP4) {
        const auto exponent = [&](int r) { return static_cast<int>(rows[r][at]); };
        *d = e8m0_halves8(_mm256_setr_epi32(exponent(0), exponent(1), exponent(2), exponent(3),
                                            exponent(4), exponent(5), exponent(6), exponent(7)));
    } else {
        const auto bits = [&](int r) { return static_cast<short>(T::half_bits(rows[r] + block)); };
        *d = _mm256_cvtph_ps(
            _mm_setr_epi16(bits(0), bits(1), bits(2), bits(3), bits(4), bits(5), bits(6), bits(7)));
        if constexpr (T::kDTimes != 1.0f) *d = _mm256_mul_ps(*d, _mm256_set1_ps(T::kDTimes));
    }
}

// What the sums of groups are multiplied by: minimums, or the scales, for an offset, unless a type
// has weights of its own.
template <class T>
inline __m256i weights_of_sums(const auto& block, __m256i scales) {
    if constexpr (T::kHasMin) {
        return T::mins(block);
    } else if constexpr (requires { T::weights(block, scales); }) {
        return T::weights(block, scales);
    } else {
        return scales;
    }
}

// Codes of part J of a block of a 32-value type.
template <class T, int J>
inline __m256i codes_of_part(const uint8_t* p) {
    if constexpr (T::kParts == 1) {
        return T::codes(p);
    } else {
        return T::template codes<J>(p);
    }
}

// Sums of two neighbouring products, int16.
template <bool Signed>
inline __m256i pair_sums(__m256i codes, __m256i input) {
    if constexpr (Signed) {
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
