// Rows of floats: quantising them for a product, norms, activations, conversions. And attention.
#pragma once

#include <limits>

#include "core/kernels.h"
#include "kernels/avx2/attention.h"
#include "kernels/avx2/gemv.h"

namespace moestream {
namespace {

// As in scalar.cpp.
constexpr float kTiny = 1e-30f;

inline uint32_t largest_magnitude(const float* x, int count) {
    __m256i most = _mm256_setzero_si256();
    for (int i = 0; i < count; i += 8) {
        // As integers, so that NaN counts as more than infinity.
        const __m256i bits = _mm256_and_si256(load256(x + i), _mm256_set1_epi32(0x7fffffff));
        most = _mm256_max_epi32(most, bits);
    }
    const __m128i half =
        _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    const __m128i quarter = _mm_max_epi32(half, _mm_unpackhi_epi64(half, half));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(
        _mm_max_epi32(quarter, _mm_shuffle_epi32(quarter, 1))));
}

inline __m256i rounded8(const float* x, __m256 inverse) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
}

// 32 floats to int8, with the sums of both halves.
inline void quantize_32(const float* x, float inverse, int8_t* q, int* sums) {
    const __m256 scale = _mm256_set1_ps(inverse);
    const __m256i a = _mm256_packs_epi32(rounded8(x, scale), rounded8(x + 8, scale));
    const __m256i b = _mm256_packs_epi32(rounded8(x + 16, scale), rounded8(x + 24, scale));
    // The packs work on each half of a register: put the dwords back in order.
    const __m256i packed = _mm256_permutevar8x32_epi32(
        _mm256_packs_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), packed);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), packed);
    __m256i sum = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0x4e));
    sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0xb1));
    sums[0] = _mm_cvtsi128_si32(_mm256_castsi256_si128(sum));
    sums[1] = _mm_cvtsi128_si32(_mm256_extracti128_si256(sum, 1));
}

template <int Block>
void quantize(const float* x, int columns, const QuantizedRow& out) {
    for (int b = 0; b < columns / Block; ++b, x += Block) {
        const uint32_t largest = largest_magnitude(x, Block);
        const float amax = std::bit_cast<float>(largest);
        const bool usable = largest < 0x7f800000u && amax >= kTiny;
        out.d[b] = largest >= 0x7f800000u ? std::numeric_limits<float>::quiet_NaN()
                   : usable               ? amax / 127.0f
                                          : 0.0f;
        for (int g = 0; g < Block / 32; ++g) {
            const int at = b * (Block / 32) + g;
            int sums[2] = {};
            if (usable) {
                quantize_32(x + g * 32, 127.0f / amax, out.q + at * 32, sums);
            } else {
                std::memset(out.q + at * 32, 0, 32);
            }
            const int total = sums[0] + sums[1];
            out.sums32[at] = static_cast<int16_t>(total);
            if (Block == 256) {
                out.sums16[2 * at] = static_cast<int16_t>(sums[0]);
                out.sums16[2 * at + 1] = static_cast<int16_t>(sums[1]);
            } else {
                out.s[b] = out.d[b] * static_cast<float>(total);
            }
        }
    }
}

void rms_norm(const float* x, const float* weight, int columns, float eps, float* out) {
    __m256 acc = _mm256_setzero_ps();
    int i = 0;
    for (; i + 8 <= columns; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        acc = _mm256_fmadd_ps(v, v, acc);
    }
    if (i < columns) {
        const __m256 v = load_some(x + i, columns - i);
        acc = _mm256_fmadd_ps(v, v, acc);
    }
    const float mean = fold_float(acc) / static_cast<float>(columns);
    const float scale = 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean + eps)));
    for (int j = 0; j < columns; ++j) out[j] = x[j] * scale * weight[j];
}

inline __m256 swiglu8(__m256 gate, __m256 up) {
    const __m256 negative = _mm256_xor_ps(gate, _mm256_set1_ps(-0.0f));
    const __m256 divisor = _mm256_add_ps(_mm256_set1_ps(1.0f), exp8(negative));
    return _mm256_mul_ps(_mm256_div_ps(gate, divisor), up);
}

void swiglu(const float* gate, const float* up, int count, float* out) {
    int i = 0;
    for (; i + 8 <= count; i += 8) {
        _mm256_storeu_ps(out + i, swiglu8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    }
    if (i < count) {
        store_rows(out + i, swiglu8(load_some(gate + i, count - i), load_some(up + i, count - i)),
                   count - i);
    }
}

void attend(const AttentionTile& tile) {
    // No model has heads of other sizes; the scalar kernel takes them as they are.
    if (tile.dim % 8 != 0 || tile.value_dim % 8 != 0) return kScalarKernels.attend(tile);
    TileRun(tile).run();
}

void to_half(const float* x, int count, uint16_t* out) {
    int i = 0;
    for (; i + 8 <= count; i += 8) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    }
    for (; i < count; ++i) out[i] = float_to_half(x[i]);
}

void exponentials(const float* x, int count, float shift, float* out) {
    const __m256 by = _mm256_set1_ps(shift);
    int i = 0;
    for (; i + 8 <= count; i += 8) {
        _mm256_storeu_ps(out + i, exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i), by)));
    }
    if (i < count) {
        store_rows(out + i, exp8(_mm256_sub_ps(load_some(x + i, count - i), by)), count - i);
    }
}

}  // namespace
}  // namespace moestream
