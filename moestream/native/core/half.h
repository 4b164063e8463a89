// Scalar conversions of the small float formats. Exact, NaN and subnormals included.
//
// Everything is static: these are compiled into units with different instruction sets, and an
// inline function that the linker may share would leak one unit's instructions into another.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace moestream {

static inline uint16_t load_u16(const uint8_t* p) {
    uint16_t v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t load_u32(const uint8_t* p) {
    uint32_t v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

static inline float half_to_float(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
    const uint32_t magnitude = h & 0x7fffu;
    if (magnitude >= 0x7c00u) {  // infinity, NaN
        return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
    }
    // Shifted into place the exponent is too small by 112; the product puts it right and also
    // normalises subnormals, exactly.
    const float value = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

static inline uint16_t float_to_half(float f) {
    const uint32_t bits = std::bit_cast<uint32_t>(f);
    const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu);  // NaN
    if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // rounds to infinity
    if (magnitude < 0x38800000u) {  // subnormal or zero: let a float addition round to even
        const float shifted = std::bit_cast<float>(magnitude) + 0x1p-1f;
        return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000u);
    }
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return sign | static_cast<uint16_t>((rounded - 0x38000000u) >> 13);
}

static inline float bf16_to_float(uint16_t h) {
    return std::bit_cast<float>(static_cast<uint32_t>(h) << 16);
}

// Half of 2^(e - 127): MXFP4 code values are stored doubled.
static inline float e8m0_half_to_float(uint8_t e) {
    return std::bit_cast<float>(e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23);
}

// Half of an unsigned float of four bits of exponent and three more: a scale of NVFP4, whose code
// values are stored doubled. 127 is 0.
static inline float ue4m3_half_to_float(uint8_t e) {
    return e == 127 ? 0.0f : std::bit_cast<float>((e & 127u) << 20) * 0x1p119f;
}

static inline float load_half(const uint8_t* p) { return half_to_float(load_u16(p)); }

}  // namespace moestream
