// How NEON looks up rows of a grid, 32 codes at a time, and gives them their signs and scales.
#pragma once

#include "core/decode_codebooks.h"
#include "kernels/neon/types.h"

namespace moestream {
namespace {

inline Codes rows_of_eight(const uint64_t* grid, const auto* row) {
    const auto two = [&](int i) {
        return vcombine_u8(vcreate_u8(grid[row[i]]), vcreate_u8(grid[row[i + 1]]));
    };
    return codes_of(two(0), two(2));
}

inline Codes rows_of_four(const uint32_t* grid, const auto* row) {
    const auto two = [&](int i) {
        return vcreate_u8(grid[row[i]] | static_cast<uint64_t>(grid[row[i + 1]]) << 32);
    };
    return codes_of(vcombine_u8(two(0), two(2)), vcombine_u8(two(4), two(6)));
}

// Two bytes over eight each.
inline uint8x16_t spread_bytes(const uint8_t* p) {
    return vcombine_u8(vdup_n_u8(p[0]), vdup_n_u8(p[1]));
}

// Codes with a minus where the bit of the 32 at `signs` is set.
inline Codes with_signs(const uint8_t* signs, Codes codes) {
    constexpr uint8_t kBits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t bit = vld1q_u8(kBits);
    const auto half = [&](int8x16_t code, const uint8_t* p) {
        return vbslq_s8(vtstq_u8(spread_bytes(p), bit), vnegq_s8(code), code);
    };
    return {half(codes.low, signs), half(codes.high, signs + 2)};
}

// even_signs of 16 bytes whose eighth bit is 0.
inline uint8x16_t even_signs16(uint8x16_t seven) {
    return vorrq_u8(seven, vshlq_n_u8(vcntq_u8(seven), 7));
}

// Four times seven bits of each dword, a byte each, and the eighth sign.
inline uint8x16_t spread_signs(uint32x4_t v) {
    const auto part = [](uint32x4_t moved, uint32_t mask) {
        return vandq_u32(moved, vdupq_n_u32(mask));
    };
    const uint32x4_t low = vorrq_u32(part(v, 0x7f), part(vshlq_n_u32(v, 1), 0x7f00));
    const uint32x4_t high =
        vorrq_u32(part(vshlq_n_u32(v, 2), 0x7f0000), part(vshlq_n_u32(v, 3), 0x7f000000));
    return even_signs16(vreinterpretq_u8_u32(vorrq_u32(low, high)));
}

inline uint16x8_t load_words(const uint8_t* p) { return vreinterpretq_u16_u8(vld1q_u8(p)); }

inline uint32x4_t load_dwords(const uint8_t* p) { return vreinterpretq_u32_u8(vld1q_u8(p)); }

// 2 s + 1 of eight s.
inline int16x8_t odd_scales(uint16x8_t s) {
    return vreinterpretq_s16_u16(vorrq_u16(vaddq_u16(s, s), vdupq_n_u16(1)));
}

// Scales 2 s + 1, s being the nibbles of eight bytes.
inline Scales odd_nibbles(const uint8_t* p) {
    const uint8x8_t v = vld1_u8(p);
    const uint8x8_t even = vand_u8(v, vdup_n_u8(15)), odd = vshr_n_u8(v, 4);
    return {odd_scales(vmovl_u8(vzip1_u8(even, odd))), odd_scales(vmovl_u8(vzip2_u8(even, odd)))};
}

}  // namespace
}  // namespace moestream
