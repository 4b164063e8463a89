// A panel of 16 rows taken apart, to be run against many tokens.
//
// Codes lie as the multiply wants them: four columns of eight rows to a register, so that four
// bytes of a token's input, broadcast, meet eight rows at once and nothing is folded.
#pragma once

#include "kernels/avx2/gemv.h"

namespace moestream {
namespace {

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

// By how much a panel's codes are too large. Signed ones are made unsigned, which is what
// multiplies take, where nothing else is lost: with VNNI, or if sums of several products still fit
// in int16.
template <class T>
inline constexpr int kPanelOffset = !T::kSigned                ? T::kOffset
                                    : kVnni                    ? 128
                                    : T::kLayout.largest <= 16 ? std::bit_ceil(
                                          static_cast<unsigned>(T::kLayout.largest))
                                                               : 0;
// Whether they still have a sign.
template <class T>
inline constexpr bool kPanelSigned = T::kSigned && kPanelOffset<T> == 0;

template <class T>
inline __m256i panel_codes(__m256i codes) {
    if constexpr (!T::kSigned || kPanelSigned<T>) {
        return codes;
    } else {
        return _mm256_add_epi8(codes, _mm256_set1_epi8(static_cast<char>(kPanelOffset<T>)));
    }
}

// Codes of 32 columns of eight rows, to every other register of `to`.
inline void store_codes(__m256i* v, uint8_t* to) {
    transpose8(v);
    for (int quad = 0; quad < 8; ++quad) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + quad * 64), v[quad]);
    }
}

template <class T, int J>
inline void unpack_group(const auto& rows, uint8_t* to) {
    __m256i v[8];
    for (int r = 0; r < 8; ++r) v[r] = panel_codes<T>(T::template codes<J>(rows[r]));
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
inline void unpack_scales(const auto& rows, int half, int block, const Unpacked& to) {
    constexpr bool kLater = T::kGroups == 16;
    __m256i v[8], weights[8];
    for (int r = 0; r < 8; ++r) {
        v[r] = T::scales(rows[r]);
        weights[r] = weights_of_sums<T>(rows[r], v[r]);
    }
    transpose16(v);
    int16_t* scales = to.scales + block * T::kGroups * 32 + half * 16;
    for (int g = 0; g < 8; ++g) {
        store_pairs(v[g], v[g], scales + g * 32, kLater ? scales + (g + 8) * 32 : nullptr);
    }
    transpose16(weights);
    int16_t* pairs = to.pairs + block * T::kGroups * 16 + half * 16;
    for (int g = 0; g < 8; g += 2) {
        store_pairs(weights[g], weights[g + 1], pairs + g * 16,
                    kLater ? pairs + (g + 8) * 16 : nullptr);
    }
}

// The codes of a block's eight rows, and of a super-block its integer scales.
template <class T>
inline void unpack_codes(const uint8_t* const* rows, size_t at, int half, int block,
                         const Unpacked& to) {
    uint8_t* codes = to.codes + static_cast<size_t>(block) * T::kUnit * T::kParts * 16 + half * 32;
    if constexpr (T::kSuper) {
        const OpenedAhead<T> open(rows, at);
        unpack_group<T, 0>(open, codes), unpack_group<T, 1>(open, codes);
        unpack_group<T, 2>(open, codes), unpack_group<T, 3>(open, codes);
        unpack_group<T, 4>(open, codes), unpack_group<T, 5>(open, codes);
        unpack_group<T, 6>(open, codes), unpack_group<T, 7>(open, codes);
        unpack_scales<T>(open, half, block, to);
    } else {
        unroll<T::kParts>([&](auto part) {
            __m256i v[8];
            for (int r = 0; r < 8; ++r) {
                v[r] = panel_codes<T>(codes_of_part<T, part>(rows[r] + at));
            }
            store_codes(v, codes + part * 512);
        });
    }
}

template <class T>
inline void unpack_rows(const Panel& panel, const Unpacked& to) {
    constexpr int kFloats = T::kUnit * T::kParts / T::kBlock;  // scales of a block
    const int blocks = panel.input->columns / (T::kUnit * T::kParts);
    for (int half = 0; half < 2; ++half) {
        const uint8_t* rows[8];
        row_pointers<8>(panel, half * 8, rows);
        const uintptr_t ahead = panel.next + half * 8 * panel.row_bytes;
        for (int b = 0; b < blocks; ++b) {
            const size_t at = static_cast<size_t>(b) * T::kBytes;
            prefetch<8 * T::kBytes>(ahead + 8 * at);
            unpack_codes<T>(rows, at, half, b, to);
            unroll<kFloats>([&](auto i) {
                __m256 d, m = _mm256_setzero_ps();
                load_floats8<T>(rows, at, i, &d, &m);
                const int block = b * kFloats + i;
                _mm256_store_ps(to.d + block * 16 + half * 8, d);
                if constexpr (T::kHasMin) _mm256_store_ps(to.m + block * 16 + half * 8, m);
            });
        }
    }
}

}  // namespace
}  // namespace moestream
