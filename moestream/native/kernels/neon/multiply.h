// The inner product of eight unpacked rows with NT tokens: by SDOT, or by SMMLA with i8mm.
//
// The two want different orders of codes and leave their sums in different lanes; that is known
// here alone. SDOT takes a token's four columns from a lane: a register of sums is four rows of
// one token. SMMLA takes eight columns of two rows and of two tokens: a register of sums is two
// rows of each of two tokens, and twice as many products are made at once.
#pragma once

#include "kernels/neon/types.h"

namespace moestream {
namespace {

// Bytes of 32 columns of eight rows' codes.
inline constexpr int kCodeBytes = 256;

inline int8x16_t zip_low(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

inline int8x16_t zip_high(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

// Dwords of each register in turn: [a0 b0 a1 b1] and [a2 b2 a3 b3].
inline int8x16_t zip_dwords_low(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

inline int8x16_t zip_dwords_high(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

#if defined(__ARM_FEATURE_MATMUL_INT8)

// Registers of sums: (pair of tokens, pair of rows); a lone last token is its own partner.
template <int NT>
inline constexpr int kSums = (NT + 1) / 2 * 4;
// Registers of the scales of eight rows: each row's twice.
inline constexpr int kScaleRegisters = 4;

// Codes are (octet of columns 4, pair of rows 4, row 2, column 8).
inline void store_codes(const Codes* rows, int8_t* to) {
    unroll<4>([&](auto pair) {
        const Codes a = rows[pair * 2], b = rows[pair * 2 + 1];
        vst1q_s8(to + pair * 16, zip_low(a.low, b.low));
        vst1q_s8(to + pair * 16 + 64, zip_high(a.low, b.low));
        vst1q_s8(to + pair * 16 + 128, zip_low(a.high, b.high));
        vst1q_s8(to + pair * 16 + 192, zip_high(a.high, b.high));
    });
}

// Two neighbouring quads of columns of four rows (`half` of eight), a row to each dword.
inline void store_quads(int8x16_t even, int8x16_t odd, int octet, int half, int8_t* to) {
    vst1q_s8(to + octet * 64 + half * 32, zip_dwords_low(even, odd));
    vst1q_s8(to + octet * 64 + half * 32 + 16, zip_dwords_high(even, odd));
}

inline void store_scales(int32x4_t low, int32x4_t high, int32_t* to) {
    vst1q_s32(to, vzip1q_s32(low, low));
    vst1q_s32(to + 4, vzip2q_s32(low, low));
    vst1q_s32(to + 8, vzip1q_s32(high, high));
    vst1q_s32(to + 12, vzip2q_s32(high, high));
}

// sums += codes @ x over Columns columns, the input's from `column` on.
template <int NT, int Columns>
inline void multiply(const int8_t* codes, const int8_t* const* x, size_t column,
                     int32x4_t* sums) {
    constexpr int kPairs = (NT + 1) / 2;
    unroll<Columns / 16>([&](auto step) {
        int8x16_t in[2][kPairs];
        unroll<kPairs>([&](auto p) {
            constexpr int kPartner = p * 2 + 1 < NT ? p * 2 + 1 : p * 2;
            const int8x16_t a = vld1q_s8(x[p * 2] + column + step * 16);
            const int8x16_t b = vld1q_s8(x[kPartner] + column + step * 16);
            in[0][p] = zip_low(a, b);
            in[1][p] = zip_high(a, b);
        });
        unroll<2>([&](auto octet) {
            unroll<4>([&](auto rows) {
                const int8x16_t code = vld1q_s8(codes + (step * 2 + octet) * 64 + rows * 16);
                unroll<kPairs>([&](auto p) {
                    sums[p * 4 + rows] = vmmlaq_s32(sums[p * 4 + rows], code, in[octet][p]);
                });
            });
        });
    });
}

template <int NT>
inline void add_scaled(const int32x4_t* part, const int32_t* scales, int32x4_t* sums) {
    unroll<4>([&](auto rows) {
        const int32x4_t scale = vld1q_s32(scales + rows * 4);
        unroll<(NT + 1) / 2>([&](auto p) {
            sums[p * 4 + rows] = vmlaq_s32(sums[p * 4 + rows], part[p * 4 + rows], scale);
        });
    });
}

// The sums of a token for four rows, `half` of eight.
template <int Token, int Half>
inline int32x4_t rows_of(const int32x4_t* sums) {
    const int32x4_t a = sums[Token / 2 * 4 + Half * 2], b = sums[Token / 2 * 4 + Half * 2 + 1];
    return Token % 2 == 0 ? vuzp1q_s32(a, b) : vuzp2q_s32(a, b);
}

#else

// Registers of sums: (token, half of eight rows).
template <int NT>
inline constexpr int kSums = NT * 2;
// Registers of the scales of eight rows.
inline constexpr int kScaleRegisters = 2;

// Codes are (quad of columns 8, row 8, column 4).
inline void store_codes(const Codes* rows, int8_t* to) {
    const auto transpose = [&](int half, auto part, int8_t* out) {
        const Codes* r = rows + half * 4;
        const int8x16_t a = zip_dwords_low(part(r[0]), part(r[2]));
        const int8x16_t b = zip_dwords_high(part(r[0]), part(r[2]));
        const int8x16_t c = zip_dwords_low(part(r[1]), part(r[3]));
        const int8x16_t d = zip_dwords_high(part(r[1]), part(r[3]));
        vst1q_s8(out + half * 16, zip_dwords_low(a, c));
        vst1q_s8(out + half * 16 + 32, zip_dwords_high(a, c));
        vst1q_s8(out + half * 16 + 64, zip_dwords_low(b, d));
        vst1q_s8(out + half * 16 + 96, zip_dwords_high(b, d));
    };
    unroll<2>([&](auto half) {
        transpose(half, [](const Codes& codes) { return codes.low; }, to);
        transpose(half, [](const Codes& codes) { return codes.high; }, to + 128);
    });
}

// Two neighbouring quads of columns of four rows (`half` of eight), a row to each dword.
inline void store_quads(int8x16_t even, int8x16_t odd, int octet, int half, int8_t* to) {
    vst1q_s8(to + octet * 64 + half * 16, even);
    vst1q_s8(to + octet * 64 + half * 16 + 32, odd);
}

inline void store_scales(int32x4_t low, int32x4_t high, int32_t* to) {
    vst1q_s32(to, low);
    vst1q_s32(to + 4, high);
}

// sums += codes @ x over Columns columns, the input's from `column` on.
template <int NT, int Columns>
inline void multiply(const int8_t* codes, const int8_t* const* x, size_t column,
                     int32x4_t* sums) {
    unroll<Columns / 16>([&](auto step) {
        int8x16_t in[NT];
        unroll<NT>([&](auto t) { in[t] = vld1q_s8(x[t] + column + step * 16); });
        unroll<4>([&](auto quad) {
            constexpr int kLane = quad;
            const int8_t* at = codes + (step * 4 + quad) * 32;
            const int8x16_t low = vld1q_s8(at), high = vld1q_s8(at + 16);
            unroll<NT>([&](auto t) {
                sums[t * 2] = vdotq_laneq_s32(sums[t * 2], low, in[t], kLane);
                sums[t * 2 + 1] = vdotq_laneq_s32(sums[t * 2 + 1], high, in[t], kLane);
            });
        });
    });
}

template <int NT>
inline void add_scaled(const int32x4_t* part, const int32_t* scales, int32x4_t* sums) {
    unroll<2>([&](auto half) {
        const int32x4_t scale = vld1q_s32(scales + half * 4);
        unroll<NT>([&](auto t) {
            sums[t * 2 + half] = vmlaq_s32(sums[t * 2 + half], part[t * 2 + half], scale);
        });
    });
}

// The sums of a token for four rows, `half` of eight.
template <int Token, int Half>
inline int32x4_t rows_of(const int32x4_t* sums) {
    return sums[Token * 2 + Half];
}

#endif

}  // namespace
}  // namespace moestream
