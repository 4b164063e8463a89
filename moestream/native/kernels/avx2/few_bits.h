// How AVX2 takes the ternary types apart (TQ), and those whose blocks are several of 32 (NVFP4,
// Q1_0, Q2_0).
#pragma once

#include "kernels/avx2/types.h"
#include "kernels/loops.h"

namespace moestream {
namespace {

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
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    template <int J>
    static __m256i codes(const uint8_t* p) {
        return _mm256_maskz_mov_epi8(load_u32(p + 2 + J * 4), _mm256_set1_epi8(2));
    }
#else
    template <int J>
    static __m256i codes(const uint8_t* p) {
        return where_set(p + 2 + J * 4, 2);
    }
    template <int J>
    static __m256i halves(const uint8_t* p) {
        return _mm256_min_epu8(own_bits(p + 2 + J * 4), _mm256_set1_epi8(1));
    }
#endif
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
    static __m256i fourfold(const uint8_t* p) {
        return fourfold_twos<J>(p);
    }
    // Codes times a token's inputs, sums of pairs.
    static __m256i pairs(const uint8_t* p, const int8_t* q) {
        __m256i sums[2];
        unroll<8>([&](auto j) {
            const __m256i pairs = _mm256_maddubs_epi16(fourfold<j>(p), load256(q + j * 32));
            sums[j % 2] = j < 2 ? pairs : _mm256_add_epi16(sums[j % 2], pairs);
        });
        return _mm256_add_epi16(sums[0], _mm256_srai_epi16(sums[1], 2));
    }
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
    // Trits of two rows, less one, times a token's inputs: sums of pairs, a row in each half. Two
    // rows fill registers with what is half a register of each.
    static __m256i two_rows(const uint8_t* first, const uint8_t* second, const int8_t* q) {
        const auto whole = [&](int at) { return load256(q + at); };
        const auto half = [&](int at) {
            return _mm256_broadcastsi128_si256(load128(q + 160 + at));
        };
        const __m256i both = _mm256_set_m128i(load128(second + 32), load128(first + 32));
        const __m256i a = five_trits(balanced(load256(first)), 32, whole);
        const __m256i b = five_trits(balanced(load256(second)), 32, whole);
        const __m256i rest = five_trits(balanced(both), 16, half);
        const __m256i last = trit_pairs(four_trits(first + 48, second + 48), half(80));
        const __m256i halves = _mm256_add_epi16(_mm256_permute2x128_si256(a, b, 0x20),
                                                _mm256_permute2x128_si256(a, b, 0x31));
        return _mm256_add_epi16(halves, _mm256_add_epi16(rest, last));
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

  private:
    // As signed bytes, which they stay: thrice 128 is 128.
    static __m256i balanced(__m256i v) { return _mm256_xor_si256(v, _mm256_set1_epi8(-128)); }

    // The trits of balanced bytes less one, times inputs.
    static __m256i trit_pairs(__m256i v, __m256i input) {
        const __m256i minus = _mm256_cmpgt_epi8(_mm256_set1_epi8(-42), v);
        const __m256i plus = _mm256_cmpgt_epi8(v, _mm256_set1_epi8(42));
        const __m256i trit = _mm256_sub_epi8(minus, plus);
        return _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_sign_epi8(input, trit));
    }

    // The same of all five, whose inputs lie `step` apart.
    static __m256i five_trits(__m256i v, int step, const auto& input) {
        __m256i sums = trit_pairs(v, input(0));
        unroll<4>([&](auto j) {
            v = thrice(v);
            sums = _mm256_add_epi16(sums, trit_pairs(v, input((j + 1) * step)));
        });
        return sums;
    }

    // Of four bytes each, four times: as they are, and by 3, 9 and 27.
    static __m256i four_trits(const uint8_t* first, const uint8_t* second) {
        const __m256i once =
            balanced(_mm256_blend_epi32(broadcast32(first), broadcast32(second), 0xf0));
        const __m256i by3 = _mm256_blend_epi32(once, thrice(once), 0b10101010);
        return _mm256_blend_epi32(by3, thrice(thrice(by3)), 0b11001100);
    }
};

}  // namespace
}  // namespace moestream
