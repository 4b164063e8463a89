// How NEON takes the codebook types apart (IQ1, IQ2, IQ3).
//
// Rows of a grid are looked up by their numbers. What can be made ready for a whole super-block is:
// open() unpacks numbers and signs to memory that lookups read.
#pragma once

#include "kernels/neon/grid_rows.h"

namespace moestream {
namespace {

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
            rows[i] = static_cast<uint16_t>(p[2 + J * 4 + i] | (word >> (3 * i) & 7) << 8 |
                                            (word & 0x8000) >> 4);
        }
        return rows_of_eight(kIq1ShiftedGrid.data(), rows);
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
            rows[i] = static_cast<uint16_t>(p[J * 4 + i] | (high >> (4 * i) & 15) << 8);
        }
        return rows_of_eight(kIq1ShiftedGrid.data(), rows);
    }
};

}  // namespace
}  // namespace moestream
