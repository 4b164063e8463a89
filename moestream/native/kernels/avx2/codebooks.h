// How AVX2 takes the codebook types apart (IQ1, IQ2, IQ3).
//
// Rows of a grid are looked up by their numbers. What can be made ready for a whole super-block is:
// open() unpacks numbers and signs to memory that lookups read.
#pragma once

#include "kernels/avx2/grid_rows.h"

namespace moestream {
namespace {

// A super-block whose numbers of rows are made ready.
struct Rows {
    const uint8_t* p;
    alignas(32) uint16_t rows[32];
};

template <class S>
struct RowsAndSigns : Rows {
    S signs;
};

// Numbers of rows as they lie in the file; dwords of four times seven signs and a scale.
struct SignsAndScales {
    const uint8_t* p;
    __m256i rest;
    Signs signs;
};

inline SignsAndScales open_signs(const uint8_t* p, __m256i rest) {
    return {p, rest, signs_of(even_signs32(spread_sevens(rest)))};
}

inline __m256i scales_on_top(__m256i rest) {
    return eight_scales(_mm256_or_si256(_mm256_srli_epi32(rest, 27), _mm256_set1_epi32(1)));
}

// What a type with signs apart has beyond scales(): magnitudes<J>(), and signs in what it opens.
template <class Self, Type T>
struct SignedRows : Avx2Format<T> {
    static constexpr bool kScalesAhead = false;  // lookups alone keep the loads busy
    template <int J>
    static __m256i codes(const auto& block) {
        return with_signs(block.signs.template of<J>(), Self::template magnitudes<J>(block));
    }
};

// A type whose numbers of rows of eight are made ready.
template <class Self, Type T, const auto& kGrid>
struct ReadyRows : SignedRows<Self, T> {
    static constexpr bool kAhead = true;
    static __m256i scales(const auto& block) { return join_even_odd(Self::split_scales(block)); }
    template <int J>
    static __m256i magnitudes(const Rows& block) {
        return rows_of_eight(kGrid.data(), block.rows + J * 4);
    }
};

// A type that has a scale above the signs of each 32 weights.
template <class Self, Type T>
struct SignsBelowScales : SignedRows<Self, T> {
    static __m256i scales(const SignsAndScales& block) { return scales_on_top(block.rest); }
};

template <>
struct Blocks<Type::IQ2_XXS> : SignsBelowScales<Blocks<Type::IQ2_XXS>, Type::IQ2_XXS> {
    static constexpr bool kAhead = true, kScalesAhead = !kMasks;
    static SignsAndScales open(const uint8_t* p) {
        const __m256 a = _mm256_castsi256_ps(load256(p + 2));
        const __m256 b = _mm256_castsi256_ps(load256(p + 34));
        const __m256i odd = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
        return open_signs(p, _mm256_permute4x64_epi64(odd, 0xd8));
    }
    template <int J>
    static __m256i magnitudes(const SignsAndScales& block) {
        return rows_of_eight(kIq2xxsGrid.data(), block.p + 2 + J * 8);
    }
};

template <>
struct Blocks<Type::IQ3_XXS> : SignsBelowScales<Blocks<Type::IQ3_XXS>, Type::IQ3_XXS> {
    static SignsAndScales open(const uint8_t* p) { return open_signs(p, load256(p + 66)); }
    template <int J>
    static __m256i magnitudes(const SignsAndScales& block) {
        const auto* rows = reinterpret_cast<const __m128i*>(block.p + 2 + J * 8);
        return rows_of_four(kIq3xxsGrid.data(), _mm256_cvtepu8_epi32(_mm_loadl_epi64(rows)));
    }
};

template <>
struct Blocks<Type::IQ2_XS> : ReadyRows<Blocks<Type::IQ2_XS>, Type::IQ2_XS, kIq2xsGrid> {
    static RowsAndSigns<Signs> open(const uint8_t* p) {
        const __m256i a = load256(p + 2), b = load256(p + 34), rows = _mm256_set1_epi16(511);
        const __m256i both =
            _mm256_packus_epi16(_mm256_srli_epi16(a, 9), _mm256_srli_epi16(b, 9));
        RowsAndSigns<Signs> to;
        to.p = p;
        to.signs = signs_of(even_signs32(_mm256_permute4x64_epi64(both, 0xd8)));
        store_rows(_mm256_and_si256(a, rows), _mm256_and_si256(b, rows), to.rows);
        return to;
    }
    static __m256i split_scales(const Rows& block) { return odd_nibbles(block.p + 66); }
};

template <>
struct Blocks<Type::IQ2_S> : ReadyRows<Blocks<Type::IQ2_S>, Type::IQ2_S, kIq2sGrid> {
    static RowsAndSigns<StoredSigns> open(const uint8_t* p) {
        RowsAndSigns<StoredSigns> to;
        to.p = p;
        to.signs = stored_signs(p + 34);
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
    static __m256i split_scales(const Rows& block) { return odd_nibbles(block.p + 74); }
};

template <>
struct Blocks<Type::IQ3_S> : SignedRows<Blocks<Type::IQ3_S>, Type::IQ3_S> {
    struct Made {
        const uint8_t* p;
        StoredSigns signs;
    };
    static Made open(const uint8_t* p) { return {p, stored_signs(p + 74)}; }
    static __m256i scales(const Made& block) {
        const __m256i all = _mm256_set1_epi32(static_cast<int>(load_u32(block.p + 106)));
        const __m256i s = _mm256_and_si256(
            _mm256_srlv_epi32(all, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)),
            _mm256_set1_epi32(15));
        return eight_scales(_mm256_or_si256(_mm256_add_epi32(s, s), _mm256_set1_epi32(1)));
    }
    template <int J>
    static __m256i magnitudes(const Made& block) {
        const auto* rows = reinterpret_cast<const __m128i*>(block.p + 2 + J * 8);
        const __m256i low = _mm256_cvtepu8_epi32(_mm_loadl_epi64(rows));
        const __m256i bits = _mm256_sllv_epi32(_mm256_set1_epi32(block.p[66 + J]),
                                               _mm256_setr_epi32(8, 7, 6, 5, 4, 3, 2, 1));
        const __m256i high = _mm256_and_si256(bits, _mm256_set1_epi32(256));
        return rows_of_four(kIq3sGrid.data(), _mm256_or_si256(low, high));
    }
};

template <>
struct Blocks<Type::IQ1_S> : Avx2Format<Type::IQ1_S> {
    static constexpr bool kAhead = true, kScalesAhead = false;
    // A group's shift is taken off by way of its input's sum, together with the offset.
    static constexpr int kOffset = 1;
    struct Made {
        Rows rows;
        __m128i words;
    };
    static Made open(const uint8_t* p) {
        Made to;
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
    static __m256i scales(const Made& block) {
        const __m128i twice = _mm_and_si128(_mm_srli_epi16(block.words, 11), _mm_set1_epi16(14));
        return _mm256_broadcastsi128_si256(_mm_or_si128(twice, _mm_set1_epi16(1)));
    }
    // 16 less the shift, which is -1 where a word's top bit is set, else 1, times the scale.
    static __m256i weights(const Made& block, __m256i scales) {
        const __m256i minus = _mm256_srai_epi16(_mm256_broadcastsi128_si256(block.words), 15);
        const __m256i shift = _mm256_or_si256(minus, _mm256_set1_epi16(1));
        return _mm256_sub_epi16(_mm256_slli_epi16(scales, 4), _mm256_sign_epi16(scales, shift));
    }
    template <int J>
    static __m256i codes(const Made& block) {
        return rows_of_eight(kIq1Grid.data(), block.rows.rows + J * 4);
    }
};

template <>
struct Blocks<Type::IQ1_M> : Avx2Format<Type::IQ1_M> {
    static constexpr bool kAhead = true;
    static uint16_t half_bits(const uint8_t* p) { return iq1m_d(p); }
    static Rows open(const uint8_t* p) {
        Rows to;
        to.p = p;
        const __m128i nibbles = load128(p + 32), low = _mm_set1_epi8(15);
        const __m128i even = _mm_and_si128(nibbles, low);
        const __m128i odd = _mm_and_si128(_mm_srli_epi16(nibbles, 4), low);
        const auto high = [](__m128i v) { return _mm256_slli_epi16(_mm256_cvtepu8_epi16(v), 8); };
        const __m128i a = _mm_unpacklo_epi8(even, odd), b = _mm_unpackhi_epi8(even, odd);
        store_rows(p, high(a), high(b), to.rows);
        return to;
    }
    static __m256i scales(const Rows& block) { return join_even_odd(split_scales(block)); }
    static __m256i split_scales(const Rows& block) {
        uint64_t words;
        std::memcpy(&words, block.p + 48, 8);
        const __m256i all = _mm256_set1_epi64x(static_cast<long long>(words));
        const __m256i order = _mm256_setr_epi8(0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7,  //
                                               0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7);
        // The three bits of each to bits 10 to 12.
        const int even = 0x00100400, odd = 0x00020080;
        const __m256i move = _mm256_setr_epi32(even, even, even, even, odd, odd, odd, odd);
        const __m256i moved = _mm256_mullo_epi16(_mm256_shuffle_epi8(all, order), move);
        const __m256i twice =
            _mm256_and_si256(_mm256_srli_epi16(moved, 9), _mm256_set1_epi16(14));
        return _mm256_or_si256(twice, _mm256_set1_epi16(1));
    }
    template <int J>
    static __m256i codes(const Rows& block) {
        return rows_of_eight(kIq1ShiftedGrid.data(), block.rows + J * 4);
    }
};

}  // namespace
}  // namespace moestream
