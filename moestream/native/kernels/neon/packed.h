// Products with packed matrices (packing.h): a lane is a row from the first load to the last sum.
#pragma once

#include "core/packing.h"
#include "kernels/neon/unpack.h"

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
                            int32x4_t* sums) {
    int8x16_t x[NT];
    unroll<NT>([&](auto t) { x[t] = vld1q_s8(q[t] + column); });
    unroll<4>([&](auto quad) {
        constexpr int kLane = quad;
        const int8x16_t low = packed_codes<T, First + kLane>(group, 0);
        const int8x16_t high = packed_codes<T, First + kLane>(group, 1);
        unroll<NT>([&](auto t) {
            sums[t * 2] = vdotq_laneq_s32(sums[t * 2], low, x[t], kLane);
            sums[t * 2 + 1] = vdotq_laneq_s32(sums[t * 2 + 1], high, x[t], kLane);
        });
    });
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
inline void packed_group(const uint8_t* p, int n, const TokenRows<T, NT>& x, int block,
                         int16x8_t scale, int16x8_t weight, int32x4_t* sums,
                         int32x4_t* pairs) {
    constexpr Packing kPacking = packing_of(T::kType);
    const int group = n * 2 + Which, column = block * 256 + group * T::kGroup;
    const uint8_t* codes =
        p + kPacking.codes_at() + group * T::kGroup / 32 * kPacking.group_bytes();
    int32x4_t part[NT * 2];
    fill<NT * 2>(part, vdupq_n_s32(0));
    if constexpr (T::kGroup == 16) {
        packed_multiply<T, Which * 4, NT>(codes, x.q, column, part);
    } else {
        packed_multiply<T, 0, NT>(codes, x.q, column, part);
        packed_multiply<T, 4, NT>(codes, x.q, column + 16, part);
    }
    const int32x4_t low = vmovl_s16(vget_low_s16(scale)), high = vmovl_high_s16(scale);
    unroll<NT>([&](auto t) {
        const int16_t sum = *x.sums(t, block * T::kGroups + group);
        sums[t * 2] = vmlaq_s32(sums[t * 2], part[t * 2], low);
        sums[t * 2 + 1] = vmlaq_s32(sums[t * 2 + 1], part[t * 2 + 1], high);
        pairs[t * 2] = vmlal_n_s16(pairs[t * 2], vget_low_s16(weight), sum);
        pairs[t * 2 + 1] = vmlal_high_n_s16(pairs[t * 2 + 1], weight, sum);
    });
}

template <class T>
inline void unpack_packed_codes(const uint8_t* group, int8_t* to) {
    unroll<4>([&](auto octet) {
        constexpr int kQuad = octet * 2;
        for (int half = 0; half < 2; ++half) {
            store_quads(packed_codes<T, kQuad>(group, half),
                        packed_codes<T, kQuad + 1>(group, half), octet, half, to);
        }
    });
}

struct NeonPacked : NeonGemv {
    // The processor follows one stream by itself.
    template <int>
    static void prefetch_stream(const uint8_t*) {}

    // The sums of a block of 32 columns, the input's from `column` on.
    template <class T, int NT>
    static void packed_block32(const uint8_t* codes, const int8_t* const* q, int column,
                               Int* sums) {
        fill<NT * 2>(sums, zero_int());
        packed_multiply<T, 0, NT>(codes, q, column, sums);
        packed_multiply<T, 4, NT>(codes, q, column + 16, sums);
    }

    // A super-block's pair `n` of groups.
    template <class T, int NT>
    static void packed_pair(const uint8_t* p, int block, int n, const TokenRows<T, NT>& x,
                            Int* sums, Int* weighed) {
        const PairScales scales = packed_scales<T>(p, n), weights = packed_weights<T>(p, n);
        packed_group<T, 0>(p, n, x, block, scales.of[0], weights.of[0], sums, weighed);
        packed_group<T, 1>(p, n, x, block, scales.of[1], weights.of[1], sums, weighed);
    }

    template <class T>
    [[gnu::flatten]] static void unpack_packed(const Panel& panel, int first, const Unpacked& to) {
        constexpr Packing kPacking = packing_of(T::kType);
        constexpr int kGroups32 = T::kBlock / 32;
        const int blocks = panel.input->columns / T::kBlock;
        const uint8_t* p = panel.weights + first / kPackedRows * panel.row_bytes;
        for (int b = 0; b < blocks; ++b, p += kPacking.block_bytes) {
            for (int half = 0; half < 2; ++half) {
                const int at = b * 8 + half * 4;
                store(to.d + at, load_halves(p + half * 8));
                if constexpr (T::kHasMin) store(to.m + at, load_halves(p + 16 + half * 8));
            }
            for (int n = 0; n < kPacking.pairs; ++n) {
                const PairScales scales = packed_scales<T>(p, n), weights = packed_weights<T>(p, n);
                for (int i = 0; i < 2; ++i) {
                    to.put_group((b * kPacking.pairs + n) * 2 + i, scales.of[i], weights.of[i]);
                }
            }
            for (int g = 0; g < kGroups32; ++g) {
                unpack_packed_codes<T>(
                    p + kPacking.codes_at() + g * kPacking.group_bytes(),
                    to.codes + (static_cast<size_t>(b) * kGroups32 + g) * kCodeBytes);
            }
        }
    }
};

}  // namespace
}  // namespace moestream
