// How AVX2 takes the codebook types apart (IQ1, IQ2, IQ3), the ternary ones (TQ), and those whose
// blocks are several of 32 (NVFP4, Q1_0, Q2_0).
//
// Rows of a grid are looked up by their numbers, 32 codes at a time. What can be made ready for a
// whole super-block is: open() unpacks numbers and signs to memory that lookups read.
#pragma once

#include "core/decode_codebooks.h"
#include "kernels/avx2/types.h"
#include "kernels/loops.h"

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

// A byte of the four at `p` over eight bytes, one after the other.
inline __m256i spread_bytes(const void* p) {
    const __m256i order = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,  //
                                           2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    return _mm256_shuffle_epi8(broadcast32(p), order);
}

// Bytes of `v` with a minus where the bit of the 32 at `signs` is set.
inline __m256i with_signs(const void* signs, __m256i v) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    const __mmask32 minus = load_u32(static_cast<const uint8_t*>(signs));
    return _mm256_mask_sub_epi8(v, minus, _mm256_setzero_si256(), v);
#else
    const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
    const __m256i minus = _mm256_cmpeq_epi8(_mm256_and_si256(spread_bytes(signs), bit), bit);
    return _mm256_sub_epi8(_mm256_xor_si256(v, minus), minus);
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

// Scales 2 s + 1, s being the nibbles of eight bytes.
inline __m256i odd_nibbles(const uint8_t* p) {
    const __m128i v = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i both = _mm_unpacklo_epi8(v, _mm_srli_epi16(v, 4));
    const __m128i nibbles = _mm_and_si128(both, _mm_set1_epi8(15));
    return _mm256_cvtepu8_epi16(
        _mm_or_si128(_mm_add_epi8(nibbles, nibbles), _mm_set1_epi8(1)));
}

// Numbers of rows: bytes, with `high` bits on top of them.
inline void store_rows(const uint8_t* low, __m256i high0, __m256i high1, uint16_t (&to)[32]) {
    const __m256i a = _mm256_or_si256(_mm256_cvtepu8_epi16(load128(low)), high0);
    const __m256i b = _mm256_or_si256(_mm256_cvtepu8_epi16(load128(low + 16)), high1);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), a);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + 16), b);
    keep_in_memory(to);
}

// A super-block made ready: numbers of rows, and a dword of signs for each 32 codes.
struct RowsAndSigns {
    const uint8_t* p;
    alignas(32) uint16_t rows[32];
    alignas(32) uint32_t signs[8];
};

struct Signs {
    const uint8_t* p;
    __m256i rest;  // dwords of four times seven signs and a scale
    alignas(32) uint32_t signs[8];
};

inline void open_signs(__m256i rest, Signs* to) {
    to->rest = rest;
    _mm256_store_si256(reinterpret_cast<__m256i*>(to->signs), even_signs32(spread_sevens(rest)));
}

inline __m256i scales_on_top(__m256i rest) {
    return eight_scales(_mm256_or_si256(_mm256_srli_epi32(rest, 27), _mm256_set1_epi32(1)));
}

// What a type with signs apart has beyond scales(): magnitudes<J>() and signs<J>(), which is where
// its 32 bits lie.
template <class Self, Type T>
struct SignedRows : Avx2Format<T> {
    template <int J>
    static __m256i codes(const auto& block) {
        return with_signs(Self::template signs<J>(block), Self::template magnitudes<J>(block));
    }
};

// A type that has a scale above the signs of each 32 weights.
template <class Self, Type T>
struct SignsBelowScales : SignedRows<Self, T> {
    static __m256i scales(const Signs& block) { return scales_on_top(block.rest); }
    template <int J>
    static const void* signs(const Signs& block) {
        return block.signs + J;
    }
};

template <>
struct Blocks<Type::IQ2_XXS> : SignsBelowScales<Blocks<Type::IQ2_XXS>, Type::IQ2_XXS> {
    static Signs open(const uint8_t* p) {
        Signs to{p, {}, {}};
        const __m256 a = _mm256_castsi256_ps(load256(p + 2));
        const __m256 b = _mm256_castsi256_ps(load256(p + 34));
        const __m256i odd = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
        open_signs(_mm256_permute4x64_epi64(odd, 0xd8), &to);
        return to;
    }
    template <int J>
    static __m256i magnitudes(const Signs& block) {
        return rows_of_eight(kIq2xxsGrid.data(), block.p + 2 + J * 8);
    }
};

template <>
struct Blocks<Type::IQ3_XXS> : SignsBelowScales<Blocks<Type::IQ3_XXS>, Type::IQ3_XXS> {
    static Signs open(const uint8_t* p) {
        Signs to{p, {}, {}};
        open_signs(load256(p + 66), &to);
        return to;
    }
    template <int J>
    static __m256i magnitudes(const Signs& block) {
        const auto* rows = reinterpret_cast<const __m128i*>(block.p + 2 + J * 8);
        return rows_of_four(kIq3xxsGrid.data(), _mm256_cvtepu8_epi32(_mm_loadl_epi64(rows)));
    }
};

template <>
struct Blocks<Type::IQ2_XS> : SignedRows<Blocks<Type::IQ2_XS>, Type::IQ2_XS> {
    static RowsAndSigns open(const uint8_t* p) {
        RowsAndSigns to;
        to.p = p;
        const __m256i a = load256(p + 2), b = load256(p + 34), rows = _mm256_set1_epi16(511);
        _mm256_store_si256(reinterpret_cast<__m256i*>(to.rows), _mm256_and_si256(a, rows));
        _mm256_store_si256(reinterpret_cast<__m256i*>(to.rows + 16), _mm256_and_si256(b, rows));
        const __m256i both =
            _mm256_packus_epi16(_mm256_srli_epi16(a, 9), _mm256_srli_epi16(b, 9));
        _mm256_store_si256(reinterpret_cast<__m256i*>(to.signs),
                           even_signs32(_mm256_permute4x64_epi64(both, 0xd8)));
        keep_in_memory(to.rows);
        keep_in_memory(to.signs);
        return to;
    }
    static __m256i scales(const RowsAndSigns& block) { return odd_nibbles(block.p + 66); }
    template <int J>
    static __m256i magnitudes(const RowsAndSigns& block) {
        return rows_of_eight(kIq2xsGrid.data(), block.rows + J * 4);
    }
    template <int J>
    static const void* signs(const RowsAndSigns& block) {
        return block.signs + J;
    }
};

// A super-block whose numbers of rows are made ready.
struct Rows {
    const uint8_t* p;
    alignas(32) uint16_t rows[32];
};

template <>
struct Blocks<Type::IQ2_S> : SignedRows<Blocks<Type::IQ2_S>, Type::IQ2_S> {
    static Rows open(const uint8_t* p) {
        Rows to;
        to.p = p;
        uint64_t bits;
        std::memcpy(&bits, p + 66, 8);
        const __m256i all = _mm256_set1_epi64x(static_cast<long long>(bits));
        const __m256i order =
            _mm256_setr_epi8(0, -1, 0, -1, 0, -1, 0, -1, 1, -1, 1, -1, 1, -1, 1, -1,  //
                             2, -1, 2, -1, 2, -1, 2, -1, 3, -1, 3, -1, 3, -1, 3, -1);
        const __m256i four = _mm256_set1_epi16(4), move = _mm256_set1_epi64x(0x0004001000400100);
        const auto high = [&](__m256i from) {
            const __m256i pairs = _mm256_shuffle_epi8(all, from);
            return _mm256_and_si256(_mm256_mullo_epi16(pairs, move), _mm256_set1_epi16(0x300));
        };
        store_rows(p + 2, high(order), high(_mm256_add_epi16(order, four)), to.rows);
        return to;
    }
    static __m256i scales(const Rows& block) { return odd_nibbles(block.p + 74); }
    template <int J>
    static __m256i magnitudes(const Rows& block) {
        return rows_of_eight(kIq2sGrid.data(), block.rows + J * 4);
    }
    template <int J>
    static const void* signs(const Rows& block) {
        return block.p + 34 + J * 4;
    }
};

template <>
struct Blocks<Type::IQ3_S> : SignedRows<Blocks<Type::IQ3_S>, Type::IQ3_S> {
    static __m256i scales(const uint8_t* p) {
        const __m256i all = _mm256_set1_epi32(static_cast<int>(load_u32(p + 106)));
        const __m256i s = _mm256_and_si256(
            _mm256_srlv_epi32(all, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)),
            _mm256_set1_epi32(15));
        return eight_scales(_mm256_or_si256(_mm256_add_epi32(s, s), _mm256_set1_epi32(1)));
    }
    template <int J>
    static __m256i magnitudes(const uint8_t* p) {
        const auto* rows = reinterpret_cast<const __m128i*>(p + 2 + J * 8);
        const __m256i low = _mm256_cvtepu8_epi32(_mm_loadl_epi64(rows));
        const __m256i bits = _mm256_sllv_epi32(_mm256_set1_epi32(p[66 + J]),
                                               _mm256_setr_epi32(8, 7, 6, 5, 4, 3, 2, 1));
        const __m256i high = _mm256_and_si256(bits, _mm256_set1_epi32(256));
        return rows_of_four(kIq3sGrid.data(), _mm256_or_si256(low, high));
    }
    template <int J>
    static const void* signs(const uint8_t* p) {
        return p + 74 + J * 4;
    }
};

template <>
struct Blocks<Type::IQ1_S> : Avx2Format<Type::IQ1_S> {
    // A group's shift is taken off by way of its input's sum, together with the offset.
    static constexpr int kOffset = 1;
    struct Opened {
        Rows rows;
        __m128i words;
    };
    static Opened open(const uint8_t* p) {
        Opened to;
        to.rows.p = p;
        to.words = load128(p + 34);
        const __m256i all = _mm256_broadcastsi128_si256(to.words);
        const __m256i order = _mm256_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3,  //
                                               4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7);
        const __m256i move = _mm256_set1_epi64x(0x0001000800400200);
        const auto high = [&](__m256i from) {
            const __m256i words = _mm256_mullo_epi16(_mm256_shuffle_epi8(all, from), move);
            return _mm256_and_si256(_mm256_srli_epi16(words, 1), _mm256_set1_epi16(0x700));
        };
        store_rows(p + 2, high(order), high(_mm256_add_epi8(order, _mm256_set1_epi8(8))),
                   to.rows.rows);
        return to;
    }
    static __m256i scales(const Opened& block) {
        const __m128i twice = _mm_and_si128(_mm_srli_epi16(block.words, 11), _mm_set1_epi16(14));
        return _mm256_broadcastsi128_si256(_mm_or_si128(twice, _mm_set1_epi16(1)));
    }
    // 16 less the shift, which is -1 where a word's top bit is set, else 1, times the scale.
    static __m256i weights(const Opened& block, __m256i scales) {
        const __m256i minus = _mm256_srai_epi16(_mm256_broadcastsi128_si256(block.words), 15);
        const __m256i shift = _mm256_or_si256(minus, _mm256_set1_epi16(1));
        return _mm256_sub_epi16(_mm256_slli_epi16(scales, 4), _mm256_sign_epi16(scales, shift));
    }
    template <int J>
    static __m256i codes(const Opened& block) {
        return rows_of_eight(kIq1Grid.data(), block.rows.rows + J * 4);
    }
};

template <>
struct Blocks<Type::IQ1_M> : Avx2Format<Type::IQ1_M> {
    // Shifts are 2 less or nothing, and the offset 15, by way of the inputs' sums.
    static constexpr int kOffset = 1;
    static __m256i weights(const auto&, __m256i scales) {
        return _mm256_sub_epi16(_mm256_slli_epi16(scales, 4), scales);
    }
    static uint16_t half_bits(const uint8_t* p) { return iq1m_d(p); }
    static RowsAndSigns open(const uint8_t* p) {
        RowsAndSigns to;
        to.p = p;
        const __m128i nibbles = load128(p + 32), low = _mm_set1_epi8(15);
        const __m128i even = _mm_and_si128(nibbles, low);
        const __m128i odd = _mm_and_si128(_mm_srli_epi16(nibbles, 4), low);
        const __m128i a = _mm_unpacklo_epi8(even, odd), b = _mm_unpackhi_epi8(even, odd);
        const auto high = [](__m128i v) {
            return _mm256_slli_epi16(
                _mm256_cvtepu8_epi16(_mm_and_si128(v, _mm_set1_epi8(7))), 8);
        };
        store_rows(p, high(a), high(b), to.rows);
        // Shifts take the signs' place, eight bits for eight codes: set for nibbles above 7.
        const __m256i all = _mm256_set_m128i(b, a);
        _mm256_store_si256(reinterpret_cast<__m256i*>(to.signs),
                           _mm256_cmpgt_epi8(all, _mm256_set1_epi8(7)));
        keep_in_memory(to.signs);
        return to;
    }
    static __m256i scales(const RowsAndSigns& block) {
        uint64_t words;
        std::memcpy(&words, block.p + 48, 8);
        const __m256i all = _mm256_set1_epi64x(static_cast<long long>(words));
        const __m256i order = _mm256_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3,  //
                                               4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7);
        // The three bits of each to bits 10 to 12.
        const __m256i move = _mm256_set1_epi64x(0x0002001000800400);
        const __m256i moved = _mm256_mullo_epi16(_mm256_shuffle_epi8(all, order), move);
        const __m256i twice =
            _mm256_and_si256(_mm256_srli_epi16(moved, 9), _mm256_set1_epi16(14));
        return _mm256_or_si256(twice, _mm256_set1_epi16(1));
    }
    template <int J>
    static __m256i codes(const RowsAndSigns& block) {
        const __m256i rows = rows_of_eight(kIq1Grid.data(), block.rows + J * 4);
        const __m256i two = _mm256_set1_epi8(2);
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        return _mm256_mask_sub_epi8(rows, block.signs[J], rows, two);
#else
        const __m256i minus = spread_bytes(block.signs + J);
        return _mm256_add_epi8(rows, _mm256_add_epi8(minus, minus));
#endif
    }
};

template <>
struct Blocks<Type::NVFP4> : Avx2Format<Type::NVFP4> {
    template <int J>
    static __m256i codes(const uint8_t* p) {
        const __m256i bytes = _mm256_castsi128_si256(load128(p + 4 + J * 16));
        const __m256i twice = _mm256_permute4x64_epi64(bytes, 0x50);
        const __m256i moved = _mm256_srlv_epi64(twice, _mm256_setr_epi64x(0, 4, 0, 4));
        return look_up(kMxfp4Values, _mm256_and_si256(moved, _mm256_set1_epi8(15)));
    }
};

template <>
struct Blocks<Type::Q1_0> : Avx2Format<Type::Q1_0> {
    template <int J>
    static __m256i codes(const uint8_t* p) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        return _mm256_maskz_mov_epi8(load_u32(p + 2 + J * 4), _mm256_set1_epi8(2));
#else
        return _mm256_srli_epi16(fifth_bits(p + 2 + J * 4), 3);  // which are 16
#endif
    }
};

template <>
struct Blocks<Type::Q2_0> : Avx2Format<Type::Q2_0> {
    template <int J>
    static __m256i codes(const uint8_t* p) {
        uint64_t bytes;
        std::memcpy(&bytes, p + 2 + J * 8, 8);
        const __m256i order = _mm256_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3,  //
                                               4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7);
        const __m256i v =
            _mm256_shuffle_epi8(_mm256_set1_epi64x(static_cast<long long>(bytes)), order);
        // The upper two of four codes down to a nibble, where a table moves the odd ones down.
        const __m256i nibbles = _mm256_blend_epi16(v, _mm256_srli_epi16(v, 4), 0xaa);
        const __m256i own = _mm256_and_si256(nibbles, _mm256_set1_epi16(0x0c03));
        const __m256i table = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(0, 1, 2, 3, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0));
        return _mm256_shuffle_epi8(table, own);
    }
};

// Scales of a type that has none.
template <Type T>
struct Ones : Avx2Format<T> {
    static constexpr bool kPlain = true;
    static __m256i scales(const uint8_t*) { return _mm256_set1_epi16(1); }
};

template <>
struct Blocks<Type::TQ2_0> : Ones<Type::TQ2_0> {
    template <int J>
    static __m256i codes(const uint8_t* p) {
        return _mm256_and_si256(_mm256_srli_epi16(load256(p + J / 4 * 32), J % 4 * 2),
                                _mm256_set1_epi8(3));
    }
};

// Bytes that hold 256ths of five trits, times 1, 3, 9, 27 and 81: the upper bits are lost.
struct Trits {
    __m256i v[8];
};

inline __m256i thrice(__m256i v) { return _mm256_add_epi8(v, _mm256_add_epi8(v, v)); }
inline __m128i thrice(__m128i v) { return _mm_add_epi8(v, _mm_add_epi8(v, v)); }

template <>
struct Blocks<Type::TQ1_0> : Ones<Type::TQ1_0> {
    static Trits open(const uint8_t* p) {
        Trits to;
        to.v[0] = load256(p);
        for (int j = 1; j < 5; ++j) to.v[j] = thrice(to.v[j - 1]);
        const __m128i a = load128(p + 32), b = thrice(a), c = thrice(b), d = thrice(c);
        to.v[5] = _mm256_set_m128i(b, a);
        to.v[6] = _mm256_set_m128i(d, c);
        // Four bytes with four trits each.
        const __m128i once = _mm_set1_epi32(static_cast<int>(load_u32(p + 48)));
        const __m128i by3 = _mm_blend_epi32(once, thrice(once), 0b1010);
        const __m128i by9 = thrice(thrice(by3));
        to.v[7] = _mm256_set_m128i(_mm_blend_epi32(by3, by9, 0b1100), thrice(d));
        return to;
    }
    static __m256i scales(const Trits&) { return _mm256_set1_epi16(1); }
    // 0 below 86, 2 from 171 on.
    template <int J>
    static __m256i codes(const Trits& block) {
        const auto over = [&](char most) {
            const __m256i above = _mm256_subs_epu8(block.v[J], _mm256_set1_epi8(most));
            return _mm256_min_epu8(above, _mm256_set1_epi8(1));
        };
        return _mm256_add_epi8(over(85), over(static_cast<char>(170)));
    }
    // A trit is what threefold loses at the top: 256 trit = 3 v - v', v' being what it keeps.
    static __m256i lanes(const Trits& block, const int8_t* q) {
        __m256i all = _mm256_setzero_si256(), kept = _mm256_setzero_si256();
        unroll<8>([&](auto j) {
            const __m256i input = load256(q + j * 32);
            all = add_quads(all, block.v[j], input);
            kept = add_quads(kept, j < 4 ? block.v[(j + 1) % 8] : thrice(block.v[j]), input);
        });
        const __m256i three = _mm256_add_epi32(all, _mm256_add_epi32(all, all));
        return _mm256_srai_epi32(_mm256_sub_epi32(three, kept), 8);
    }
};

}  // namespace
}  // namespace moestream
