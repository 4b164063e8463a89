// Products with many tokens in 512-bit registers: four columns of all 16 rows of a panel to one.
//
// Reads what avx2/gemm.h unpacks. One instruction multiplies four columns with four bytes of a
// token's input and adds them up, so sums are exact from the first; it wants unsigned codes, so
// signed ones are read with 128 more, which is taken off again by way of the inputs' sums.
#pragma once

#include "kernels/avx2/gemm.h"

namespace moestream {
namespace {

template <class T>
inline __m512i wide_codes(const uint8_t* p) {
    const __m512i codes = _mm512_load_si512(p);
    return T::kSigned ? _mm512_xor_si512(codes, _mm512_set1_epi8(-128)) : codes;
}

inline __m512i broadcast32_wide(const void* p) {
    int v;
    std::memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

// part[t] = products of `Quads` times four columns with token t's input.
template <class T, int NT, int Quads>
inline void wide_quads(const uint8_t* codes, const int8_t* const* input, size_t at,
                       __m512i* part) {
    for (int t = 0; t < NT; ++t) part[t] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int quad = 0; quad < Quads; ++quad) {
        const __m512i c = wide_codes<T>(codes + quad * 64);
        for (int t = 0; t < NT; ++t) {
            part[t] = _mm512_dpbusd_epi32(part[t], c, broadcast32_wide(input[t] + at + quad * 4));
        }
    }
}

template <class T, int NT>
inline void wide_block32(const Unpacked& w, const InputRows& in, const int* tokens, __m512* acc) {
    constexpr int kOffset = T::kSigned ? 128 : T::kOffset;
    const int blocks = in.columns / 32;
    const int8_t* input[NT];
    for (int t = 0; t < NT; ++t) input[t] = in.q + static_cast<size_t>(tokens[t]) * in.columns;
    for (int b = 0; b < blocks; ++b) {
        __m512i part[NT];
        wide_quads<T, NT, 8>(w.codes + b * 512, input, b * 32, part);
        const __m512 scale = _mm512_load_ps(w.d + b * 16);
        for (int t = 0; t < NT; ++t) {
            const size_t at = static_cast<size_t>(tokens[t]) * blocks + b;
            if (kOffset != 0) {
                part[t] = _mm512_sub_epi32(part[t], _mm512_set1_epi32(kOffset * in.sums32[at]));
            }
            acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(scale, _mm512_set1_ps(in.d[at])),
                                     _mm512_cvtepi32_ps(part[t]), acc[t]);
            if constexpr (T::kHasMin) {
                acc[t] = _mm512_fmadd_ps(_mm512_load_ps(w.m + b * 16), _mm512_set1_ps(in.s[at]),
                                         acc[t]);
            }
        }
    }
}

template <class T, int NT>
inline void wide_block256(const Unpacked& w, const InputRows& in, const int* tokens,
                          __m512* acc) {
    constexpr int kGroups = 256 / T::kGroup;
    constexpr int kShift = T::kSigned ? 7 : T::kShift;
    const int blocks = in.columns / 256;
    const int8_t* input[NT];
    const int16_t* sums[NT];
    for (int t = 0; t < NT; ++t) {
        const auto token = static_cast<size_t>(tokens[t]);
        input[t] = in.q + token * in.columns;
        sums[t] = T::kGroup == 16 ? in.sums16 + token * (in.columns / 16)
                                  : in.sums32 + token * (in.columns / 32);
    }
    for (int b = 0; b < blocks; ++b) {
        __m512i sum[NT], pair[NT];
        for (int t = 0; t < NT; ++t) sum[t] = pair[t] = _mm512_setzero_si512();
        for (int g = b * kGroups; g < (b + 1) * kGroups; ++g) {
            __m512i part[NT];
            wide_quads<T, NT, T::kGroup / 4>(w.codes + g * T::kGroup * 16, input, g * T::kGroup,
                                             part);
            const __m512i scale = _mm512_srai_epi32(_mm512_load_si512(w.scales + g * 32), 16);
            for (int t = 0; t < NT; ++t) {
                sum[t] = _mm512_add_epi32(sum[t], _mm512_mullo_epi32(part[t], scale));
            }
        }
        for (int g = b * kGroups; g < (b + 1) * kGroups; g += 2) {
            const __m512i weights = _mm512_load_si512(w.pairs + g * 16);
            for (int t = 0; t < NT; ++t) {
                pair[t] = _mm512_dpwssd_epi32(pair[t], weights, broadcast32_wide(sums[t] + g));
            }
        }
        for (int t = 0; t < NT; ++t) {
            const __m512 d = _mm512_set1_ps(in.d[static_cast<size_t>(tokens[t]) * blocks + b]);
            if constexpr (kShift >= 0) {
                sum[t] = _mm512_sub_epi32(sum[t], _mm512_slli_epi32(pair[t], kShift));
            }
            acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_load_ps(w.d + b * 16), d),
                                     _mm512_cvtepi32_ps(sum[t]), acc[t]);
            if constexpr (T::kHasMin) {
                acc[t] = _mm512_fnmadd_ps(_mm512_mul_ps(_mm512_load_ps(w.m + b * 16), d),
                                          _mm512_cvtepi32_ps(pair[t]), acc[t]);
            }
        }
    }
}

template <class T, bool Super, int NT>
void wide_tile(const Panel& panel, const Unpacked& w, int first) {
    int tokens[NT];
    for (int t = 0; t < NT; ++t) {
        tokens[t] = panel.in_rows ? panel.in_rows[first + t] : first + t;
    }
    __m512 acc[NT];
    for (int t = 0; t < NT; ++t) acc[t] = _mm512_setzero_ps();
    if constexpr (Super) {
        wide_block256<T, NT>(w, *panel.input, tokens, acc);
    } else {
        wide_block32<T, NT>(w, *panel.input, tokens, acc);
    }
    const auto there = static_cast<__mmask16>((1u << panel.rows) - 1);
    for (int t = 0; t < NT; ++t) {
        const int to = panel.out_rows ? panel.out_rows[first + t] : first + t;
        _mm512_mask_storeu_ps(panel.out + static_cast<size_t>(to) * panel.out_stride, there,
                              acc[t]);
    }
}

template <class T, bool Super, int NT = 8>
inline void run_wide_tiles(const Panel& panel, const Unpacked& w, int first = 0) {
    for (; first + NT <= panel.tokens; first += NT) wide_tile<T, Super, NT>(panel, w, first);
    if constexpr (NT > 1) run_wide_tiles<T, Super, NT / 2>(panel, w, first);
}

template <class T, bool Super>
void matmul_wide(const Panel& panel) {
    if (panel.tokens < kGemmTokens) return gemv<T, Super>(panel);
    const Unpacked w(panel.scratch, panel.input->columns, Super ? 256 : 32);
    if constexpr (Super) {
        unpack_block256<T>(panel, w);
    } else {
        unpack_block32<T>(panel, w);
    }
    run_wide_tiles<T, Super>(panel, w);
}

template <class T, bool Super>
void matmul_packed_wide(const Panel& panel) {
    if (panel.tokens < kGemmTokens) return packed_gemv<T, Super>(panel);
    const Unpacked w(panel.scratch, panel.input->columns, Super ? 256 : 32);
    unpack_packed<T, Super>(panel, w);
    run_wide_tiles<T, Super>(panel, w);
}

}  // namespace
}  // namespace moestream
