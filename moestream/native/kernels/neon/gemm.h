// Products of unpacked rows with up to four tokens at once.
#pragma once

#include "kernels/neon/attention.h"
#include "kernels/neon/packed.h"

namespace moestream {
namespace {

struct Neon : NeonPacked {
    using Few = Neon;
    using Attention = NeonAttention;
    using Unpacked = moestream::Unpacked;
    // Eight accumulators of sums, eight of a group's, eight of floats: with codes and inputs that
    // fills the 32 registers.
    static constexpr int kTileRegisters = 2, kTileTokens = 4;
    template <Type T>
    using Trait = Blocks<T>;
    template <int NT>
    using Sums = Int[kSums<NT>];

    template <class T>
    static void unpack(const Panel& panel, int first, const Unpacked& to) {
        const uint8_t* rows[8];
        row_pointers<8>(panel, first, rows);
        unpack_rows<T>(rows, panel.input->columns / (T::kUnit * T::kParts), to);
    }

    template <class T, int NT>
    static void sum_block32(const Unpacked& w, int block, const int8_t* const* q, Sums<NT>& sums) {
        fill<kSums<NT>>(sums, zero_int());
        multiply<NT, T::kBlock>(w.codes + static_cast<size_t>(block) * T::kBlock * 8, q,
                                block * T::kBlock, sums);
    }

    template <class T, int NT>
    static void sum_block256(const Unpacked& w, int block, const int8_t* const* q,
                             Sums<NT>& sums) {
        fill<kSums<NT>>(sums, zero_int());
        for (int i = block * T::kGroups; i < (block + 1) * T::kGroups; ++i) {
            const size_t g = i;
            Int part[kSums<NT>];
            fill<kSums<NT>>(part, zero_int());
            multiply<NT, T::kGroup>(w.codes + g * T::kGroup * 8, q, g * T::kGroup, part);
            add_scaled<NT>(part, w.scales + g * kScaleRegisters * 4, sums);
        }
    }

    template <class T, int NT>
    static void weigh(const Unpacked& w, int block, const TokenRows<T, NT>& x, Int* weighed) {
        const int first = block * T::kGroups;
        unroll<T::kGroups>([&](auto g) {
            const int16x8_t weight = vld1q_s16(w.mins + static_cast<size_t>(first + g) * 8);
            unroll<NT>([&](auto t) {
                const int16_t sum = x.sums(t, first)[g];
                weighed[t * 2] = vmlal_n_s16(weighed[t * 2], vget_low_s16(weight), sum);
                weighed[t * 2 + 1] = vmlal_high_n_s16(weighed[t * 2 + 1], weight, sum);
            });
        });
    }

    template <int Token, int Half>
    static Int rows_of(const Int* sums) {
        return moestream::rows_of<Token, Half>(sums);
    }
};

}  // namespace
}  // namespace moestream
