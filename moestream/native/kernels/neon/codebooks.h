// How NEON takes the codebook types apart (IQ1, IQ2, IQ3), the ternary ones (TQ), and those whose
// blocks are several of 32 (NVFP4, Q1_0, Q2_0).
//
// Rows of a grid are looked up by their numbers, 32 codes at a time. What can be made ready for a
// whole super-block is: open() unpacks numbers and signs to memory that lookups read.
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

// A super-block made ready: numbers of rows, and four bytes of signs for each 32 codes.
struct RowsAndSigns {
    const uint8_t* p;
    uint16_t rows[32];
    uint8_t signs[32];
};

struct Signs {
    const uint8_t* p;
    uint32x4_t rest[2];  // dwords of four times seven signs and a scale
    uint8_t signs[32];
};

inline void open_signs(uint32x4_t first, uint32x4_t last, Signs* to) {
    to->rest[0] = first, to->rest[1] = last;
    vst1q_u8(to->signs, spread_signs(first));
    vst1q_u8(to->signs + 16, spread_signs(last));
}

inline Scales scales_on_top(const Signs& block) {
    const uint16x8_t s = vcombine_u16(vmovn_u32(vshrq_n_u32(block.rest[0], 28)),
                                      vmovn_u32(vshrq_n_u32(block.rest[1], 28)));
    return {odd_scales(s), vdupq_n_s16(0)};
}

// A type that has a scale above the signs of each 32 weights, which magnitudes<J>() go with.
template <class Self, Type T>
struct SignsBelowScales : Format<T> {
    static Scales scales(const Signs& block) { return scales_on_top(block); }
    template <int J>
    static Codes codes(const Signs& block) {
        return with_signs(block.signs + J * 4, Self::template magnitudes<J>(block));
    }
};

template <>
struct Blocks<Type::IQ2_XXS> : SignsBelowScales<Blocks<Type::IQ2_XXS>, Type::IQ2_XXS> {
    static Signs open(const uint8_t* p) {
        Signs to;
        to.p = p;
        const auto odd = [&](int at) { return vuzp2q_u32(load_dwords(p + at), load_dwords(p + at + 16)); };
        open_signs(odd(2), odd(34), &to);
        return to;
    }
    template <int J>
    static Codes magnitudes(const Signs& block) {
        return rows_of_eight(kIq2xxsGrid.data(), block.p + 2 + J * 8);
    }
};

template <>
struct Blocks<Type::IQ3_XXS> : SignsBelowScales<Blocks<Type::IQ3_XXS>, Type::IQ3_XXS> {
    static Signs open(const uint8_t* p) {
        Signs to;
        to.p = p;
        open_signs(load_dwords(p + 66), load_dwords(p + 82), &to);
        return to;
    }
    template <int J>
    static Codes magnitudes(const Signs& block) {
        return rows_of_four(kIq3xxsGrid.data(), block.p + 2 + J * 8);
    }
};

template <>
struct Blocks<Type::IQ2_XS> : Format<Type::IQ2_XS> {
    static RowsAndSigns open(const uint8_t* p) {
        RowsAndSigns to;
        to.p = p;
        for (int i = 0; i < 32; i += 16) {
            const uint16x8_t a = load_words(p + 2 + 2 * i), b = load_words(p + 18 + 2 * i);
            vst1q_u16(to.rows + i, vandq_u16(a, vdupq_n_u16(511)));
            vst1q_u16(to.rows + i + 8, vandq_u16(b, vdupq_n_u16(511)));
            vst1q_u8(to.signs + i, even_signs16(vcombine_u8(vmovn_u16(vshrq_n_u16(a, 9)),
                                                            vmovn_u16(vshrq_n_u16(b, 9)))));
        }
        return to;
    }
    static Scales scales(const RowsAndSigns& block) { return odd_nibbles(block.p + 66); }
    template <int J>
    static Codes codes(const RowsAndSigns& block) {
        return with_signs(block.signs + J * 4,
                          rows_of_eight(kIq2xsGrid.data(), block.rows + J * 4));
    }
};

// Numbers of rows: a byte, with `high` of four or eight in turn on top of it.
template <>
struct Blocks<Type::IQ2_S> : Format<Type::IQ2_S> {
    static Scales scales(const uint8_t* p) { return odd_nibbles(p + 74); }
    template <int J>
    static Codes codes(const uint8_t* p) {
        uint16_t rows[4];
        for (int i = 0; i < 4; ++i) {
            rows[i] = static_cast<uint16_t>(p[2 + J * 4 + i] | (p[66 + J] << (8 - 2 * i) & 0x300));
        }
        return with_signs(p + 34 + J * 4, rows_of_eight(kIq2sGrid.data(), rows));
    }
};

template <>
struct Blocks<Type::IQ3_S> : Format<Type::IQ3_S> {
    static Scales scales(const uint8_t* p) {
        const uint8x8_t v = vcreate_u8(load_u32(p + 106));
        const uint8x8_t even = vand_u8(v, vdup_n_u8(15)), odd = vshr_n_u8(v, 4);
        return {odd_scales(vmovl_u8(vzip1_u8(even, odd))), vdupq_n_s16(0)};
    }
    template <int J>
    static Codes codes(const uint8_t* p) {
        uint16_t rows[8];
        for (int i = 0; i < 8; ++i) {
            rows[i] = static_cast<uint16_t>(p[2 + J * 8 + i] | (p[66 + J] << (8 - i) & 0x100));
        }
        return with_signs(p + 74 + J * 4, rows_of_four(kIq3sGrid.data(), rows));
    }
};

inline Codes shifted_codes(Codes codes, int8x16_t low, int8x16_t high) {
    return {vaddq_s8(codes.low, low), vaddq_s8(codes.high, high)};
}

template <>
struct Blocks<Type::IQ1_S> : Format<Type::IQ1_S> {
    static Scales scales(const uint8_t* p) {
        const uint16x8_t words = load_words(p + 34);
        return {odd_scales(vandq_u16(vshrq_n_u16(words, 12), vdupq_n_u16(7))), vdupq_n_s16(0)};
    }
    template <int J>
    static Codes codes(const uint8_t* p) {
        const unsigned word = load_u16(p + 34 + J * 2);
        uint16_t rows[4];
        for (int i = 0; i < 4; ++i) {
            rows[i] = static_cast<uint16_t>(p[2 + J * 4 + i] | (word >> (3 * i) & 7) << 8);
        }
        const int8x16_t shift = vdupq_n_s8((word & 0x8000) != 0 ? -1 : 1);
        return shifted_codes(rows_of_eight(kIq1Grid.data(), rows), shift, shift);
    }
};

template <>
struct Blocks<Type::IQ1_M> : Format<Type::IQ1_M> {
    static uint16_t half_bits(const uint8_t* p) { return iq1m_d(p); }
    static Scales scales(const uint8_t* p) {
        constexpr int16_t kMove[8] = {0, -3, -6, -9, 0, -3, -6, -9};
        const auto eight = [&](int at) {
            const uint16x8_t words =
                vcombine_u16(vdup_n_u16(load_u16(p + at)), vdup_n_u16(load_u16(p + at + 2)));
            return odd_scales(vandq_u16(vshlq_u16(words, vld1q_s16(kMove)), vdupq_n_u16(7)));
        };
        return {eight(48), eight(52)};
    }
    template <int J>
    static Codes codes(const uint8_t* p) {
        const unsigned high = load_u16(p + 32 + J * 2);
        uint16_t rows[4];
        for (int i = 0; i < 4; ++i) {
            rows[i] = static_cast<uint16_t>(p[J * 4 + i] | (high >> (4 * i) & 7) << 8);
        }
        const auto shift = [&](int i) {
            return vdup_n_s8((high >> (4 * i) & 8) != 0 ? -1 : 1);
        };
        return shifted_codes(rows_of_eight(kIq1Grid.data(), rows),
                             vcombine_s8(shift(0), shift(1)), vcombine_s8(shift(2), shift(3)));
    }
};

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
