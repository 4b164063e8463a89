// What the bits of the codebook types mean (IQ1, IQ2, IQ3) and of the ternary ones (TQ).
#pragma once

#include "core/block.h"
#include "core/grids.h"

namespace moestream {
namespace {

// Eight signs from seven: the eighth makes the number of minuses even.
inline uint8_t even_signs(uint32_t seven) {
    seven &= 127;
    return static_cast<uint8_t>(seven | (std::popcount(seven) & 1) << 7);
}

// The bytes of a grid's row, with a minus where `signs` has a bit set.
template <class Row>
inline void put_row(Row row, uint32_t signs, int8_t* q) {
    for (size_t i = 0; i < sizeof(Row); ++i) {
        const auto value = static_cast<int8_t>(row >> (8 * i) & 255);
        q[i] = static_cast<int8_t>((signs >> i & 1) != 0 ? -value : value);
    }
}

// d of IQ1_M: four bits at the top of each of four words of scales.
inline uint16_t iq1m_d(const uint8_t* p) {
    uint64_t words;
    std::memcpy(&words, p + 48, 8);
    // A multiple that has the four side by side at its top.
    return static_cast<uint16_t>((words >> 12 & 0x000f000f000f000f) * 0x0001001001001000 >> 48);
}

// Scales 2 s + 1 of 16 codes each, s being nibbles.
inline void decode_odd_nibbles(const uint8_t* p, int8_t* scale) {
    for (int j = 0; j < 16; ++j) {
        scale[j] = static_cast<int8_t>(2 * (p[j / 2] >> (4 * (j % 2)) & 15) + 1);
    }
}

// Eight groups of four rows: their numbers in a dword, and in the next four times seven signs and
// a scale.
template <>
inline void decode_codes<Type::IQ2_XXS>(const uint8_t* p, Block* out) {
    for (int g = 0; g < 8; ++g) {
        const uint8_t* rows = p + 2 + g * 8;
        const uint32_t rest = load_u32(rows + 4);
        out->scale[2 * g] = out->scale[2 * g + 1] = static_cast<int8_t>(2 * (rest >> 28) + 1);
        for (int i = 0; i < 4; ++i) {
            put_row(kIq2xxsGrid[rows[i]], even_signs(rest >> (7 * i)), out->q + g * 32 + i * 8);
        }
    }
}

// Words: nine bits of a row's number and seven signs; then scales.
template <>
inline void decode_codes<Type::IQ2_XS>(const uint8_t* p, Block* out) {
    decode_odd_nibbles(p + 66, out->scale);
    for (int i = 0; i < 32; ++i) {
        const uint32_t word = load_u16(p + 2 + 2 * i);
        put_row(kIq2xsGrid[word & 511], even_signs(word >> 9), out->q + i * 8);
    }
}

// Low bytes of the rows' numbers, signs, two more bits of the numbers, scales.
template <>
inline void decode_codes<Type::IQ2_S>(const uint8_t* p, Block* out) {
    decode_odd_nibbles(p + 74, out->scale);
    for (int i = 0; i < 32; ++i) {
        const int high = p[66 + i / 4] >> (2 * (i % 4)) & 3;
        put_row(kIq2sGrid[p[2 + i] | high << 8], p[34 + i], out->q + i * 8);
    }
}

// Numbers of rows of four, then for each eight of them four times seven signs and a scale.
template <>
inline void decode_codes<Type::IQ3_XXS>(const uint8_t* p, Block* out) {
    for (int g = 0; g < 8; ++g) {
        const uint8_t* rows = p + 2 + g * 8;
        const uint32_t rest = load_u32(p + 66 + g * 4);
        out->scale[2 * g] = out->scale[2 * g + 1] = static_cast<int8_t>(2 * (rest >> 28) + 1);
        for (int i = 0; i < 8; ++i) {
            const uint32_t signs = even_signs(rest >> (7 * (i / 2)));
            put_row(kIq3xxsGrid[rows[i]], signs >> (4 * (i % 2)), out->q + g * 32 + i * 4);
        }
    }
}

// Low bytes of the rows' numbers, their ninth bits, signs, scales.
template <>
inline void decode_codes<Type::IQ3_S>(const uint8_t* p, Block* out) {
    for (int j = 0; j < 16; ++j) {
        out->scale[j] = static_cast<int8_t>(2 * (p[106 + j / 4] >> (4 * (j / 2 % 2)) & 15) + 1);
    }
    for (int i = 0; i < 64; ++i) {
        const int high = p[66 + i / 8] >> (i % 8) & 1;
        const uint32_t signs = p[74 + i / 2];
        put_row(kIq3sGrid[p[2 + i] | high << 8], signs >> (4 * (i % 2)), out->q + i * 4);
    }
}

// Eight codes of IQ1: a row of the grid and a shift, +1 or -1, of them all.
inline void put_iq1_row(int row, bool minus, int8_t* q) {
    put_row(kIq1Grid[row], 0, q);
    for (int i = 0; i < 8; ++i) q[i] = static_cast<int8_t>(q[i] - 16 + (minus ? -1 : 1));
}

// Low bytes of the rows' numbers; words of four times three more bits, a scale, and the shift.
template <>
inline void decode_codes<Type::IQ1_S>(const uint8_t* p, Block* out) {
    for (int g = 0; g < 8; ++g) {
        const int word = load_u16(p + 34 + 2 * g);
        out->scale[2 * g] = out->scale[2 * g + 1] = static_cast<int8_t>(2 * (word >> 12 & 7) + 1);
        for (int i = 0; i < 4; ++i) {
            const int row = p[2 + g * 4 + i] | (word >> (3 * i) & 7) << 8;
            put_iq1_row(row, (word & 0x8000) != 0, out->q + g * 32 + i * 8);
        }
    }
}

// Low bytes of the rows' numbers; nibbles of three more bits and the shift; four times three bits
// of scales in a word, the rest of which is d.
template <>
inline void decode_codes<Type::IQ1_M>(const uint8_t* p, Block* out) {
    for (int j = 0; j < 16; ++j) {
        const int s = load_u16(p + 48 + j / 4 * 2) >> (3 * (j % 4)) & 7;
        out->scale[j] = static_cast<int8_t>(2 * s + 1);
    }
    for (int i = 0; i < 32; ++i) {
        const int high = p[32 + i / 2] >> (4 * (i % 2)) & 15;
        put_iq1_row(p[i] | (high & 7) << 8, (high & 8) != 0, out->q + i * 8);
    }
}

// One scale for all, which is d: groups have ones.
inline void set_ones(Block* out) { std::memset(out->scale, 1, sizeof out->scale); }

// The trit number `place` of a byte that holds five, the first being the most significant of a
// fraction of 256.
inline int8_t trit(uint8_t byte, int place) {
    constexpr int kPowers[] = {1, 3, 9, 27, 81};
    const auto moved = static_cast<uint8_t>(byte * kPowers[place]);
    return static_cast<int8_t>((moved * 3 >> 8) - 1);
}

// Five times 32 codes in 32 bytes, five times 16 in 16, four times four in four.
template <>
inline void decode_codes<Type::TQ1_0>(const uint8_t* p, Block* out) {
    set_ones(out);
    for (int i = 0; i < 160; ++i) out->q[i] = trit(p[i % 32], i / 32);
    for (int i = 0; i < 80; ++i) out->q[160 + i] = trit(p[32 + i % 16], i / 16);
    for (int i = 0; i < 16; ++i) out->q[240 + i] = trit(p[48 + i % 4], i / 4);
}

template <>
inline void decode_codes<Type::TQ2_0>(const uint8_t* p, Block* out) {
    set_ones(out);
    for (int i = 0; i < 256; ++i) {
        const int code = (p[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2)) & 3;
        out->q[i] = static_cast<int8_t>(code - 1);
    }
}

}  // namespace
}  // namespace moestream
