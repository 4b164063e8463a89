// Products with one or a few tokens: eight rows side by side, blocks taken apart as they come.
//
// A lane of the accumulator is a row: the integer sum of each block is folded before it becomes
// a float, which is what makes every instruction set's result the same.
#pragma once

#include "kernels/avx2/codebooks.h"
#include "kernels/avx2/floats.h"
#include "kernels/products.h"

namespace moestream {
namespace {

// Ask for one row's share of the next eight rows' bytes. These are asked for in the order of
// memory, spread evenly over the work: rows are short and eight are read at once, which hardware
// prefetchers do not see through. Asking beyond the end of memory does no harm.
template <int Bytes>
inline void prefetch(uintptr_t ahead) {
    for (int i = 0; i < Bytes; i += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(ahead + i), _MM_HINT_T0);
    }
}

// Scale J of 8 in each half, over all lanes of that half.
template <int J>
inline __m256i spread_scale(__m256i scales) {
    return _mm256_shuffle_epi8(scales, _mm256_set1_epi16((2 * J + 1) << 8 | 2 * J));
}

// Even groups' values to the low half, odd groups' to the high half: codes<J> holds group 2 J in
// its low half and 2 J + 1 in its high half.
inline __m256i split_even_odd(__m256i v) {
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,  //
                                           0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(v, order), 0xd8);
}

// Pair sums of the J-th 32 codes of an opened super-block.
template <class T, int J>
inline __m256i pair_sums_of(const auto& block, __m256i input) {
    if constexpr (requires { T::template magnitudes<J>(block); }) {
        return _mm256_maddubs_epi16(T::template magnitudes<J>(block),
                                    with_signs(T::template signs<J>(block), input));
    } else {
        return pair_sums<T>(T::template codes<J>(block), input);
    }
}

template <class T, int J>
inline __m256i add_scaled(__m256i acc, const auto& block, const int8_t* q, __m256i scales) {
    const __m256i pairs = pair_sums_of<T, J>(block, load256(q + J * 32));
    return add_pairs(acc, pairs, spread_scale<J>(scales));
}

// The lanes of the sum of a super-block whose groups have no scales.
template <class T>
[[gnu::flatten]] inline __m256i plain_lanes(const auto& block, const int8_t* q) {
    if constexpr (kVnni) {
        __m256i lanes[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        unroll<8>([&](auto j) {
            const __m256i codes = T::template codes<j>(block);
            lanes[j % 2] = add_quads(lanes[j % 2], codes, load256(q + j * 32));
        });
        return _mm256_add_epi32(lanes[0], lanes[1]);
    } else {
        static_assert(T::kSteps == 8);
        __m256i pairs = _mm256_setzero_si256();
        unroll<8>([&](auto j) {
            const __m256i codes = T::template codes<j>(block);
            pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(codes, load256(q + j * 32)));
        });
        return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
}

// The lanes of a super-block's integer sum; its minimums' (or offset's) sum in `mins`.
template <class T>
inline __m256i super_block_lanes(const uint8_t* p, const int8_t* q, __m256i sums, __m256i* mins) {
    const auto block = T::open(p);
    if constexpr (T::kPlain) {
        *mins = _mm256_madd_epi16(T::scales(block), sums);
        return _mm256_sub_epi32(plain_lanes<T>(block, q),
                                _mm256_slli_epi32(*mins, shift_of(T::kOffset)));
    }
    const __m256i natural = T::scales(block);
    if constexpr (T::kOffset != 0 || T::kHasMin) {
        *mins = _mm256_madd_epi16(weights_of_sums<T>(block, natural), sums);
    }
    const __m256i scales = T::kGroup == 16 ? split_even_odd(natural) : natural;
    __m256i a = _mm256_setzero_si256(), b = a;
    a = add_scaled<T, 0>(a, block, q, scales), b = add_scaled<T, 1>(b, block, q, scales);
    a = add_scaled<T, 2>(a, block, q, scales), b = add_scaled<T, 3>(b, block, q, scales);
    a = add_scaled<T, 4>(a, block, q, scales), b = add_scaled<T, 5>(b, block, q, scales);
    a = add_scaled<T, 6>(a, block, q, scales), b = add_scaled<T, 7>(b, block, q, scales);
    if constexpr (T::kOffset != 0) {
        a = _mm256_sub_epi32(a, _mm256_slli_epi32(*mins, shift_of(T::kOffset)));
    }
    return _mm256_add_epi32(a, b);
}

struct Avx2Gemv : Avx2Floats {
    static constexpr int kFewTokens = 1;
    template <class T>
    static constexpr int kOffset = T::kOffset;

    template <class T, int NT>
    static void dot_block32(const uint8_t* const* rows, uintptr_t ahead, int blocks,
                            const TokenRows<T, NT>& x, Float* acc) {
        size_t at = 0;
        for (int b = 0; b < blocks; ++b, at += T::kBytes) {
            for (int r = 0; r < 8; r += 2) {
                prefetch<2 * T::kBytes>(ahead + 8 * at + r * T::kBytes);
            }
            unroll<T::kParts>([&](auto part) {
                dot_part<T, part>(rows, at, b * T::kParts + part, x, acc);
            });
        }
    }

    // The 32 columns number `unit`, which are part J of the blocks at `at`.
    template <class T, int J, int NT>
    static void dot_part(const uint8_t* const* rows, size_t at, int unit,
                         const TokenRows<T, NT>& x, Float* acc) {
        const __m256i input = load256(x.q[0] + unit * 32);
        __m256i v[8];
        for (int r = 0; r < 8; ++r) {
            v[r] = quad_sums<T>(zero_int(), codes_of_part<T, J>(rows[r] + at), input);
        }
        __m256 d, m = zero();
        if constexpr (T::kBlock == 16) {
            __m256i sums[2];
            fold8_halves(v, sums);
            for (int i = 0; i < 2; ++i) {
                load_floats8<T>(rows, at, J * 2 + i, &d, &m);
                *acc = add_block32<Avx2Gemv, T>(*acc, sums[i], d, m, x, 0, unit * 2 + i);
            }
        } else {
            const __m256i sum = T::kSmall ? fold8_small(v, 1) : fold8(v, 1);
            load_floats8<T>(rows, at, 0, &d, &m);
            *acc = add_block32<Avx2Gemv, T>(*acc, sum, d, m, x, 0, unit);
        }
    }

    template <class T, int NT>
    static void dot_block256(const uint8_t* const* rows, uintptr_t ahead, int blocks,
                             const TokenRows<T, NT>& x, Float* acc) {
        size_t at = 0;
        for (int b = 0; b < blocks; ++b, at += T::kBytes) {
            // With groups of 32 there are eight sums: zeros in the high half keep mins single.
            const int16_t* from = x.sums(0, b * T::kGroups);
            const __m256i sums =
                T::kGroup == 16 ? load256(from) : _mm256_zextsi128_si256(load128(from));
            __m256i v[8], weighed[8];
            for (int r = 0; r < 8; ++r) {
                prefetch<T::kBytes>(ahead + 8 * at + r * T::kBytes);
                v[r] = super_block_lanes<T>(rows[r] + at, x.q[0] + b * 256, sums, &weighed[r]);
            }
            __m256 d, m = zero();
            load_floats8<T>(rows, at, 0, &d, &m);
            const __m256i mins = T::kHasMin ? fold8(weighed, 1) : zero_int();
            *acc = add_block256<Avx2Gemv, T>(*acc, fold8(v, 1), mins, d, m, x.d(0, b));
        }
    }
};

}  // namespace
}  // namespace moestream
