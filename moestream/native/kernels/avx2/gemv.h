// Products with one or a few tokens: eight rows side by side, blocks taken apart as they come.
//
// A lane of the accumulator is a row: the integer sum of each block is folded before it becomes
// a float, which is what makes every instruction set's result the same.
#pragma once

#include "kernels/avx2/codebooks.h"
#include "kernels/avx2/floats.h"
#include "kernels/avx2/k_types.h"
#include "kernels/avx2/plain.h"
#include "kernels/products.h"

namespace moestream {
namespace {

// Scale J of 8 in each half, over all lanes of that half: codes<J> holds group J, or, if a group is
// 16, group 2 J in its low half and 2 J + 1 in its high half.
template <int J>
inline __m256i spread_scale(__m256i scales) {
    return _mm256_shuffle_epi8(scales, _mm256_set1_epi16((2 * J + 1) << 8 | 2 * J));
}

// The same of eight scales that are in memory, each twice.
template <int J>
inline __m256i spread_scale(const int (&scales)[8]) {
    return _mm256_set1_epi32(scales[J]);
}

// Scales of groups of 16, even ones in the low half and odd ones in the high half.
template <class T>
inline __m256i split_scales_of(const auto& block) {
    if constexpr (requires { T::split_scales(block); }) {
        return T::split_scales(block);
    } else {
        return split_even_odd(T::scales(block));
    }
}

// Whether a type gives codes that want fewer instructions: those of odd groups of 32 are four times
// as large.
template <class T>
inline constexpr bool kFourfold = requires { T::template fourfold<0>(nullptr); };

template <class T, int J>
inline __m256i quick_codes(const auto& block) {
    if constexpr (kFourfold<T>) {
        return T::template fourfold<J>(block);
    } else {
        return T::template codes<J>(block);
    }
}

// To each token's sum: the J-th 32 codes of an opened super-block, taken apart once, times its
// inputs, times their scales.
template <class T, int J, int NT>
inline void add_scaled(const auto& block, const int8_t* const* q, const auto& scales,
                       __m256i (*acc)[2]) {
    const __m256i scale = spread_scale<J>(scales);
    const auto add = [&](int t, __m256i pairs) {
        acc[t][J % 2] = add_pairs(acc[t][J % 2], pairs, scale);
    };
    if constexpr (requires { T::template magnitudes<J>(block); }) {
        const __m256i magnitudes = T::template magnitudes<J>(block);
        const auto signs = block.signs.template of<J>();
        unroll<NT>([&](auto t) {
            const __m256i input = with_signs(signs, load256(q[t] + J * 32));
            add(t, _mm256_maddubs_epi16(magnitudes, input));
        });
    } else {
        const __m256i codes = quick_codes<T, J>(block);
        unroll<NT>([&](auto t) { add(t, pair_sums<T::kSigned>(codes, load256(q[t] + J * 32))); });
    }
}

// Whether a type's codes are all even, and halves of them are had faster.
template <class T>
inline constexpr bool kHalves = requires { T::template halves<0>(nullptr); };

template <class T, int J>
inline __m256i halves_of_part(const uint8_t* p) {
    if constexpr (kHalves<T>) {
        return T::template halves<J>(p);
    } else {
        return codes_of_part<T, J>(p);
    }
}

// Whether inputs' sums of groups of 16 are split as scales are, rather than scales put in order.
template <class T>
inline constexpr bool kSplitSums = T::kGroup == 16 && !T::kHasMin;

// Puts eight scales, each twice, in memory: scales as groups of 32 have them.
inline void store_scales(__m256i scales, int (&to)[8]) {
    const __m256i low = _mm256_unpacklo_epi16(scales, scales);
    const __m256i high = _mm256_unpackhi_epi16(scales, scales);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm256_blend_epi32(low, high, 0xf0));
    keep_in_memory(to);
}

// The scales of a row's super-block as add_scaled wants them, and the lanes of its minimums (or
// offset) with the tokens' inputs.
template <class T, int NT>
inline __m256i row_scales(const auto& block, const __m256i* sums, int r, __m256i (*mins)[8]) {
    // Minimums stand in their natural order, and so do the inputs' sums with them.
    const __m256i scales = kSplitSums<T> ? split_scales_of<T>(block) : T::scales(block);
    if constexpr (T::kHasMin || T::kOffset != 0) {
        unroll<NT>([&](auto t) {
            mins[t][r] = _mm256_madd_epi16(weights_of_sums<T>(block, scales), sums[t]);
        });
    }
    return T::kGroup == 16 && T::kHasMin ? split_even_odd(scales) : scales;
}

// The lanes of row R's integer sums over a super-block with the tokens' inputs.
template <class T, int NT>
inline void row_lanes(const auto& block, const int8_t* const* q, const auto& scales, int r,
                      __m256i (*mins)[8], __m256i (*lanes)[8]) {
    __m256i acc[NT][2];
    for (int t = 0; t < NT; ++t) acc[t][0] = acc[t][1] = _mm256_setzero_si256();
    unroll<8>([&](auto j) { add_scaled<T, j, NT>(block, q, scales, acc); });
    unroll<NT>([&](auto t) {
        if constexpr (kFourfold<T>) acc[t][1] = _mm256_srai_epi32(acc[t][1], 2);
        lanes[t][r] = _mm256_add_epi32(acc[t][0], acc[t][1]);
        if constexpr (T::kOffset != 0) {
            lanes[t][r] = _mm256_sub_epi32(lanes[t][r],
                                         _mm256_slli_epi32(mins[t][r], shift_of(T::kOffset)));
        }
    });
}

// Sums of eight rows' super-blocks at `at`, and those of their minimums, with each token's inputs,
// the sums of whose groups are `sums`.
template <class T, int NT>
inline void scaled_sums(const uint8_t* const* rows, size_t at, uintptr_t ahead,
                        const int8_t* const* q, const __m256i* sums, __m256i* all, __m256i* mins) {
    __m256i v[NT][8], weighed[NT][8];
    const Opened<T> opened(rows, at);
    alignas(32) int stored[8][8];
    if constexpr (T::kScalesAhead) {
        for (int r = 0; r < 8; ++r) {
            store_scales(row_scales<T, NT>(opened[r], sums, r, weighed), stored[r]);
        }
    }
    for (int r = 0; r < 8; ++r) {
        prefetch<T::kBytes>(ahead + r * T::kBytes);
        const auto& block = opened[r];
        if constexpr (T::kScalesAhead) {
            row_lanes<T, NT>(block, q, stored[r], r, weighed, v);
        } else {
            row_lanes<T, NT>(block, q, row_scales<T, NT>(block, sums, r, weighed), r, weighed, v);
        }
    }
    unroll<NT>([&](auto t) {
        all[t] = fold8(v[t], 1);
        if constexpr (T::kHasMin && T::kGroup == 16) mins[t] = fold8(weighed[t], 1);
        if constexpr (T::kHasMin && T::kGroup == 32) mins[t] = fold8_low(weighed[t]);
    });
}

struct Avx2Gemv : Avx2Floats {
    static constexpr int kFewTokens = 4, kFewPacked = 1;

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
        __m256i v[NT][8];
        for (int r = 0; r < 8; ++r) {
            const auto codes = halves_of_part<T, J>(rows[r] + at);
            unroll<NT>([&](auto t) {
                v[t][r] = quad_sums<T>(zero_int(), codes, load256(x.q[t] + unit * 32));
            });
        }
        __m256 d, m = zero();
        if constexpr (T::kBlock == 16) {
            __m256i sums[NT][2];
            unroll<NT>([&](auto t) { fold8_halves(v[t], sums[t]); });
            for (int i = 0; i < 2; ++i) {
                load_floats8<T>(rows, at, J * 2 + i, &d, &m);
                unroll<NT>([&](auto t) {
                    acc[t] = add_block32<Avx2Gemv, T, T::kOffset>(acc[t], sums[t][i], d, m, x, t,
                                                                  unit * 2 + i);
                });
            }
        } else {
            load_floats8<T>(rows, at, 0, &d, &m);
            unroll<NT>([&](auto t) {
                __m256i sum = T::kSmall ? fold8_small(v[t], 1) : fold8(v[t], 1);
                if constexpr (kHalves<T>) sum = _mm256_add_epi32(sum, sum);
                acc[t] = add_block32<Avx2Gemv, T, T::kOffset>(acc[t], sum, d, m, x, t, unit);
            });
        }
    }

    template <class T, int NT>
    static void dot_block256(const uint8_t* const* rows, uintptr_t ahead, int blocks,
                             const TokenRows<T, NT>& x, Float* acc) {
        size_t at = 0;
        for (int b = 0; b < blocks; ++b, at += T::kBytes) {
            __m256i sums[NT], all[NT], mins[NT];
            const int8_t* q[NT];  // so that what is read of it lies at constant distances
            unroll<NT>([&](auto t) {
                q[t] = x.q[t] + b * 256;
                // With groups of 32 there are eight sums: zeros in the high half keep mins single.
                const int16_t* from = x.sums(t, b * T::kGroups);
                sums[t] = T::kGroup == 16 ? load256(from) : _mm256_zextsi128_si256(load128(from));
                if constexpr (kSplitSums<T>) sums[t] = split_even_odd(sums[t]);
                mins[t] = zero_int();
            });
            if constexpr (T::kPlain) {
                plain_sums<T, NT>(rows, at, ahead + 8 * at, q, sums, all);
            } else {
                scaled_sums<T, NT>(rows, at, ahead + 8 * at, q, sums, all, mins);
            }
            __m256 d, m = zero();
            load_floats8<T>(rows, at, 0, &d, &m);
            unroll<NT>([&](auto t) {
                acc[t] = add_block256<Avx2Gemv, T>(acc[t], all[t], mins[t], d, m, x.d(t, b));
            });
        }
    }
};

}  // namespace
}  // namespace moestream
