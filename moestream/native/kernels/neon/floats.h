// What NEON brings to rows of floats: float formats, and int8 blocks.
#pragma once

#include "kernels/neon/registers.h"

namespace moestream {
namespace {

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

struct NeonFloats : NeonRegisters {
    // Tokens of a product with float weights whose 2 x 4 x 2 accumulators fit in the registers.
    static constexpr int kFloatTokens = 2;

    // Eight weights, in two registers.
    template <Type T>
    static void load_values(const uint8_t* p, Float* to) {
        if constexpr (T == Type::F32) {
            to[0] = vreinterpretq_f32_u8(vld1q_u8(p));
            to[1] = vreinterpretq_f32_u8(vld1q_u8(p + 16));
        } else {
            const uint16x8_t v = vreinterpretq_u16_u8(vld1q_u8(p));
            if constexpr (T == Type::F16) {
                to[0] = halves_to_float(vget_low_u16(v));
                to[1] = halves_to_float(vget_high_u16(v));
            } else {
                to[0] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(v), 16));
                to[1] = vreinterpretq_f32_u32(vshll_high_n_u16(v, 16));
            }
        }
    }

    // Eight int8 as floats.
    static void load_codes(const uint8_t* p, Float* to) {
        const int16x8_t q = vmovl_s8(vld1_s8(reinterpret_cast<const int8_t*>(p)));
        to[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(q)));
        to[1] = vcvtq_f32_s32(vmovl_high_s16(q));
    }

    static float half(const uint8_t* p) { return load_half(p); }

    static void store_halves(uint16_t* to, Float v) {
        vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(v)));
    }

    static uint32_t largest_magnitude(const float* x, int count) {
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

    // 32 floats to int8, with the sums of both halves.
    static void quantize32(const float* x, float inverse, int8_t* q, int* sums) {
        sums[0] = quantize_16(x, inverse, q);
        sums[1] = quantize_16(x + 16, inverse, q + 16);
    }
};

}  // namespace
}  // namespace moestream
