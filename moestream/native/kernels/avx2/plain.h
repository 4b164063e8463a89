// Super-blocks whose groups have no scales: the ternary types. What a code is more than its trit is
// taken off once for all rows, by way of the inputs' sum.
#pragma once

#include "kernels/avx2/few_bits.h"

namespace moestream {
namespace {

// The lanes of the sum of a super-block's codes with a token's inputs.
template <class T>
inline __m256i plain_lanes(const auto& block, const int8_t* q) {
    if constexpr (kVnni && requires { T::lanes(block, q); }) {
        return T::lanes(block, q);
    } else if constexpr (kVnni) {
        __m256i lanes[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        unroll<8>([&](auto j) {
            const __m256i codes = T::template codes<j>(block);
            lanes[j % 2] = add_quads(lanes[j % 2], codes, load256(q + j * 32));
        });
        return _mm256_add_epi32(lanes[0], lanes[1]);
    } else {
        return _mm256_madd_epi16(T::pairs(block, q), _mm256_set1_epi16(1));
    }
}

// The sum of int16, in all lanes.
inline __m256i sum_in_all_lanes(__m256i v) {
    v = _mm256_madd_epi16(v, _mm256_set1_epi16(1));
    v = _mm256_hadd_epi32(v, v);
    v = _mm256_hadd_epi32(v, v);
    return _mm256_add_epi32(v, _mm256_permute2x128_si256(v, v, 0x01));
}

// Sums of eight rows' super-blocks at `at`, with each token's inputs, whose sums are `sums`.
template <class T, int NT>
[[gnu::flatten]] inline void plain_sums(const uint8_t* const* rows, size_t at, uintptr_t ahead,
                                        const int8_t* const* q, const __m256i* sums,
                                        __m256i* all) {
    __m256i v[NT][8];
    if constexpr (!kVnni && requires { T::two_rows(nullptr, nullptr, nullptr); }) {
        for (int r = 0; r < 8; r += 2) {
            prefetch<2 * T::kBytes>(ahead + r * T::kBytes);
            unroll<NT>([&](auto t) {
                const __m256i pairs = T::two_rows(rows[r] + at, rows[r + 1] + at, q[t]);
                v[t][r / 2] = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            });
        }
        unroll<NT>([&](auto t) { all[t] = fold_two_rows(v[t]); });
    } else {
        for (int r = 0; r < 8; ++r) {
            prefetch<T::kBytes>(ahead + r * T::kBytes);
            const auto block = T::open(rows[r] + at);
            unroll<NT>([&](auto t) { v[t][r] = plain_lanes<T>(block, q[t]); });
        }
        unroll<NT>([&](auto t) {
            all[t] = _mm256_sub_epi32(fold8_small(v[t], 1), sum_in_all_lanes(sums[t]));
        });
    }
}

}  // namespace
}  // namespace moestream
