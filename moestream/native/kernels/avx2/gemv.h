// Products with one or a few tokens: eight rows side by side, blocks taken apart as they come.
//
// A lane of the accumulator is a row: the integer sum of each block is folded before it becomes
// a float, which is what makes every instruction set's result the same.
#pragma once

#include "core/kernels.h"
#include "kernels/avx2/types.h"

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

template <class T>
inline __m256 dot8_block32(const uint8_t* const* rows, uintptr_t ahead, const InputRows& in,
                           int token) {
    const int blocks = in.columns / 32;
    const int8_t* q = in.q + static_cast<size_t>(token) * in.columns;
    const float* d = in.d + static_cast<size_t>(token) * blocks;
    const float* s = in.s + static_cast<size_t>(token) * blocks;
    const int16_t* sums = in.sums32 + static_cast<size_t>(token) * blocks;
    __m256 acc = _mm256_setzero_ps();
    size_t at = 0;
    for (int b = 0; b < blocks; ++b, at += kBytes<T>) {
        const __m256i input = load256(q + b * 32), zero = _mm256_setzero_si256();
        __m256i v[8];
        for (int r = 0; r < 8; ++r) {
            if (r % 2 == 0) prefetch<2 * kBytes<T>>(ahead + 8 * at + r * kBytes<T>);
            v[r] = quad_sums<T>(zero, T::codes(rows[r] + at), input);
        }
        __m256i sum = T::kSmall ? fold8_small(v, 1) : fold8(v, 1);
        if (T::kOffset) sum = _mm256_sub_epi32(sum, _mm256_set1_epi32(T::kOffset * sums[b]));
        __m256 scale, min;
        if constexpr (T::kHasMin) {
            load_half_pairs8(rows, at, &scale, &min);
        } else {
            scale = load_scales8<T>(rows, at);
        }
        scale = _mm256_mul_ps(scale, _mm256_set1_ps(d[b]));
        acc = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sum), acc);
        if constexpr (T::kHasMin) acc = _mm256_fmadd_ps(min, _mm256_set1_ps(s[b]), acc);
    }
    return acc;
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

template <class T, int J>
inline __m256i add_group(__m256i acc, const uint8_t* p, const int8_t* q, __m256i scales) {
    const __m256i pairs = pair_sums<T>(T::template codes<J>(p), load256(q + J * 32));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, spread_scale<J>(scales)));
}

// The lanes of a super-block's integer sum; its minimums' (or offset's) sum in `mins`.
template <class T>
inline __m256i dot_block256(const uint8_t* p, const int8_t* q, __m256i sums, __m256i* mins) {
    const __m256i natural = T::scales(p);
    if (T::kShift >= 0) *mins = _mm256_madd_epi16(natural, sums);
    if (T::kHasMin) *mins = _mm256_madd_epi16(T::mins(p), sums);
    const __m256i scales = T::kGroup == 16 ? split_even_odd(natural) : natural;
    __m256i a = _mm256_setzero_si256(), b = a;
    a = add_group<T, 0>(a, p, q, scales), b = add_group<T, 1>(b, p, q, scales);
    a = add_group<T, 2>(a, p, q, scales), b = add_group<T, 3>(b, p, q, scales);
    a = add_group<T, 4>(a, p, q, scales), b = add_group<T, 5>(b, p, q, scales);
    a = add_group<T, 6>(a, p, q, scales), b = add_group<T, 7>(b, p, q, scales);
    if (T::kShift >= 0) {
        a = _mm256_sub_epi32(a, _mm256_slli_epi32(*mins, T::kShift < 0 ? 0 : T::kShift));
    }
    return _mm256_add_epi32(a, b);
}

template <class T>
inline __m256 dot8_block256(const uint8_t* const* rows, uintptr_t ahead, const InputRows& in,
                            int token) {
    const int blocks = in.columns / 256;
    const int8_t* q = in.q + static_cast<size_t>(token) * in.columns;
    const float* d = in.d + static_cast<size_t>(token) * blocks;
    const int16_t* sums16 = in.sums16 + static_cast<size_t>(token) * (in.columns / 16);
    const int16_t* sums32 = in.sums32 + static_cast<size_t>(token) * (in.columns / 32);
    __m256 acc = _mm256_setzero_ps();
    size_t at = 0;
    for (int b = 0; b < blocks; ++b, at += kBytes<T>) {
        // With groups of 32 there are eight sums: zeros in the high half keep mins single.
        const __m256i sums = T::kGroup == 16
                                 ? load256(sums16 + b * 16)
                                 : _mm256_zextsi128_si256(load128(sums32 + b * 8));
        __m256i v[8], m[8];
        for (int r = 0; r < 8; ++r) {
            prefetch<kBytes<T>>(ahead + 8 * at + r * kBytes<T>);
            v[r] = dot_block256<T>(rows[r] + at, q + b * 256, sums, &m[r]);
        }
        __m256 scale, min;
        if constexpr (T::kHasMin) {
            load_half_pairs8(rows, at + T::kDAt, &scale, &min);
        } else {
            scale = load_halves8(rows, at + T::kDAt);
        }
        const __m256 input = _mm256_set1_ps(d[b]);
        acc = _mm256_fmadd_ps(_mm256_mul_ps(scale, input), _mm256_cvtepi32_ps(fold8(v, 1)), acc);
        if constexpr (T::kHasMin) {
            acc = _mm256_fnmadd_ps(_mm256_mul_ps(min, input), _mm256_cvtepi32_ps(fold8(m, 1)), acc);
        }
    }
    return acc;
}

inline void store_rows(float* out, __m256 values, int rows) {
    if (rows >= 8) {
        _mm256_storeu_ps(out, values);
        return;
    }
    float v[8];
    _mm256_storeu_ps(v, values);
    std::memcpy(out, v, rows * sizeof(float));
}

// Rows beyond the panel's last repeat its first: computed, never stored.
inline void row_pointers(const Panel& panel, int first, const uint8_t** rows) {
    for (int r = 0; r < 8; ++r) {
        const int row = first + r < panel.rows ? first + r : 0;
        rows[r] = panel.weights + row * panel.row_bytes;
    }
}

template <class T, bool Super>
inline void gemv(const Panel& panel) {
    for (int first = 0; first < panel.rows; first += 8) {
        const uint8_t* rows[8];
        row_pointers(panel, first, rows);
        const uintptr_t ahead = first + 8 < panel.rows
                                    ? reinterpret_cast<uintptr_t>(rows[0]) + 8 * panel.row_bytes
                                    : panel.next;
        for (int t = 0; t < panel.tokens; ++t) {
            const int from = panel.in_rows ? panel.in_rows[t] : t;
            const int to = panel.out_rows ? panel.out_rows[t] : t;
            __m256 sum;
            if constexpr (Super) {
                sum = dot8_block256<T>(rows, ahead, *panel.input, from);
            } else {
                sum = dot8_block32<T>(rows, ahead, *panel.input, from);
            }
            store_rows(panel.out + static_cast<size_t>(to) * panel.out_stride + first, sum,
                       panel.rows - first);
        }
    }
}

}  // namespace
}  // namespace moestream
