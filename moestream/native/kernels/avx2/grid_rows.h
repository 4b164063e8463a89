// How AVX2 looks up rows of a grid, 32 codes at a time, and gives them their signs and scales.
#pragma once

#include "core/decode_codebooks.h"
#include "kernels/avx2/types.h"

namespace moestream {
namespace {

// Four rows of eight bytes, one after the other.
inline __m256i rows_of_eight(const uint64_t* grid, uint64_t a, uint64_t b, uint64_t c,
                             uint64_t d) {
    const auto at = [&](uint64_t i) { return static_cast<long long>(grid[i]); };
#if defined(__AVX512VL__)
    // A row broadcast over the rest takes a load and any unit; a shuffle has but one.
    __m256i v = _mm256_castsi128_si256(_mm_cvtsi64_si128(at(a)));
    v = _mm256_mask_set1_epi64(v, 2, at(b));
    v = _mm256_mask_set1_epi64(v, 4, at(c));
    return _mm256_mask_set1_epi64(v, 8, at(d));
#else
    return _mm256_setr_epi64x(at(a), at(b), at(c), at(d));
#endif
}

inline __m256i rows_of_eight(const uint64_t* grid, const uint8_t* row) {
    return rows_of_eight(grid, row[0], row[1], row[2], row[3]);
}

inline __m256i rows_of_eight(const uint64_t* grid, const uint16_t* row) {
    return rows_of_eight(grid, row[0], row[1], row[2], row[3]);
}

inline __m256i rows_of_four(const uint32_t* grid, __m256i rows) {
    return _mm256_i32gather_epi32(reinterpret_cast<const int*>(grid), rows, 4);
}

// Memory that lookups read: left to itself, GCC would take the numbers out of registers one by one,
// which takes longer than the lookups.
inline void keep_in_memory(auto& values) { asm("" : "+m"(values)); }

// Signs of a super-block, four bytes for each 32 weights: of<J>() is what the J-th 32 are given by
// with_signs(). Those that a file has as they are stand for themselves where masks can be loaded.
#if defined(__AVX512BW__) && defined(__AVX512VL__)
inline __m256i with_signs(__mmask32 minus, __m256i v) {
    return _mm256_mask_sub_epi8(v, minus, _mm256_setzero_si256(), v);
}

struct StoredSigns {
    const uint8_t* p;

    template <int J>
    __mmask32 of() const {
        return load_u32(p + J * 4);
    }
};

inline StoredSigns stored_signs(const uint8_t* p) { return {p}; }

struct Signs {
    __m256i low, high;  // halves of 128 weights, each twice

    template <int J>
    __mmask32 of() const {
        constexpr int kAll = 0x01010101, kFirst = J % 4 * 4;
        const auto order = [](int byte) { return (kFirst + byte) * kAll; };
        const __m256i spread = _mm256_shuffle_epi8(
            J < 4 ? low : high, _mm256_setr_epi32(order(0), order(0), order(1), order(1), order(2),
                                                  order(2), order(3), order(3)));
        return _mm256_test_epi8_mask(spread, bit_of_byte());
    }
};

inline Signs signs_of(__m256i v) {
    return {_mm256_permute2x128_si256(v, v, 0x00), _mm256_permute2x128_si256(v, v, 0x11)};
}
#else
// Bytes of `v` with a minus where `minus` is negative, it being nowhere 0.
inline __m256i with_signs(__m256i minus, __m256i v) { return _mm256_sign_epi8(v, minus); }

// A word for each byte of signs: itself in the upper half, twice itself in the lower, so that one
// shift brings two neighbours to the tops of two bytes. Bits that are in no one's way are set, so
// that none becomes 0. They stay in registers: stored, and loaded again piece by piece, they made
// the product take 1.4 times as long.
struct Signs {
    __m256i low, high;  // of 128 weights: their even pairs of bytes, then their odd pairs

    template <int J>
    __m256i of() const {
        constexpr int kFirst = J % 4 * 4;
        const auto order = [](int word) {
            return ((kFirst + word * 2) * 0x0101 + 0x0100) * 0x0001000100010001;
        };
        const long long first = order(0), second = order(1);
        const __m256i words = _mm256_shuffle_epi8(
            J < 4 ? low : high, _mm256_setr_epi64x(first, second, first, second));
        return _mm256_mullo_epi16(words, _mm256_set1_epi64x(0x0001000400100040));
    }
};
using StoredSigns = Signs;

inline Signs signs_of(__m256i v) {
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    const __m256i pairs = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(v, order), 0xd8);
    const __m256i one = _mm256_set1_epi8(1), once = _mm256_or_si256(pairs, one);
    const __m256i twice = _mm256_or_si256(_mm256_add_epi8(pairs, pairs), one);
    return {_mm256_unpacklo_epi8(twice, once), _mm256_unpackhi_epi8(twice, once)};
}

inline StoredSigns stored_signs(const uint8_t* p) { return signs_of(load256(p)); }
#endif

// even_signs of 32 bytes whose eighth bit is 0.
inline __m256i even_signs32(__m256i seven) {
    const char odd = static_cast<char>(0x80);
    const __m256i parity = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, odd, odd, 0, odd, 0, 0, odd, odd, 0, 0, odd, 0, odd, odd, 0));
    const __m256i half = _mm256_xor_si256(seven, _mm256_srli_epi16(seven, 4));
    const __m256i nibble = _mm256_and_si256(half, _mm256_set1_epi8(15));
    return _mm256_or_si256(seven, _mm256_shuffle_epi8(parity, nibble));
}

// Four times seven bits of each dword, a byte each.
inline __m256i spread_sevens(__m256i v) {
    const auto part = [&](__m256i moved, int mask) {
        return _mm256_and_si256(moved, _mm256_set1_epi32(mask));
    };
    return _mm256_or_si256(
        _mm256_or_si256(part(v, 0x7f), part(_mm256_slli_epi32(v, 1), 0x7f00)),
        _mm256_or_si256(part(_mm256_slli_epi32(v, 2), 0x7f0000),
                        part(_mm256_slli_epi32(v, 3), 0x7f000000)));
}

// Scales of groups of 32: eight dwords as int16, and the same again.
inline __m256i eight_scales(__m256i v) {
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(v, v), 0x88);
}

// Scales 2 s + 1, s being the nibbles of eight bytes: low ones in the low half, high ones in the
// high half.
inline __m256i odd_nibbles(const uint8_t* p) {
    const __m128i v = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    const __m256i twice = _mm256_set_m128i(_mm_srli_epi16(v, 3), _mm_add_epi16(v, v));
    return _mm256_or_si256(_mm256_and_si256(twice, _mm256_set1_epi16(30)), _mm256_set1_epi16(1));
}

// Numbers of 32 rows.
inline void store_rows(__m256i a, __m256i b, uint16_t (&to)[32]) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), a);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + 16), b);
    keep_in_memory(to);
}

// The same of bytes, with `high` bits on top of them.
inline void store_rows(const uint8_t* low, __m256i high0, __m256i high1, uint16_t (&to)[32]) {
    store_rows(_mm256_or_si256(_mm256_cvtepu8_epi16(load128(low)), high0),
               _mm256_or_si256(_mm256_cvtepu8_epi16(load128(low + 16)), high1), to);
}

}  // namespace
}  // namespace moestream
