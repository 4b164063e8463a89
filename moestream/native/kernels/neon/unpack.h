// Eight rows taken apart, to be run against many tokens.
//
// Codes lie as multiply.h wants them, so that nothing is folded: sums have a row to a lane.
#pragma once

#include "kernels/neon/gemv.h"
#include "kernels/neon/multiply.h"

namespace moestream {
namespace {

// Eight rows in a panel's scratch.
struct Unpacked {
    int8_t* codes;    // (columns / 32, kCodeBytes)
    float* d;         // (blocks, row 8)
    float* m;         // (blocks, row 8)
    int32_t* scales;  // (groups, kScaleRegisters, 4)
    int16_t* mins;    // (groups, row 8): minimums (or scales, for an offset)

    Unpacked(uint8_t* scratch, int columns, int block) {
        const size_t floats = static_cast<size_t>(columns / block) * 8;
        codes = reinterpret_cast<int8_t*>(scratch);
        d = reinterpret_cast<float*>(codes + static_cast<size_t>(columns) * 8);
        m = d + floats;
        scales = reinterpret_cast<int32_t*>(m + floats);
        mins = reinterpret_cast<int16_t*>(scales +
                                          static_cast<size_t>(columns) / 16 * kScaleRegisters * 4);
    }

    // One group's scales and weights of input sums, of eight rows.
    void put_group(int group, int16x8_t scale, int16x8_t weight) const {
        store_scales(vmovl_s16(vget_low_s16(scale)), vmovl_high_s16(scale),
                     scales + static_cast<size_t>(group) * kScaleRegisters * 4);
        vst1q_s16(mins + static_cast<size_t>(group) * 8, weight);
    }
};

// Row r of eight rows of eight becomes column r.
inline void transpose8(int16x8_t* v) {
    int16x8_t a[8], b[8];
    unroll<4>([&](auto i) {
        a[i * 2] = vzip1q_s16(v[i], v[i + 4]);
        a[i * 2 + 1] = vzip2q_s16(v[i], v[i + 4]);
    });
    unroll<4>([&](auto i) {
        b[i * 2] = vzip1q_s16(a[i], a[i + 4]);
        b[i * 2 + 1] = vzip2q_s16(a[i], a[i + 4]);
    });
    unroll<4>([&](auto i) {
        v[i * 2] = vzip1q_s16(b[i], b[i + 4]);
        v[i * 2 + 1] = vzip2q_s16(b[i], b[i + 4]);
    });
}

template <class T>
inline void unpack_scales(const auto* rows, int block, const Unpacked& to) {
    constexpr int kEights = T::kGroups / 8;
    int16x8_t scales[2][8], weights[2][8];
    unroll<8>([&](auto r) {
        const Scales scale = T::scales(rows[r]);
        const Scales weight = weights_of_sums<T>(rows[r], scale);
        scales[0][r] = scale.low, scales[1][r] = scale.high;
        weights[0][r] = weight.low, weights[1][r] = weight.high;
    });
    unroll<kEights>([&](auto eight) {
        transpose8(scales[eight]);
        transpose8(weights[eight]);
        unroll<8>([&](auto g) {
            to.put_group((block * kEights + eight) * 8 + g, scales[eight][g], weights[eight][g]);
        });
    });
}

// The codes of a block's eight rows, and of a super-block its integer scales.
template <class T>
inline void unpack_codes(const uint8_t* const* rows, size_t at, int block, const Unpacked& to) {
    int8_t* out = to.codes + static_cast<size_t>(block) * T::kUnit * T::kParts * 8;
    Codes codes[8];
    if constexpr (T::kSuper) {
        decltype(T::open(nullptr)) open[8];
        unroll<8>([&](auto r) { open[r] = T::open(rows[r] + at); });
        unroll<8>([&](auto j) {
            constexpr int J = j;
            unroll<8>([&](auto r) { codes[r] = T::template codes<J>(open[r]); });
            store_codes(codes, out + J * kCodeBytes);
        });
        unpack_scales<T>(open, block, to);
    } else {
        unroll<T::kParts>([&](auto part) {
            unroll<8>([&](auto r) { codes[r] = codes_of_part<T, part>(rows[r] + at); });
            store_codes(codes, out + part * kCodeBytes);
        });
    }
}

template <class T>
[[gnu::flatten]] inline void unpack_rows(const uint8_t* const* rows, int blocks,
                                         const Unpacked& to) {
    for (int b = 0; b < blocks; ++b) {
        const size_t at = static_cast<size_t>(b) * T::kBytes;
        unpack_codes<T>(rows, at, b, to);
        constexpr int kFloats = T::kUnit * T::kParts / T::kBlock;  // scales of a block
        unroll<2 * kFloats>([&](auto i) {
            constexpr int kWhich = i / 2, kHalf = i % 2;
            float32x4_t d, m;
            load_floats4<T>(rows + kHalf * 4, at, kWhich, &d, &m);
            const int to_row = (b * kFloats + kWhich) * 8 + kHalf * 4;
            vst1q_f32(to.d + to_row, d);
            if constexpr (T::kHasMin) vst1q_f32(to.m + to_row, m);
        });
    }
}

}  // namespace
}  // namespace moestream
