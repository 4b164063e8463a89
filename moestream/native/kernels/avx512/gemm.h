// Products with many tokens in 512-bit registers: four columns of all 16 rows of a panel to one.
//
// Reads what avx2/unpack.h takes apart. One instruction multiplies four columns with four bytes of
// a token's input and adds them up, so sums are exact from the first.
#pragma once

#include "kernels/avx2/gemm.h"
#include "kernels/avx512/attention.h"

namespace moestream {
namespace {

inline __m512i broadcast32_wide(const void* p) {
    int v;
    std::memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

// part[t] += products of `Quads` times four columns with token t's input.
template <int NT, int Quads>
inline void wide_quads(const uint8_t* codes, const int8_t* const* input, size_t at,
                       __m512i* part) {
#pragma GCC unroll 8
    for (int quad = 0; quad < Quads; ++quad) {
        const __m512i c = _mm512_load_si512(codes + quad * 64);
        for (int t = 0; t < NT; ++t) {
            part[t] = _mm512_dpbusd_epi32(part[t], c, broadcast32_wide(input[t] + at + quad * 4));
        }
    }
}

struct Avx512 {
    using Few = Avx2;
    using Attention = Avx512Attention;
    using Unpacked = moestream::Unpacked;
    using Float = __m512;
    using Int = __m512i;
    static constexpr int kLanes = 16, kTileRegisters = 1, kTileTokens = 8;
    template <Type T>
    using Trait = Blocks<T>;
    template <int NT>
    using Sums = Int[NT];
    template <class T>
    static constexpr int kTileOffset = kPanelOffset<T>;

    static Float zero() { return _mm512_setzero_ps(); }
    static Float set(float v) { return _mm512_set1_ps(v); }
    static Float load(const float* p) { return _mm512_load_ps(p); }
    static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
    // c + a * b, and c - a * b.
    static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
    static Float fnma(Float a, Float b, Float c) { return _mm512_fnmadd_ps(a, b, c); }
    static void store_some(float* p, Float v, int count) {
        _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
    }
    static Int zero_int() { return _mm512_setzero_si512(); }
    static Int set_int(int v) { return _mm512_set1_epi32(v); }
    static Int sub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
    static Float to_float(Int v) { return _mm512_cvtepi32_ps(v); }
    static Int shift_left(Int v, int by) { return _mm512_slli_epi32(v, by); }

    template <class T>
    static void unpack(const Panel& panel, int first, const Unpacked& to) {
        Few::template unpack<T>(panel, first, to);
    }
    template <class T>
    static void unpack_packed(const Panel& panel, int first, const Unpacked& to) {
        Few::template unpack_packed<T>(panel, first, to);
    }

    template <class T, int NT>
    static void sum_block32(const Unpacked& w, int block, const int8_t* const* q, Sums<NT>& sums) {
        fill<NT>(sums, zero_int());
        wide_quads<NT, T::kBlock / 4>(w.codes + block * T::kBlock * 16, q, block * T::kBlock, sums);
    }

    template <class T, int NT>
    static void sum_block256(const Unpacked& w, int block, const int8_t* const* q,
                             Sums<NT>& sums) {
        fill<NT>(sums, zero_int());
        for (int g = block * T::kGroups; g < (block + 1) * T::kGroups; ++g) {
            Int part[NT];
            fill<NT>(part, zero_int());
            wide_quads<NT, T::kGroup / 4>(w.codes + g * T::kGroup * 16, q, g * T::kGroup, part);
            const Int scale = _mm512_srai_epi32(_mm512_load_si512(w.scales + g * 32), 16);
            for (int t = 0; t < NT; ++t) {
                sums[t] = _mm512_add_epi32(sums[t], _mm512_mullo_epi32(part[t], scale));
            }
        }
    }

    template <class T, int NT>
    static void weigh(const Unpacked& w, int block, const TokenRows<T, NT>& x, Int* weighed) {
        for (int g = block * T::kGroups; g < (block + 1) * T::kGroups; g += 2) {
            const Int weights = _mm512_load_si512(w.pairs + g * 16);
            for (int t = 0; t < NT; ++t) {
                const Int input = broadcast32_wide(x.sums(t, g));
                weighed[t] = _mm512_dpwssd_epi32(weighed[t], weights, input);
            }
        }
    }

    template <int Token, int>
    static Int rows_of(const Int* sums) {
        return sums[Token];
    }
};

}  // namespace
}  // namespace moestream
