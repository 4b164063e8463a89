// Products of unpacked panels with up to four tokens at once.
#pragma once

#include "kernels/avx2/attention.h"
#include "kernels/avx2/packed.h"

namespace moestream {
namespace {

// How many pair sums of a panel's codes with int8 input fit in int16 on top of one another.
template <class T>
inline constexpr int kPanelSteps =
    steps_of(T::kLayout.largest + (T::kSigned ? kPanelOffset<T> : 0));

// Pair sums of four columns of 16 rows with one token's input.
template <class T>
inline void quad_pairs(const uint8_t* codes, const int8_t* input, __m256i* pairs) {
    const __m256i x = broadcast32(input);
    pairs[0] = pair_sums<kPanelSigned<T>>(load256(codes), x);
    pairs[1] = pair_sums<kPanelSigned<T>>(load256(codes + 32), x);
}

// sum (token, half) += products of `Quads` times four columns, the inputs' from `at` on, each total
// times `scale` (two registers, for eight rows each, a row's scale twice).
template <class T, int NT, int Quads>
inline void multiply_quads(const uint8_t* codes, const int8_t* const* from, size_t at,
                           const __m256i* scale, __m256i (*sum)[2]) {
    const int8_t* input[NT];
    for (int t = 0; t < NT; ++t) input[t] = from[t] + at;
    if constexpr (kVnni) {
        __m256i part[NT][2] = {};
        for (int quad = 0; quad < Quads; ++quad) {
            for (int t = 0; t < NT; ++t) {
                const __m256i x = broadcast32(input[t] + quad * 4);
                for (int h = 0; h < 2; ++h) {
                    part[t][h] = add_quads(part[t][h], load256(codes + quad * 64 + h * 32), x);
                }
            }
        }
        for (int t = 0; t < NT; ++t) {
            for (int h = 0; h < 2; ++h) {
                const __m256i once = _mm256_srai_epi32(scale[h], 16);
                sum[t][h] = _mm256_add_epi32(sum[t][h], _mm256_mullo_epi32(part[t][h], once));
            }
        }
        return;
    }
    constexpr int kRun = std::min(kPanelSteps<T>, Quads);
    for (int first = 0; first < Quads; first += kRun) {
        __m256i part[NT][2];
        for (int t = 0; t < NT; ++t) {
            quad_pairs<T>(codes + first * 64, input[t] + first * 4, part[t]);
        }
        // Unrolled, GCC would keep the parts in memory: 65 instead of 87 GMAC/s for Q4_K.
#pragma GCC unroll 1
        for (int quad = first + 1; quad < first + kRun; ++quad) {
            for (int t = 0; t < NT; ++t) {
                __m256i more[2];
                quad_pairs<T>(codes + quad * 64, input[t] + quad * 4, more);
                for (int h = 0; h < 2; ++h) {
                    part[t][h] = _mm256_add_epi16(part[t][h], more[h]);
                    if constexpr (T::kSuper) keep_in_register(part[t][h]);
                }
            }
        }
        for (int t = 0; t < NT; ++t) {
            for (int h = 0; h < 2; ++h) {
                const __m256i p = _mm256_madd_epi16(part[t][h], scale[h]);
                sum[t][h] = _mm256_add_epi32(sum[t][h], p);
            }
        }
    }
}

struct Avx2 : Avx2Packed {
    using Few = Avx2;
    using Attention = Avx2Attention;
    using Unpacked = moestream::Unpacked;
    static constexpr int kTileRegisters = 2, kTileTokens = 4;
    template <Type T>
    using Trait = Blocks<T>;
    template <class T>
    static constexpr int kTileOffset = kPanelOffset<T>;
    // Integer sums of a token and a half of 16 rows.
    template <int NT>
    using Sums = Int[NT][2];

    template <class T>
    static void unpack(const Panel& panel, int, const Unpacked& to) {
        unpack_rows<T>(panel, to);
    }

    template <class T, int NT>
    static void sum_block32(const Unpacked& w, int block, const int8_t* const* q, Sums<NT>& sums) {
        const Int ones[2] = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
        for (int t = 0; t < NT; ++t) sums[t][0] = sums[t][1] = zero_int();
        multiply_quads<T, NT, T::kBlock / 4>(w.codes + block * T::kBlock * 16, q, block * T::kBlock,
                                             ones, sums);
    }

    // Not inlined: GCC would keep the floats in registers and the sums in memory.
    template <class T, int NT>
    [[gnu::noinline]] static void sum_block256(const Unpacked& w, int block,
                                               const int8_t* const* q, Sums<NT>& out) {
        Int sums[NT][2];
        for (int t = 0; t < NT; ++t) sums[t][0] = sums[t][1] = zero_int();
        for (int g = 0; g < T::kGroups; ++g) {
            const int group = block * T::kGroups + g;
            const int16_t* s = w.scales + group * 32;
            const Int scale[2] = {load256(s), load256(s + 16)};
            multiply_quads<T, NT, T::kGroup / 4>(w.codes + group * T::kGroup * 16, q,
                                                 group * T::kGroup, scale, sums);
        }
        for (int t = 0; t < NT; ++t) out[t][0] = sums[t][0], out[t][1] = sums[t][1];
    }

    template <class T, int NT>
    static void weigh(const Unpacked& w, int block, const TokenRows<T, NT>& x, Int* weighed) {
        for (int g = block * T::kGroups; g < (block + 1) * T::kGroups; g += 2) {
            const int16_t* p = w.pairs + g * 16;
            for (int t = 0; t < NT; ++t) {
                const Int input = broadcast32(x.sums(t, g));
                for (int h = 0; h < 2; ++h) {
                    weighed[t * 2 + h] = _mm256_add_epi32(
                        weighed[t * 2 + h], _mm256_madd_epi16(load256(p + h * 16), input));
                }
            }
        }
    }

    template <int Token, int Half>
    static Int rows_of(const Int (*sums)[2]) {
        return sums[Token][Half];
    }
};

}  // namespace
}  // namespace moestream
