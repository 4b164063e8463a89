// What is done to rows of floats between the products: int8 blocks, norms, activations, float16.
#pragma once

#include <cmath>
#include <limits>

#include "core/kernels.h"
#include "kernels/neon/common.h"

namespace moestream {
namespace {

// As in scalar.cpp.
constexpr float kTiny = 1e-30f;

inline uint32_t largest_magnitude(const float* x, int count) {
    uint32x4_t most[2] = {vdupq_n_u32(0), vdupq_n_u32(0)};
    const uint32x4_t magnitude = vdupq_n_u32(0x7fffffffu);
    for (int i = 0; i < count; i += 8) {
        // As integers, so that NaN counts as more than infinity.
        unroll<2>([&](auto half) {
            const uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(x + i + half * 4));
            most[half] = vmaxq_u32(most[half], vandq_u32(bits, magnitude));
        });
    }
    return vmaxvq_u32(vmaxq_u32(most[0], most[1]));
}

// 16 floats to int8; returns their sum.
inline int quantize_16(const float* x, float inverse, int8_t* q) {
    const auto eight = [&](const float* from) {
        const int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(from), inverse));
        const int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(from + 4), inverse));
        return vmovn_s16(vcombine_s16(vmovn_s32(low), vmovn_s32(high)));
    };
    const int8x16_t packed = vcombine_s8(eight(x), eight(x + 8));
    vst1q_s8(q, packed);
    return vaddlvq_s8(packed);
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
        const float inverse = 127.0f / amax;
        for (int g = 0; g < Block / 32; ++g) {
            const int at = b * (Block / 32) + g;
            int sums[2] = {};
            if (usable) {
                sums[0] = quantize_16(x + g * 32, inverse, out.q + at * 32);
                sums[1] = quantize_16(x + g * 32 + 16, inverse, out.q + at * 32 + 16);
            } else {
                std::memset(out.q + at * 32, 0, 32);
            }
            const int total = sums[0] + sums[1];
            out.sums32[at] = static_cast<int16_t>(total);
            if constexpr (Block == 256) {
                out.sums16[2 * at] = static_cast<int16_t>(sums[0]);
                out.sums16[2 * at + 1] = static_cast<int16_t>(sums[1]);
            } else {
                out.s[b] = out.d[b] * static_cast<float>(total);
            }
        }
    }
}

void rms_norm(const float* x, const float* weight, int columns, float eps, float* out) {
    float32x4_t acc[2] = {vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)};
    for (int i = 0; i < columns; i += 8) {
        unroll<2>([&](auto half) {
            const int at = i + half * 4, left = columns - at;
            if (left <= 0) return;
            // Squares are never -0: zeros in place of what is not there change nothing.
            const float32x4_t v = left >= 4 ? vld1q_f32(x + at) : load_some(x + at, left);
            acc[half] = vfmaq_f32(acc[half], v, v);
        });
    }
    const float scale = 1.0f / std::sqrt(fold_float(acc) / static_cast<float>(columns) + eps);
    for (int i = 0; i < columns; ++i) out[i] = x[i] * scale * weight[i];
}

inline float32x4_t swiglu4(float32x4_t gate, float32x4_t up) {
    const float32x4_t divisor = vaddq_f32(vdupq_n_f32(1.0f), exp4(vnegq_f32(gate)));
    return vmulq_f32(vdivq_f32(gate, divisor), up);
}

void swiglu(const float* gate, const float* up, int count, float* out) {
    int i = 0;
    for (; i + 4 <= count; i += 4) {
        vst1q_f32(out + i, swiglu4(vld1q_f32(gate + i), vld1q_f32(up + i)));
    }
    if (i < count) {
        store_rows(out + i, swiglu4(load_some(gate + i, count - i), load_some(up + i, count - i)),
                   count - i);
    }
}

void to_half(const float* x, int count, uint16_t* out) {
    int i = 0;
    for (; i + 4 <= count; i += 4) {
        vst1_u16(out + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
    }
    for (; i < count; ++i) out[i] = float_to_half(x[i]);
}

void exponentials(const float* x, int count, float shift, float* out) {
    const float32x4_t by = vdupq_n_f32(shift);
    int i = 0;
    for (; i + 4 <= count; i += 4) vst1q_f32(out + i, exp4(vsubq_f32(vld1q_f32(x + i), by)));
    if (i < count) {
        store_rows(out + i, exp4(vsubq_f32(load_some(x + i, count - i), by)), count - i);
    }
}

}  // namespace
}  // namespace moestream
