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

// Numbers that were just stored are had faster by one load than by four.
inline __m256i rows_of_eight(const uint64_t* grid, const uint16_t* row) {
    uint64_t four;
    std::memcpy(&four, row, 8);
    return rows_of_eight(grid, four & 0xffff, four >> 16 & 0xffff, four >> 32 & 0xffff, four >> 48);
}

inline __m256i rows_of_four(const uint32_t* grid, __m256i rows) {
    return _mm256_i32gather_epi32(reinterpret_cast<const int*>(grid), rows, 4);
}

// Memory that lookups read: left to itself, GCC would take the numbers out of registers one by one,
// which takes longer than the lookups.
inline void keep_in_memory(auto& values) { asm("" : "+m"(values)); }

// Bytes 4 K to 4 K + 3 of each half, over eight bytes each: two in the low half, two in the high one.
template <int K = 0>
inline __m256i spread_bytes(__m256i v) {
    constexpr int kAll = 0x01010101;
    const auto order = [](int byte) { return (4 * K + byte) * kAll; };
    return _mm256_shuffle_epi8(
        v, _mm256_setr_epi32(order(0), order(0), order(1), order(1), order(2), order(2), order(3),
                             order(3)));
}

// Bytes of `v` with a minus where the bit of the 32 at `signs`, or of bytes that are spread, is set.
inline __m256i with_signs(__m256i spread, __m256i v) {
    const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    const __mmask32 minus = _mm256_test_epi8_mask(spread, bit);
    return _mm256_mask_sub_epi8(v, minus, _mm256_setzero_si256(), v);
#else
    const __m256i minus = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
    return _mm256_sub_epi8(_mm256_xor_si256(v, minus), minus);
#endif
}

inline __m256i with_signs(const void* signs, __m256i v) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    const __mmask32 minus = load_u32(static_cast<const uint8_t*>(signs));
    return _mm256_mask_sub_epi8(v, minus, _mm256_setzero_si256(), v);
#else
    return with_signs(spread_bytes(broadcast32(signs)), v);
#endif
}

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
