// Products with many tokens: a panel of 16 rows is taken apart once, then run against all tokens.
//
// Unpacked codes lie as the multiply wants them: four columns of eight rows to a register, so
// that four bytes of a token's input, broadcast, meet eight rows at once and nothing is folded.
#pragma once

#include "kernels/avx2/gemv.h"

namespace moestream {
namespace {

inline constexpr int kTileTokens = 4;

// A panel's scratch: codes, then float scales, then integer scales of super-blocks.
struct Unpacked {
    uint8_t* codes;   // (columns / 32, quad 8, half 2, row 8, 4)
    float* d;         // (blocks, 16)
    float* m;         // (blocks, 16)
    int16_t* scales;  // (groups, row 16, 2): each scale twice
    int16_t* pairs;   // (groups / 2, row 16, 2): minimums (or scales, for an offset) of two groups

    Unpacked(uint8_t* scratch, int columns, int block) {
        codes = scratch;
        d = reinterpret_cast<float*>(codes + static_cast<size_t>(columns) * 16);
        m = d + columns / block * 16;
        scales = reinterpret_cast<int16_t*>(m + columns / block * 16);
        pairs = scales + columns / 16 * 32;
    }
};

// Codes of 32 columns of eight rows, to every other register of `to`.
inline void store_codes(__m256i* v, uint8_t* to) {
    transpose8(v);
    for (int quad = 0; quad < 8; ++quad) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + quad * 64), v[quad]);
    }
}

template <class T>
inline void unpack_block32(const Panel& panel, const Unpacked& to) {
    const int blocks = panel.input->columns / 32;
    for (int half = 0; half < 2; ++half) {
        const uint8_t* rows[8];
        row_pointers(panel, half * 8, rows);
        const uintptr_t ahead = panel.next + half * 8 * panel.row_bytes;
        for (int b = 0; b < blocks; ++b) {
            const size_t at = static_cast<size_t>(b) * kBytes<T>;
            prefetch<8 * kBytes<T>>(ahead + 8 * at);
            __m256i v[8];
            for (int r = 0; r < 8; ++r) v[r] = T::codes(rows[r] + at);
            store_codes(v, to.codes + b * 512 + half * 32);
            _mm256_store_ps(to.d + b * 16 + half * 8, load_scales8<T>(rows, at));
            if (T::kHasMin) _mm256_store_ps(to.m + b * 16 + half * 8, load_halves8(rows, at + 2));
        }
    }
}

template <class T, int J>
inline void unpack_group(const uint8_t* const* rows, size_t at, uint8_t* to) {
    __m256i v[8];
    for (int r = 0; r < 8; ++r) v[r] = T::template codes<J>(rows[r] + at);
    store_codes(v, to + J * 512);
}

// Columns of eight rows of 16 int16: column c in the low half of v[c], c + 8 in the high half.
inline void transpose16(__m256i* v) {
    __m256i a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_epi16(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi16(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_unpacklo_epi32(a[i], a[i + 2]);
        b[i + 1] = _mm256_unpackhi_epi32(a[i], a[i + 2]);
        b[i + 2] = _mm256_unpacklo_epi32(a[i + 1], a[i + 3]);
        b[i + 3] = _mm256_unpackhi_epi32(a[i + 1], a[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        v[2 * i] = _mm256_unpacklo_epi64(b[i], b[i + 4]);
        v[2 * i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 4]);
    }
}

// Columns x and y as pairs: of groups x and y to `to`, of those eight further on to `to_later`.
inline void store_pairs(__m256i x, __m256i y, int16_t* to, int16_t* to_later) {
    const __m256i low = _mm256_unpacklo_epi16(x, y), high = _mm256_unpackhi_epi16(x, y);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm256_permute2x128_si256(low, high, 0x20));
    if (to_later == nullptr) return;
    _mm256_store_si256(reinterpret_cast<__m256i*>(to_later),
                       _mm256_permute2x128_si256(low, high, 0x31));
}

template <class T>
inline void unpack_scales(const uint8_t* const* rows, size_t at, int half, int block,
                          const Unpacked& to) {
    constexpr int kGroups = 256 / T::kGroup;
    constexpr bool kLater = kGroups == 16;
    __m256i v[8];
    for (int r = 0; r < 8; ++r) v[r] = T::scales(rows[r] + at);
    transpose16(v);
    int16_t* scales = to.scales + block * kGroups * 32 + half * 16;
    for (int g = 0; g < 8; ++g) {
        store_pairs(v[g], v[g], scales + g * 32, kLater ? scales + (g + 8) * 32 : nullptr);
    }
    if constexpr (T::kHasMin) {
        for (int r = 0; r < 8; ++r) v[r] = T::mins(rows[r] + at);
        transpose16(v);
    }
    int16_t* pairs = to.pairs + block * kGroups * 16 + half * 16;
    for (int g = 0; g < 8; g += 2) {
        store_pairs(v[g], v[g + 1], pairs + g * 16, kLater ? pairs + (g + 8) * 16 : nullptr);
    }
}

template <class T>
inline void unpack_block256(const Panel& panel, const Unpacked& to) {
    const int blocks = panel.input->columns / 256;
    for (int half = 0; half < 2; ++half) {
        const uint8_t* rows[8];
        row_pointers(panel, half * 8, rows);
        const uintptr_t ahead = panel.next + half * 8 * panel.row_bytes;
        for (int b = 0; b < blocks; ++b) {
            const size_t at = static_cast<size_t>(b) * kBytes<T>;
            prefetch<8 * kBytes<T>>(ahead + 8 * at);
            uint8_t* codes = to.codes + static_cast<size_t>(b) * 4096 + half * 32;
            unpack_group<T, 0>(rows, at, codes), unpack_group<T, 1>(rows, at, codes);
            unpack_group<T, 2>(rows, at, codes), unpack_group<T, 3>(rows, at, codes);
            unpack_group<T, 4>(rows, at, codes), unpack_group<T, 5>(rows, at, codes);
            unpack_group<T, 6>(rows, at, codes), unpack_group<T, 7>(rows, at, codes);
            unpack_scales<T>(rows, at, half, b, to);
            _mm256_store_ps(to.d + b * 16 + half * 8, load_halves8(rows, at + T::kDAt));
            if constexpr (T::kHasMin) {
                _mm256_store_ps(to.m + b * 16 + half * 8, load_halves8(rows, at + T::kDAt + 2));
            }
        }
    }
}

// Pair sums of four columns of 16 rows with one token's input.
template <class T>
inline void quad_pairs(const uint8_t* codes, const int8_t* input, __m256i* pairs) {
    const __m256i x = broadcast32(input);
    pairs[0] = pair_sums<T>(load256(codes), x);
    pairs[1] = pair_sums<T>(load256(codes + 32), x);
}

// sum += products of `Quads` times four columns, each total times `scale` (two registers, for
// eight rows each, a row's scale twice).
template <class T, int NT, int Quads>
inline void multiply_quads(const uint8_t* codes, const int8_t* const* input, const __m256i* scale,
                           __m256i (*sum)[2]) {
    if constexpr (kVnni) {
        __m256i part[NT][2] = {};
        for (int quad = 0; quad < Quads; ++quad) {
            for (int t = 0; t < NT; ++t) {
                const __m256i x = broadcast32(input[t] + quad * 4);
                for (int h = 0; h < 2; ++h) {
                    part[t][h] = quad_sums<T>(part[t][h], load256(codes + quad * 64 + h * 32), x);
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
    constexpr int kRun = T::kSteps < Quads ? T::kSteps : Quads;
    for (int first = 0; first < Quads; first += kRun) {
        __m256i part[NT][2];
        for (int t = 0; t < NT; ++t) quad_pairs<T>(codes + first * 64, input[t] + first * 4, part[t]);
        // Unrolled, GCC would keep the parts in memory: 65 instead of 87 GMAC/s for Q4_K.
#pragma GCC unroll 1
        for (int quad = first + 1; quad < first + kRun; ++quad) {
            for (int t = 0; t < NT; ++t) {
                __m256i more[2];
                quad_pairs<T>(codes + quad * 64, input[t] + quad * 4, more);
                part[t][0] = _mm256_add_epi16(part[t][0], more[0]);
                part[t][1] = _mm256_add_epi16(part[t][1], more[1]);
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

template <class T, int NT>
inline void tile_block32(const Unpacked& w, const InputRows& in, const int* tokens,
                         __m256 (*acc)[2]) {
    const int blocks = in.columns / 32;
    const __m256i ones[2] = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
    const int8_t* input[NT];
    for (int t = 0; t < NT; ++t) input[t] = in.q + static_cast<size_t>(tokens[t]) * in.columns;
    for (int b = 0; b < blocks; ++b) {
        __m256i sum[NT][2];
        for (int t = 0; t < NT; ++t) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
        multiply_quads<T, NT, 8>(w.codes + b * 512, input, ones, sum);
        for (int t = 0; t < NT; ++t) {
            input[t] += 32;
            const size_t at = static_cast<size_t>(tokens[t]) * blocks + b;
            const __m256 d = _mm256_set1_ps(in.d[at]);
            for (int h = 0; h < 2; ++h) {
                if (T::kOffset) {
                    sum[t][h] = _mm256_sub_epi32(sum[t][h],
                                                 _mm256_set1_epi32(T::kOffset * in.sums32[at]));
                }
                const __m256 scale = _mm256_mul_ps(_mm256_load_ps(w.d + b * 16 + h * 8), d);
                acc[t][h] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sum[t][h]), acc[t][h]);
                if (T::kHasMin) {
                    acc[t][h] = _mm256_fmadd_ps(_mm256_load_ps(w.m + b * 16 + h * 8),
                                                _mm256_set1_ps(in.s[at]), acc[t][h]);
                }
            }
        }
    }
}

template <class T, int NT>
inline void tile_block256(const Unpacked& w, const InputRows& in, const int* tokens,
                          __m256 (*acc)[2]) {
    constexpr int kGroups = 256 / T::kGroup;
    constexpr bool kPairs = T::kHasMin || T::kShift >= 0;
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
        __m256i sum[NT][2], pair[NT][2];
        for (int t = 0; t < NT; ++t) {
            sum[t][0] = sum[t][1] = pair[t][0] = pair[t][1] = _mm256_setzero_si256();
        }
        for (int g = 0; g < kGroups; ++g) {
            const int16_t* s = w.scales + (b * kGroups + g) * 32;
            const __m256i scale[2] = {load256(s), load256(s + 16)};
            multiply_quads<T, NT, T::kGroup / 4>(w.codes + (b * kGroups + g) * T::kGroup * 16,
                                                 input, scale, sum);
            for (int t = 0; t < NT; ++t) input[t] += T::kGroup;
        }
        for (int g = 0; kPairs && g < kGroups / 2; ++g) {
            const int16_t* p = w.pairs + (b * kGroups / 2 + g) * 32;
            for (int t = 0; t < NT; ++t) {
                const __m256i x = broadcast32(sums[t] + b * kGroups + 2 * g);
                for (int h = 0; h < 2; ++h) {
                    pair[t][h] = _mm256_add_epi32(pair[t][h],
                                                  _mm256_madd_epi16(load256(p + h * 16), x));
                }
            }
        }
        for (int t = 0; t < NT; ++t) {
            const __m256 d = _mm256_set1_ps(in.d[static_cast<size_t>(tokens[t]) * blocks + b]);
            for (int h = 0; h < 2; ++h) {
                __m256i total = sum[t][h];
                if constexpr (T::kShift >= 0) {
                    total = _mm256_sub_epi32(total, _mm256_slli_epi32(pair[t][h], T::kShift));
                }
                const __m256 scale = _mm256_mul_ps(_mm256_load_ps(w.d + b * 16 + h * 8), d);
                acc[t][h] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(total), acc[t][h]);
                if (T::kHasMin) {
                    const __m256 m = _mm256_mul_ps(_mm256_load_ps(w.m + b * 16 + h * 8), d);
                    acc[t][h] = _mm256_fnmadd_ps(m, _mm256_cvtepi32_ps(pair[t][h]), acc[t][h]);
                }
            }
        }
    }
}

template <class T, bool Super, int NT>
void tile(const Panel& panel, const Unpacked& w, int first) {
    int tokens[NT];
    for (int t = 0; t < NT; ++t) {
        tokens[t] = panel.in_rows ? panel.in_rows[first + t] : first + t;
    }
    __m256 acc[NT][2];
    for (int t = 0; t < NT; ++t) acc[t][0] = acc[t][1] = _mm256_setzero_ps();
    if constexpr (Super) {
        tile_block256<T, NT>(w, *panel.input, tokens, acc);
    } else {
        tile_block32<T, NT>(w, *panel.input, tokens, acc);
    }
    for (int t = 0; t < NT; ++t) {
        const int to = panel.out_rows ? panel.out_rows[first + t] : first + t;
        float* out = panel.out + static_cast<size_t>(to) * panel.out_stride;
        store_rows(out, acc[t][0], panel.rows);
        if (panel.rows > 8) store_rows(out + 8, acc[t][1], panel.rows - 8);
    }
}

template <class T, bool Super, int NT = kTileTokens>
inline void run_tiles(const Panel& panel, const Unpacked& w, int first = 0) {
    for (; first + NT <= panel.tokens; first += NT) tile<T, Super, NT>(panel, w, first);
    if constexpr (NT > 1) run_tiles<T, Super, NT - 1>(panel, w, first);
}

// Unpacking costs about as much as three tokens' products.
inline constexpr int kGemmTokens = 4;

template <class T, bool Super>
void matmul(const Panel& panel) {
    if (panel.tokens < kGemmTokens) return gemv<T, Super>(panel);
    const Unpacked w(panel.scratch, panel.input->columns, Super ? 256 : 32);
    if constexpr (Super) {
        unpack_block256<T>(panel, w);
    } else {
        unpack_block32<T>(panel, w);
    }
    run_tiles<T, Super>(panel, w);
}

}  // namespace
}  // namespace moestream
