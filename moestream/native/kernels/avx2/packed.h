// Products with packed matrices (packing.h): a lane is a row from the first load to the last sum.
//
// Memory is read as one stream. Processors with VNNI read it faster when it is asked for ahead (49
// instead of 41 GB/s on two cores of a Zen 5); older ones read it slower (28 instead of 40).
#pragma once

#include "core/packing.h"
#include "kernels/avx2/gemm.h"

namespace moestream {
namespace {

// Ask for a block that is a few blocks on.
template <int Bytes>
inline void prefetch_stream(const uint8_t* p) {
    constexpr int kAhead = 2048;
    if constexpr (kVnni) prefetch<Bytes>(reinterpret_cast<uintptr_t>(p) + kAhead);
}

// Codes of quad Q of 32 columns.
template <class T, int Q>
inline __m256i packed_codes(const uint8_t* group) {
    constexpr int kBits = packing_of(T::kType).code_bits;
    if constexpr (kBits == 8) return load256(group + Q * 32);
    const __m256i v = load256(group + Q % 4 * 32);
    const __m256i low =
        _mm256_and_si256(Q < 4 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
    if constexpr (kBits == 4) return low;
    constexpr int kAt = Q % 4 * 2;
    const __m256i h = load256(group + 128 + Q / 4 * 32);
    const __m256i high =
        kAt < 4 ? _mm256_slli_epi16(h, kAt < 4 ? 4 - kAt : 0) : _mm256_srli_epi16(h, kAt - 4);
    return _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(48)));
}

// Pair sums of quad Q with one token's 32 inputs.
template <class T, int Q>
inline __m256i packed_pairs(const uint8_t* group, const int8_t* q) {
    return pair_sums<T>(packed_codes<T, Q>(group), broadcast32(q + Q * 4));
}

// Sum over quads First to First + 3.
template <class T, int First>
inline __m256i packed_quads(__m256i sum, const uint8_t* group, const int8_t* q) {
    const auto add = [&]<int Q>(__m256i to) {
        return quad_sums<T>(to, packed_codes<T, Q>(group), broadcast32(q + Q * 4));
    };
    sum = add.template operator()<First>(sum);
    sum = add.template operator()<First + 1>(sum);
    sum = add.template operator()<First + 2>(sum);
    return add.template operator()<First + 3>(sum);
}

// Sum over quads First to First + 3, int16 totals as long as they fit, times a scale a row that is
// there twice.
template <class T, int First>
inline __m256i packed_half(const uint8_t* group, const int8_t* q, __m256i scale) {
    const __m256i a = packed_pairs<T, First>(group, q), b = packed_pairs<T, First + 1>(group, q);
    const __m256i c = packed_pairs<T, First + 2>(group, q), d = packed_pairs<T, First + 3>(group, q);
    if constexpr (T::kSteps >= 4) {
        return _mm256_madd_epi16(_mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_add_epi16(c, d)),
                                 scale);
    } else if constexpr (T::kSteps == 2) {
        return _mm256_add_epi32(_mm256_madd_epi16(_mm256_add_epi16(a, b), scale),
                                _mm256_madd_epi16(_mm256_add_epi16(c, d), scale));
    } else {
        return _mm256_add_epi32(
            _mm256_add_epi32(_mm256_madd_epi16(a, scale), _mm256_madd_epi16(b, scale)),
            _mm256_add_epi32(_mm256_madd_epi16(c, scale), _mm256_madd_epi16(d, scale)));
    }
}

// sum + the sums over quads First to Last.
template <class T, int First, int Last>
inline __m256i packed_quads(__m256i sum, const uint8_t* group, const int8_t* q) {
    sum = quad_sums<T>(sum, packed_codes<T, First>(group), broadcast32(q + First * 4));
    if constexpr (First == Last) {
        return sum;
    } else {
        return packed_quads<T, First + 1, Last>(sum, group, q);
    }
}

// sum + the sum over a group of columns, 32 or (from quad First) 16, times its scale.
template <class T, int First = 0>
inline __m256i packed_group(__m256i sum, const uint8_t* group, const int8_t* q, __m256i scale) {
    constexpr int kLast = First + T::kGroup / 4 - 1;
    if constexpr (kVnni) {
        const __m256i part = packed_quads<T, First, kLast>(_mm256_setzero_si256(), group, q);
        return _mm256_add_epi32(sum, _mm256_mullo_epi32(part, _mm256_srai_epi32(scale, 16)));
    }
    sum = _mm256_add_epi32(sum, packed_half<T, First>(group, q, scale));
    if constexpr (T::kGroup == 16) return sum;
    return _mm256_add_epi32(sum, packed_half<T, 4>(group, q, scale));
}

template <class T>
inline __m256 packed_dot_block32(const uint8_t* p, const InputRows& in, int token) {
    constexpr Packing kPacking = packing_of(T::kType);
    const int blocks = in.columns / 32;
    const size_t at = static_cast<size_t>(token) * blocks;
    const int8_t* q = in.q + at * 32;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 acc = _mm256_setzero_ps();
    for (int b = 0; b < blocks; ++b, p += kPacking.block_bytes, q += 32) {
        prefetch_stream<kPacking.block_bytes>(p);
        const uint8_t* codes = p + kPacking.codes_at();
        __m256i sum = kVnni ? packed_quads<T, 0, 7>(_mm256_setzero_si256(), codes, q)
                            : _mm256_add_epi32(packed_half<T, 0>(codes, q, ones),
                                               packed_half<T, 4>(codes, q, ones));
        if (T::kOffset) {
            sum = _mm256_sub_epi32(sum, _mm256_set1_epi32(T::kOffset * in.sums32[at + b]));
        }
        const __m256 scale = _mm256_mul_ps(_mm256_cvtph_ps(load128(p)), _mm256_set1_ps(in.d[at + b]));
        acc = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sum), acc);
        if (T::kHasMin) {
            acc = _mm256_fmadd_ps(_mm256_cvtph_ps(load128(p + 16)), _mm256_set1_ps(in.s[at + b]),
                                  acc);
        }
    }
    return acc;
}

// Scales of a pair of groups as int16: the first (or second) of each pair twice.
inline __m256i first_of_pairs(__m256i pairs) {
    return _mm256_or_si256(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff)),
                           _mm256_slli_epi32(pairs, 16));
}

inline __m256i second_of_pairs(__m256i pairs) {
    return _mm256_or_si256(_mm256_srli_epi32(pairs, 16),
                           _mm256_andnot_si256(_mm256_set1_epi32(0xffff), pairs));
}

template <class T>
inline __m256i packed_scales(const uint8_t* p) {
    return packing_of(T::kType).offset ? _mm256_cvtepi8_epi16(load128(p))
                                       : _mm256_cvtepu8_epi16(load128(p));
}

template <class T>
inline __m256 packed_dot_block256(const uint8_t* p, const InputRows& in, int token) {
    constexpr Packing kPacking = packing_of(T::kType);
    constexpr int kGroups = 256 / T::kGroup;
    const int blocks = in.columns / 256;
    const auto row = static_cast<size_t>(token);
    const int8_t* q = in.q + row * in.columns;
    const float* d = in.d + row * blocks;
    const int16_t* sums = T::kGroup == 16 ? in.sums16 + row * (in.columns / 16)
                                          : in.sums32 + row * (in.columns / 32);
    __m256 acc = _mm256_setzero_ps();
    for (int b = 0; b < blocks; ++b, p += kPacking.block_bytes, sums += kGroups) {
        prefetch_stream<kPacking.block_bytes>(p);
        __m256i sum = _mm256_setzero_si256(), pair = sum;
        for (int n = 0; n < kPacking.pairs; ++n) {
            const __m256i scales = packed_scales<T>(p + kPacking.scales_at() + n * 16);
            const __m256i first = first_of_pairs(scales), second = second_of_pairs(scales);
            const __m256i weights =
                T::kHasMin ? _mm256_cvtepu8_epi16(load128(p + kPacking.mins_at() + n * 16)) : scales;
            pair = _mm256_add_epi32(pair, _mm256_madd_epi16(weights, broadcast32(sums + 2 * n)));
            const uint8_t* codes = p + kPacking.codes_at();
            if constexpr (T::kGroup == 16) {
                codes += n * kPacking.group_bytes();
                sum = packed_group<T>(sum, codes, q, first);
                sum = packed_group<T, 4>(sum, codes, q, second);
                q += 32;
            } else {
                codes += 2 * n * kPacking.group_bytes();
                sum = packed_group<T>(sum, codes, q, first);
                codes += kPacking.group_bytes();
                sum = packed_group<T>(sum, codes, q + 32, second);
                q += 64;
            }
        }
        if constexpr (T::kShift >= 0) {
            sum = _mm256_sub_epi32(sum, _mm256_slli_epi32(pair, T::kShift));
        }
        const __m256 input = _mm256_set1_ps(d[b]);
        acc = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtph_ps(load128(p)), input),
                              _mm256_cvtepi32_ps(sum), acc);
        if constexpr (T::kHasMin) {
            acc = _mm256_fnmadd_ps(_mm256_mul_ps(_mm256_cvtph_ps(load128(p + 16)), input),
                                   _mm256_cvtepi32_ps(pair), acc);
        }
    }
    return acc;
}

template <class T, bool Super>
inline void packed_gemv(const Panel& panel) {
    for (int first = 0; first < panel.rows; first += kPackedRows) {
        const uint8_t* p = panel.weights + first / kPackedRows * panel.row_bytes;
        for (int t = 0; t < panel.tokens; ++t) {
            const int from = panel.in_rows ? panel.in_rows[t] : t;
            const int to = panel.out_rows ? panel.out_rows[t] : t;
            __m256 sum;
            if constexpr (Super) {
                sum = packed_dot_block256<T>(p, *panel.input, from);
            } else {
                sum = packed_dot_block32<T>(p, *panel.input, from);
            }
            store_rows(panel.out + static_cast<size_t>(to) * panel.out_stride + first, sum,
                       panel.rows - first);
        }
    }
}

template <class T, int Q = 0>
inline void unpack_packed_codes(const uint8_t* group, uint8_t* to) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + Q * 64), packed_codes<T, Q>(group));
    if constexpr (Q < 7) unpack_packed_codes<T, Q + 1>(group, to);
}

template <class T, bool Super>
inline void unpack_packed(const Panel& panel, const Unpacked& to) {
    constexpr Packing kPacking = packing_of(T::kType);
    constexpr int kGroups32 = Super ? 8 : 1;
    const int blocks = panel.input->columns / (Super ? 256 : 32);
    for (int half = 0; half < 2; ++half) {
        // A last panel of eight rows or less has no second half: any rows will do, unseen.
        const bool there = half * kPackedRows < panel.rows;
        const uint8_t* p = panel.weights + (there ? half : 0) * panel.row_bytes;
        for (int b = 0; b < blocks; ++b, p += kPacking.block_bytes) {
            _mm256_store_ps(to.d + b * 16 + half * 8, _mm256_cvtph_ps(load128(p)));
            if (T::kHasMin) {
                _mm256_store_ps(to.m + b * 16 + half * 8, _mm256_cvtph_ps(load128(p + 16)));
            }
            for (int n = 0; n < kPacking.pairs; ++n) {
                const __m256i scales = packed_scales<T>(p + kPacking.scales_at() + n * 16);
                const __m256i weights =
                    T::kHasMin ? _mm256_cvtepu8_epi16(load128(p + kPacking.mins_at() + n * 16))
                               : scales;
                const int pair = b * kPacking.pairs + n;
                auto* at = reinterpret_cast<__m256i*>(to.scales + pair * 64 + half * 16);
                _mm256_storeu_si256(at, first_of_pairs(scales));
                _mm256_storeu_si256(at + 2, second_of_pairs(scales));
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.pairs + pair * 32 + half * 16),
                                    weights);
            }
            for (int g = 0; g < kGroups32; ++g) {
                unpack_packed_codes<T>(p + kPacking.codes_at() + g * kPacking.group_bytes(),
                                       to.codes + (b * kGroups32 + g) * 512 + half * 32);
            }
        }
    }
}

template <class T, bool Super>
void matmul_packed(const Panel& panel) {
    if (panel.tokens < kGemmTokens) return packed_gemv<T, Super>(panel);
    const Unpacked w(panel.scratch, panel.input->columns, Super ? 256 : 32);
    unpack_packed<T, Super>(panel, w);
    run_tiles<T, Super>(panel, w);
}

}  // namespace
}  // namespace moestream
