// How NEON takes each block type apart: codes as bytes, 32 at a time, and small-integer scales.
//
// Codes are signed bytes as the dot product wants them; those of unsigned types are below 64, and
// an offset is put right in the sums.
#pragma once

#include "kernels/format.h"
#include "kernels/neon/registers.h"

namespace moestream {
namespace {

// Codes of 32 columns.
struct Codes {
    int8x16_t low, high;
};

inline Codes codes_of(uint8x16_t low, uint8x16_t high) {
    return {vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high)};
}

// Bytes shifted right by `By` bits, or left where that is negative.
template <int By>
inline uint8x16_t shifted(uint8x16_t v) {
    if constexpr (By > 0) {
        return vshrq_n_u8(v, By);
    } else {
        return vshlq_n_u8(v, -By);
    }
}

// The bits of `v` that are in `mask` once they are shifted.
template <int By, int Mask>
inline uint8x16_t bits(uint8x16_t v) {
    return vandq_u8(shifted<By>(v), vdupq_n_u8(Mask));
}

// The low nibbles of `v`, or the high ones.
template <bool High>
inline uint8x16_t nibble(uint8x16_t v) {
    return High ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(15));
}

inline Codes nibbles(const uint8_t* p) {
    const uint8x16_t v = vld1q_u8(p);
    return codes_of(nibble<false>(v), nibble<true>(v));
}

// `low` nibbles, with 0x10 in each byte whose bit, of the 32 at `p`, is set.
inline Codes with_fifth_bits(Codes low, const uint8_t* p) {
    constexpr uint8_t kBits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t bit = vld1q_u8(kBits);
    const auto fifth = [&](int8x16_t code, int at) {
        const uint8x16_t bytes = vcombine_u8(vdup_n_u8(p[at]), vdup_n_u8(p[at + 1]));
        const uint8x16_t set = vandq_u8(vtstq_u8(bytes, bit), vdupq_n_u8(16));
        return vorrq_s8(code, vreinterpretq_s8_u8(set));
    };
    return {fifth(low.low, 0), fifth(low.high, 2)};
}

inline Codes look_up(const int8_t* table, Codes codes) {
    const int8x16_t values = vld1q_s8(table);
    return {vqtbl1q_s8(values, vreinterpretq_u8_s8(codes.low)),
            vqtbl1q_s8(values, vreinterpretq_u8_s8(codes.high))};
}

// The trait of a type. Of a 32-value type: codes() of a block, or codes<J>() of the J-th 32 of a
// larger one. Of a 256-value type: codes<J>() of the J-th 32, and scales() and mins(), given what open() made of the block, which is the block
// itself if a type has no open().
template <Type T>
struct Blocks;

template <>
struct Blocks<Type::Q8_0> : Format<Type::Q8_0> {
    static Codes codes(const uint8_t* p) { return codes_of(vld1q_u8(p + 2), vld1q_u8(p + 18)); }
};

template <>
struct Blocks<Type::Q4_0> : Format<Type::Q4_0> {
    static Codes codes(const uint8_t* p) { return nibbles(p + 2); }
};

template <>
struct Blocks<Type::Q4_1> : Format<Type::Q4_1> {
    static Codes codes(const uint8_t* p) { return nibbles(p + 4); }
};

template <>
struct Blocks<Type::Q5_0> : Format<Type::Q5_0> {
    static Codes codes(const uint8_t* p) { return with_fifth_bits(nibbles(p + 6), p + 2); }
};

template <>
struct Blocks<Type::Q5_1> : Format<Type::Q5_1> {
    static Codes codes(const uint8_t* p) { return with_fifth_bits(nibbles(p + 8), p + 4); }
};

template <>
struct Blocks<Type::IQ4_NL> : Format<Type::IQ4_NL> {
    static Codes codes(const uint8_t* p) { return look_up(kIq4Values, nibbles(p + 2)); }
};

template <>
struct Blocks<Type::MXFP4> : Format<Type::MXFP4> {
    static Codes codes(const uint8_t* p) { return look_up(kMxfp4Values, nibbles(p + 1)); }
};

// e8m0_half_to_float of four exponents.
inline float32x4_t e8m0_halves4(uint32x4_t e) {
    const uint32x4_t tiny = vshlq_u32(vdupq_n_u32(0x00200000u), vreinterpretq_s32_u32(e));
    const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
    return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), tiny, normal));
}

// ue4m3_half_to_float of four bytes.
inline float32x4_t ue4m3_halves4(uint32x4_t e) {
    const uint32x4_t bits = vshlq_n_u32(vandq_u32(e, vdupq_n_u32(127)), 20);
    const float32x4_t value = vmulq_n_f32(vreinterpretq_f32_u32(bits), 0x1p119f);
    const uint32x4_t zero = vceqq_u32(e, vdupq_n_u32(127));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(value), zero));
}

// A byte of each of four rows.
inline uint32x4_t load_bytes4(const uint8_t* const* rows, size_t at) {
    uint32x4_t e = vdupq_n_u32(rows[0][at]);
    e = vsetq_lane_u32(rows[1][at], e, 1);
    e = vsetq_lane_u32(rows[2][at], e, 2);
    return vsetq_lane_u32(rows[3][at], e, 3);
}

// d of a block in four rows (its `which`-th), and m where there is one.
template <class T>
inline void load_floats4(const uint8_t* const* rows, size_t block, int which, float32x4_t* d,
                         float32x4_t* m) {
    const size_t at = block + T::kDAt;
    if constexpr (T::kHasMin) {
        load_half_pairs4(rows, at, d, m);
    } else if constexpr (T::kType == Type::MXFP4) {
        *d = e8m0_halves4(load_bytes4(rows, at));
    } else if constexpr (T::kType == Type::NVFP4) {
        *d = ue4m3_halves4(load_bytes4(rows, at + which));
    } else {
        uint16x4_t v = vdup_n_u16(T::half_bits(rows[0] + block));
        v = vset_lane_u16(T::half_bits(rows[1] + block), v, 1);
        v = vset_lane_u16(T::half_bits(rows[2] + block), v, 2);
        v = vset_lane_u16(T::half_bits(rows[3] + block), v, 3);
        *d = halves_to_float(v);
        if constexpr (T::kDTimes != 1.0f) *d = vmulq_n_f32(*d, T::kDTimes);
    }
}

// Scales or minimums of a super-block: one for each 16 codes, or, if kGroup is 32, one for each 32
// and `high` unused.
struct Scales {
    int16x8_t low, high;
};

inline int16x8_t widened(uint8x8_t v) { return vreinterpretq_s16_u16(vmovl_u8(v)); }

inline Scales scales_of(int8x16_t v) { return {vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v)}; }

template <Type T>
struct K4Scales : Format<T> {
    // Four bytes of `low` below four that have their lowest four bits from `middle` and the two
    // above from `high`, which lie in bits 6 and 7.
    static Scales eight(uint32_t low, uint32_t middle, uint32_t high) {
        const uint32_t last = (middle & 0x0f0f0f0fu) | (((high >> 6) & 0x03030303u) << 4);
        const uint64_t both = (low & 0x3f3f3f3fu) | static_cast<uint64_t>(last) << 32;
        return {widened(vcreate_u8(both)), vdupq_n_s16(0)};
    }
    static Scales scales(const uint8_t* p) {
        const uint32_t low = load_u32(p + 4);
        return eight(low, load_u32(p + 12), low);
    }
    static Scales mins(const uint8_t* p) {
        const uint32_t low = load_u32(p + 8);
        return eight(low, load_u32(p + 12) >> 4, low);
    }
};

template <>
struct Blocks<Type::Q4_K> : K4Scales<Type::Q4_K> {
    template <int J>
    static Codes codes(const uint8_t* p) {
        p += 16 + J / 2 * 32;
        return codes_of(nibble<J % 2 != 0>(vld1q_u8(p)), nibble<J % 2 != 0>(vld1q_u8(p + 16)));
    }
};

template <>
struct Blocks<Type::Q5_K> : K4Scales<Type::Q5_K> {
    template <int J>
    static Codes codes(const uint8_t* p) {
        const auto half = [&](int at) {
            return vorrq_u8(nibble<J % 2 != 0>(vld1q_u8(p + 48 + J / 2 * 32 + at)),
                            bits<J - 4, 16>(vld1q_u8(p + 16 + at)));
        };
        return codes_of(half(0), half(16));
    }
};

template <>
struct Blocks<Type::Q6_K> : Format<Type::Q6_K> {
    static Scales scales(const uint8_t* p) {
        return scales_of(vreinterpretq_s8_u8(vld1q_u8(p + 192)));
    }
    template <int J>
    static Codes codes(const uint8_t* p) {
        const auto half = [&](int at) {
            return vorrq_u8(nibble<J % 4 / 2 != 0>(vld1q_u8(p + J / 4 * 64 + J % 2 * 32 + at)),
                            bits<J % 4 * 2 - 4, 48>(vld1q_u8(p + 128 + J / 4 * 32 + at)));
        };
        return codes_of(half(0), half(16));
    }
};

template <>
struct Blocks<Type::Q2_K> : Format<Type::Q2_K> {
    static Scales scales(const uint8_t* p) {
        return scales_of(vreinterpretq_s8_u8(nibble<false>(vld1q_u8(p))));
    }
    static Scales mins(const uint8_t* p) {
        return scales_of(vreinterpretq_s8_u8(nibble<true>(vld1q_u8(p))));
    }
    template <int J>
    static Codes codes(const uint8_t* p) {
        p += 16 + J / 4 * 32;
        return codes_of(bits<J % 4 * 2, 3>(vld1q_u8(p)), bits<J % 4 * 2, 3>(vld1q_u8(p + 16)));
    }
};

template <>
struct Blocks<Type::Q3_K> : Format<Type::Q3_K> {
    static Scales scales(const uint8_t* p) {
        // Two times eight low nibbles, and four times four pairs of high bits.
        const uint64_t low = load_u32(p + 96) | static_cast<uint64_t>(load_u32(p + 100)) << 32;
        const uint8x16_t nibbles = vcombine_u8(vand_u8(vcreate_u8(low), vdup_n_u8(15)),
                                               vshr_n_u8(vcreate_u8(low), 4));
        const uint32_t high = load_u32(p + 104), mask = 0x03030303u;
        const uint64_t first = (high & mask) | static_cast<uint64_t>((high >> 2) & mask) << 32;
        const uint64_t last =
            ((high >> 4) & mask) | static_cast<uint64_t>((high >> 6) & mask) << 32;
        const uint8x16_t pairs = vcombine_u8(vcreate_u8(first), vcreate_u8(last));
        const uint8x16_t scale = vorrq_u8(nibbles, vshlq_n_u8(pairs, 4));
        return scales_of(vsubq_s8(vreinterpretq_s8_u8(scale), vdupq_n_s8(32)));
    }
    template <int J>
    static Codes codes(const uint8_t* p) {
        const auto half = [&](int at) {
            return vorrq_u8(bits<J % 4 * 2, 3>(vld1q_u8(p + 32 + J / 4 * 32 + at)),
                            bits<J - 2, 4>(vld1q_u8(p + at)));
        };
        return codes_of(half(0), half(16));
    }
};

template <>
struct Blocks<Type::IQ4_XS> : Format<Type::IQ4_XS> {
    static Scales scales(const uint8_t* p) {
        constexpr int16_t kNibbles[8] = {0, -4, -8, -12, 0, -4, -8, -12};
        constexpr int16_t kPairs[8] = {0, -2, -4, -6, -8, -10, -12, -14};
        const uint16x8_t words =
            vcombine_u16(vdup_n_u16(load_u16(p + 4)), vdup_n_u16(load_u16(p + 6)));
        const uint16x8_t low = vandq_u16(vshlq_u16(words, vld1q_s16(kNibbles)), vdupq_n_u16(15));
        const uint16x8_t high =
            vandq_u16(vshlq_u16(vdupq_n_u16(load_u16(p + 2)), vld1q_s16(kPairs)), vdupq_n_u16(3));
        const uint16x8_t scale = vorrq_u16(low, vshlq_n_u16(high, 4));
        return {vsubq_s16(vreinterpretq_s16_u16(scale), vdupq_n_s16(32)), vdupq_n_s16(0)};
    }
    template <int J>
    static Codes codes(const uint8_t* p) {
        return look_up(kIq4Values, nibbles(p + 8 + J * 16));
    }
};

// Codes of part J of a block of a 32-value type.
template <class T, int J>
inline Codes codes_of_part(const uint8_t* p) {
    if constexpr (T::kParts == 1) {
        return T::codes(p);
    } else {
        return T::template codes<J>(p);
    }
}

// What the sums of groups are multiplied by: minimums, or the scales again, for an offset.
template <class T>
inline Scales weights_of_sums(const auto& block, Scales scales) {
    if constexpr (T::kHasMin) {
        return T::mins(block);
    } else {
        return scales;
    }
}

}  // namespace
}  // namespace moestream
