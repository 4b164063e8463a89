// How NEON takes the ternary types apart (TQ), and those whose blocks are several of 32 (NVFP4,
// Q1_0, Q2_0).
#pragma once

#include "kernels/neon/grid_rows.h"

namespace moestream {
namespace {

template <>
struct Blocks<Type::NVFP4> : Format<Type::NVFP4> {
    template <int J>
    static Codes codes(const uint8_t* p) {
        const uint8x16_t v = vld1q_u8(p + 4 + J * 16);
        const uint8x16_t low = nibble<false>(v), high = nibble<true>(v);
        return look_up(kMxfp4Values,
                       codes_of(vcombine_u8(vget_low_u8(low), vget_low_u8(high)),
                                vcombine_u8(vget_high_u8(low), vget_high_u8(high))));
    }
};

template <>
struct Blocks<Type::Q1_0> : Format<Type::Q1_0> {
    template <int J>
    static Codes codes(const uint8_t* p) {
        constexpr uint8_t kBits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
        const auto half = [&](int at) {
            return vandq_u8(vtstq_u8(spread_bytes(p + at), vld1q_u8(kBits)), vdupq_n_u8(2));
        };
        return codes_of(half(2 + J * 4), half(4 + J * 4));
    }
};

template <>
struct Blocks<Type::Q2_0> : Format<Type::Q2_0> {
    template <int J>
    static Codes codes(const uint8_t* p) {
        constexpr uint8_t kSpread[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
        constexpr int8_t kMove[16] = {0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6};
        const auto half = [&](int at) {
            const uint8x16_t four = vreinterpretq_u8_u32(vdupq_n_u32(load_u32(p + at)));
            const uint8x16_t spread = vqtbl1q_u8(four, vld1q_u8(kSpread));
            return vandq_u8(vshlq_u8(spread, vld1q_s8(kMove)), vdupq_n_u8(3));
        };
        return codes_of(half(2 + J * 8), half(6 + J * 8));
    }
};

// Scales of a type that has none.
template <Type T>
struct Ones : Format<T> {
    static Scales scales(const uint8_t*) { return {vdupq_n_s16(1), vdupq_n_s16(1)}; }
};

template <>
struct Blocks<Type::TQ2_0> : Ones<Type::TQ2_0> {
    template <int J>
    static Codes codes(const uint8_t* p) {
        p += J / 4 * 32;
        return codes_of(bits<J % 4 * 2, 3>(vld1q_u8(p)), bits<J % 4 * 2, 3>(vld1q_u8(p + 16)));
    }
};

template <>
struct Blocks<Type::TQ1_0> : Ones<Type::TQ1_0> {
    // Trits of bytes that hold 256ths: 0 below 86, 2 from 171 on.
    static uint8x16_t trits(uint8x16_t v) {
        const uint8x16_t one = vcgeq_u8(v, vdupq_n_u8(86)), two = vcgeq_u8(v, vdupq_n_u8(171));
        return vsubq_u8(vdupq_n_u8(0), vaddq_u8(one, two));
    }
    template <int J>
    static Codes codes(const uint8_t* p) {
        constexpr uint8_t kPowers[] = {1, 3, 9, 27, 81};
        const auto of = [&](int at, int place) {
            return trits(vmulq_u8(vld1q_u8(p + at), vdupq_n_u8(kPowers[place])));
        };
        if constexpr (J < 5) return codes_of(of(0, J), of(16, J));
        if constexpr (J == 5) return codes_of(of(32, 0), of(32, 1));
        if constexpr (J == 6) return codes_of(of(32, 2), of(32, 3));
        constexpr uint8_t kLast[16] = {1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27};
        const uint8x16_t last = vreinterpretq_u8_u32(vdupq_n_u32(load_u32(p + 48)));
        return codes_of(of(32, 4), trits(vmulq_u8(last, vld1q_u8(kLast))));
    }
};

}  // namespace
}  // namespace moestream
