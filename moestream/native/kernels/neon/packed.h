// Products with packed matrices (packing.h): a lane is a row from the first load to the last sum.
#pragma once

#include "core/packing.h"
#include "kernels/neon/gemm.h"

namespace moestream {
namespace {

// Codes of quad Q of 32 columns for four rows, `half` of eight.
template <class T, int Q>
inline int8x16_t packed_codes(const uint8_t* group, int half) {
    constexpr int kBits = packing_of(T::kType).code_bits;
    const uint8_t* p = group + half * 16;
    if constexpr (kBits == 8) {
        return vreinterpretq_s8_u8(vld1q_u8(p + Q * 32));
    } else {
        uint8x16_t code = nibble<Q / 4 != 0>(vld1q_u8(p + Q % 4 * 32));
        if constexpr (kBits == 6) {
            const uint8x16_t high = vld1q_u8(p + 128 + Q / 4 * 32);
            code = vorrq_u8(code, bits<Q % 4 * 2 - 4, 48>(high));
        }
        return vreinterpretq_s8_u8(code);
    }
}

// sums (token, half) += codes @ q over 16 columns: quads First to First + 3 of a group.
template <class T, int First, int NT>
inline void packed_multiply(const uint8_t* group, const int8_t* const* q, int column,
                            int32x4_t (*sums)[2]) {
    int8x16_t x[NT];
    unroll<NT>([&](auto t) { x[t] = vld1q_s8(q[t] + column); });
    unroll<4>([&](auto quad) {
        constexpr int kLane = quad;
        const int8x16_t low = packed_codes<T, First + kLane>(group, 0);
        const int8x16_t high = packed_codes<T, First + kLane>(group, 1);
        unroll<NT>([&](auto t) {
            sums[t][0] = vdotq_laneq_s32(sums[t][0], low, x[t], kLane);
            sums[t][1] = vdotq_laneq_s32(sums[t][1], high, x[t], kLane);
        });
    });
}

template <int NT>
inline void clear(int32x4_t (*sums)[2]) {
    unroll<NT>([&](auto t) { sums[t][0] = sums[t][1] = vdupq_n_s32(0); });
}

inline float32x4_t load_halves(const uint8_t* p) {
    return halves_to_float(vreinterpret_u16_u8(vld1_u8(p)));
}

// Minimums of four rows of a packed block.
template <class T>
inline float32x4_t packed_min(const uint8_t* p) {
    return T::kHasMin ? load_halves(p + 16) : vdupq_n_f32(0.0f);
}

template <class T, int NT>
[[gnu::flatten]] inline void packed_block32(const uint8_t* p, const InputRows& in, const int* tokens,
                           float32x4_t (*acc)[2]) {
    constexpr Packing kPacking = packing_of(T::kType);
    const TokenRows<NT> x(in, tokens, 32, 32);
    for (int b = 0; b < in.columns / 32; ++b, p += kPacking.block_bytes) {
        int32x4_t sums[NT][2];
        clear<NT>(sums);
        packed_multiply<T, 0, NT>(p + kPacking.codes_at(), x.q, b * 32, sums);
        packed_multiply<T, 4, NT>(p + kPacking.codes_at(), x.q, b * 32 + 16, sums);
        unroll<2>([&](auto half) {
            const float32x4_t scale = load_halves(p + half * 8), min = packed_min<T>(p + half * 8);
            unroll<NT>([&](auto t) {
                acc[t][half] = add_block32<T>(acc[t][half], sums[t][half], scale, min, x, t, b);
            });
        });
    }
}

// Scales (or minimums) of a pair of groups, of eight rows. All fit in a signed byte.
struct PairScales {
    int16x8_t of[2];

    explicit PairScales(const uint8_t* p) {
        const int16x8_t both = vreinterpretq_s16_u8(vld1q_u8(p));
        of[0] = vshrq_n_s16(vshlq_n_s16(both, 8), 8);
        of[1] = vshrq_n_s16(both, 8);
    }
};

// Those of pair `n`, and what its groups' input sums are multiplied by.
template <class T>
inline PairScales packed_scales(const uint8_t* p, int n) {
    return PairScales(p + packing_of(T::kType).scales_at() + n * 16);
}

template <class T>
inline PairScales packed_weights(const uint8_t* p, int n) {
    constexpr Packing kPacking = packing_of(T::kType);
    return PairScales(p + (T::kHasMin ? kPacking.mins_at() : kPacking.scales_at()) + n * 16);
}

// sums += scale times codes @ q, over group Which of pair `n`, and pairs += weight times input sum.
template <class T, int Which, int NT>
inline void packed_group(const uint8_t* p, int n, const TokenRows<NT>& x, int block,
                         int16x8_t scale, int16x8_t weight, int32x4_t (*sums)[2],
                         int32x4_t (*pairs)[2]) {
    constexpr Packing kPacking = packing_of(T::kType);
    const int group = n * 2 + Which, column = block * 256 + group * T::kGroup;
    const uint8_t* codes = p + kPacking.codes_at() + group * T::kGroup / 32 * kPacking.group_bytes();
    int32x4_t part[NT][2];
    clear<NT>(part);
    if constexpr (T::kGroup == 16) {
        packed_multiply<T, Which * 4, NT>(codes, x.q, column, part);
    } else {
        packed_multiply<T, 0, NT>(codes, x.q, column, part);
        packed_multiply<T, 4, NT>(codes, x.q, column + 16, part);
    }
    const int32x4_t low = vmovl_s16(vget_low_s16(scale)), high = vmovl_high_s16(scale);
    unroll<NT>([&](auto t) {
        const int16_t sum = x.sums[t][block * (256 / T::kGroup) + group];
        sums[t][0] = vmlaq_s32(sums[t][0], part[t][0], low);
        sums[t][1] = vmlaq_s32(sums[t][1], part[t][1], high);
        pairs[t][0] = vmlal_n_s16(pairs[t][0], vget_low_s16(weight), sum);
        pairs[t][1] = vmlal_high_n_s16(pairs[t][1], weight, sum);
    });
}

template <class T, int NT>
[[gnu::flatten]] inline void packed_block256(const uint8_t* p, const InputRows& in, const int* tokens,
                            float32x4_t (*acc)[2]) {
    constexpr Packing kPacking = packing_of(T::kType);
    const TokenRows<NT> x(in, tokens, 256, T::kGroup);
    for (int b = 0; b < in.columns / 256; ++b, p += kPacking.block_bytes) {
        int32x4_t sums[NT][2], pairs[NT][2];
        clear<NT>(sums);
        clear<NT>(pairs);
        for (int n = 0; n < kPacking.pairs; ++n) {
            const PairScales scales = packed_scales<T>(p, n), weights = packed_weights<T>(p, n);
            packed_group<T, 0>(p, n, x, b, scales.of[0], weights.of[0], sums, pairs);
            packed_group<T, 1>(p, n, x, b, scales.of[1], weights.of[1], sums, pairs);
        }
        unroll<2>([&](auto half) {
            const float32x4_t scale = load_halves(p + half * 8), min = packed_min<T>(p + half * 8);
            unroll<NT>([&](auto t) {
                const int32x4_t sum = without_offset<T>(sums[t][half], pairs[t][half]);
                acc[t][half] =
                    add_block256<T>(acc[t][half], sum, pairs[t][half], scale, min, x.d[t][b]);
            });
        });
    }
}

// Eight packed rows, the panel's from `first` on, against a few tokens.
template <class T, bool Super>
inline void packed_gemv(const Panel& panel, const uint8_t* p, int first) {
    in_runs<kGemmTokens - 1>(panel.tokens, [&](auto nt, int token) {
        int from[nt];
        float* to[nt];
        token_rows<nt>(panel, token, from, to);
        float32x4_t acc[nt][2];
        unroll<nt>([&](auto t) { acc[t][0] = acc[t][1] = vdupq_n_f32(0.0f); });
        if constexpr (Super) {
            packed_block256<T, nt>(p, *panel.input, from, acc);
        } else {
            packed_block32<T, nt>(p, *panel.input, from, acc);
        }
        for (int t = 0; t < nt; ++t) {
            store_rows(to[t] + first, acc[t][0], panel.rows - first);
            store_rows(to[t] + first + 4, acc[t][1], panel.rows - first - 4);
        }
    });
}

template <class T>
inline void unpack_packed_codes(const uint8_t* group, int8_t* to) {
    unroll<4>([&](auto octet) {
        constexpr int kQuad = octet * 2;
        for (int half = 0; half < 2; ++half) {
            store_quads(packed_codes<T, kQuad>(group, half), packed_codes<T, kQuad + 1>(group, half),
                        octet, half, to);
        }
    });
}

template <class T, bool Super>
[[gnu::flatten]] inline void unpack_packed(const uint8_t* p, int blocks, const Unpacked& to) {
    constexpr Packing kPacking = packing_of(T::kType);
    constexpr int kGroups32 = Super ? 8 : 1;
    for (int b = 0; b < blocks; ++b, p += kPacking.block_bytes) {
        for (int half = 0; half < 2; ++half) {
            vst1q_f32(to.d + b * 8 + half * 4, load_halves(p + half * 8));
            vst1q_f32(to.m + b * 8 + half * 4, packed_min<T>(p + half * 8));
        }
        for (int n = 0; n < kPacking.pairs; ++n) {
            const PairScales scales = packed_scales<T>(p, n), weights = packed_weights<T>(p, n);
            for (int i = 0; i < 2; ++i) {
                to.put_group((b * kPacking.pairs + n) * 2 + i, scales.of[i], weights.of[i]);
            }
        }
        for (int g = 0; g < kGroups32; ++g) {
            unpack_packed_codes<T>(p + kPacking.codes_at() + g * kPacking.group_bytes(),
                                   to.codes + (static_cast<size_t>(b) * kGroups32 + g) * kCodeBytes);
        }
    }
}

template <class T, bool Super>
void matmul_packed(const Panel& panel) {
    const int columns = panel.input->columns, block = Super ? 256 : 32;
    const Unpacked w(panel.scratch, columns, block);
    for (int first = 0; first < panel.rows; first += kPackedRows) {
        const uint8_t* p = panel.weights + first / kPackedRows * panel.row_bytes;
        if (panel.tokens < kGemmTokens) {
            packed_gemv<T, Super>(panel, p, first);
        } else {
            unpack_packed<T, Super>(p, columns / block, w);
            run_tiles<T, Super>(panel, w, first);
        }
    }
}

}  // namespace
}  // namespace moestream
