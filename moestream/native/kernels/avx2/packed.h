// Products with packed matrices (packing.h): a lane is a row from the first load to the last sum.
//
// Memory is read as one stream. Processors with VNNI read it faster when it is asked for ahead (49
// instead of 41 GB/s on two cores of a Zen 5); older ones read it slower (28 instead of 40).
#pragma once

#include "core/packing.h"
#include "kernels/avx2/unpack.h"

namespace moestream {
namespace {

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
    return pair_sums<T::kSigned>(packed_codes<T, Q>(group), broadcast32(q + Q * 4));
}

// Sum over quads First to First + 3, int16 totals as long as they fit, times a scale a row that is
// there twice.
template <class T, int First>
inline __m256i packed_half(const uint8_t* group, const int8_t* q, __m256i scale) {
    const __m256i a = packed_pairs<T, First>(group, q), b = packed_pairs<T, First + 1>(group, q);
    const __m256i c = packed_pairs<T, First + 2>(group, q);
    const __m256i d = packed_pairs<T, First + 3>(group, q);
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

// Scales of a pair of groups as int16: the first (or second) of each pair twice.
inline __m256i first_of_pairs(__m256i pairs) {
    return _mm256_or_si256(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff)),
                           _mm256_slli_epi32(pairs, 16));
}

inline __m256i second_of_pairs(__m256i pairs) {
    return _mm256_or_si256(_mm256_srli_epi32(pairs, 16),
                           _mm256_andnot_si256(_mm256_set1_epi32(0xffff), pairs));
}

// Those of a packed block's pair `n`, and what the pair's input sums are multiplied by.
template <class T>
inline __m256i packed_scales(const uint8_t* p, int n) {
    const __m128i bytes = load128(p + packing_of(T::kType).scales_at() + n * 16);
    return T::kOffset != 0 ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
}

template <class T>
inline __m256i packed_weights(const uint8_t* p, int n, __m256i scales) {
    if constexpr (!T::kHasMin) return scales;
    return _mm256_cvtepu8_epi16(load128(p + packing_of(T::kType).mins_at() + n * 16));
}

template <class T, int Q = 0>
inline void unpack_packed_codes(const uint8_t* group, uint8_t* to) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + Q * 64),
                       panel_codes<T>(packed_codes<T, Q>(group)));
    if constexpr (Q < 7) unpack_packed_codes<T, Q + 1>(group, to);
}

// The integer scales of a packed block's groups, and what their input sums are multiplied by.
template <class T>
inline void unpack_packed_scales(const uint8_t* p, int block, int half, const Unpacked& to) {
    constexpr Packing kPacking = packing_of(T::kType);
    for (int n = 0; n < kPacking.pairs; ++n) {
        const __m256i scales = packed_scales<T>(p, n);
        const int pair = block * kPacking.pairs + n;
        auto* at = reinterpret_cast<__m256i*>(to.scales + pair * 64 + half * 16);
        _mm256_storeu_si256(at, first_of_pairs(scales));
        _mm256_storeu_si256(at + 2, second_of_pairs(scales));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.pairs + pair * 32 + half * 16),
                            packed_weights<T>(p, n, scales));
    }
}

struct Avx2Packed : Avx2Gemv {
    // Ask for a block that is a few blocks on.
    template <int Bytes>
    static void prefetch_stream(const uint8_t* p) {
        constexpr int kAhead = 2048;
        if constexpr (kVnni) prefetch<Bytes>(reinterpret_cast<uintptr_t>(p) + kAhead);
    }

    // The sums of a block of 32 columns, the input's from `column` on.
    template <class T, int NT>
    static void packed_block32(const uint8_t* codes, const int8_t* const* x, int column,
                               Int* sums) {
        const int8_t* q = x[0] + column;
        if constexpr (kVnni) {
            *sums = packed_quads<T, 0, 7>(zero_int(), codes, q);
        } else {
            const Int ones = _mm256_set1_epi16(1);
            *sums = _mm256_add_epi32(packed_half<T, 0>(codes, q, ones),
                                     packed_half<T, 4>(codes, q, ones));
        }
    }

    // A super-block's pair `n` of groups.
    template <class T, int NT>
    static void packed_pair(const uint8_t* p, int block, int n, const TokenRows<T, NT>& x,
                            Int* sums, Int* weighed) {
        constexpr Packing kPacking = packing_of(T::kType);
        constexpr int kBytes = kPacking.group_bytes();
        const Int scales = packed_scales<T>(p, n);
        const Int first = first_of_pairs(scales), second = second_of_pairs(scales);
        const Int input = broadcast32(x.sums(0, block * T::kGroups + 2 * n));
        *weighed = _mm256_add_epi32(
            *weighed, _mm256_madd_epi16(packed_weights<T>(p, n, scales), input));
        const int8_t* q = x.q[0] + block * 256 + 2 * n * T::kGroup;
        const uint8_t* codes = p + kPacking.codes_at() + n * T::kGroup / 16 * kBytes;
        *sums = packed_group<T>(*sums, codes, q, first);
        if constexpr (T::kGroup == 16) {
            *sums = packed_group<T, 4>(*sums, codes, q, second);
        } else {
            *sums = packed_group<T>(*sums, codes + kBytes, q + 32, second);
        }
    }

    template <class T>
    static void unpack_packed(const Panel& panel, int, const Unpacked& to) {
        constexpr Packing kPacking = packing_of(T::kType);
        constexpr int kGroups32 = T::kBlock / 32;
        const int blocks = panel.input->columns / T::kBlock;
        for (int half = 0; half < 2; ++half) {
            // A last panel of eight rows or less has no second half: any rows will do, unseen.
            const bool there = half * kPackedRows < panel.rows;
            const uint8_t* p = panel.weights + (there ? half : 0) * panel.row_bytes;
            for (int b = 0; b < blocks; ++b, p += kPacking.block_bytes) {
                _mm256_store_ps(to.d + b * 16 + half * 8, load_halves(p));
                if (T::kHasMin) _mm256_store_ps(to.m + b * 16 + half * 8, load_halves(p + 16));
                unpack_packed_scales<T>(p, b, half, to);
                for (int g = 0; g < kGroups32; ++g) {
                    unpack_packed_codes<T>(p + kPacking.codes_at() + g * kPacking.group_bytes(),
                                           to.codes + (b * kGroups32 + g) * 512 + half * 32);
                }
            }
        }
    }
};

}  // namespace
}  // namespace moestream
