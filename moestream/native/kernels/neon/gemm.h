// Products with many tokens: eight rows are taken apart once, then run against all tokens.
//
// Unpacked codes lie as multiply.h wants them, so that nothing is folded: sums come out with
// a row to a lane.
#pragma once

#include "kernels/neon/gemv.h"
#include "kernels/neon/multiply.h"

namespace moestream {
namespace {

// Eight accumulators of sums, eight of a group's, eight of floats: with codes and inputs that
// fills the 32 registers.
inline constexpr int kTileTokens = 4;

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

template <class T>
inline void unpack_floats(const uint8_t* const* rows, size_t at, int block, const Unpacked& to) {
    unroll<2>([&](auto half) {
        float32x4_t scale, min;
        load_floats4<T>(rows + half * 4, at, &scale, &min);
        vst1q_f32(to.d + block * 8 + half * 4, scale);
        if constexpr (T::kHasMin) vst1q_f32(to.m + block * 8 + half * 4, min);
    });
}

template <class T>
[[gnu::flatten]] inline void unpack_block32(const uint8_t* const* rows, int blocks, const Unpacked& to) {
    for (int b = 0; b < blocks; ++b) {
        const size_t at = static_cast<size_t>(b) * kBytes<T>;
        Codes codes[8];
        unroll<8>([&](auto r) { codes[r] = T::codes(rows[r] + at); });
        store_codes(codes, to.codes + static_cast<size_t>(b) * kCodeBytes);
        unpack_floats<T>(rows, at, b, to);
    }
}

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
inline void unpack_scales(const uint8_t* const* rows, size_t at, int block, const Unpacked& to) {
    constexpr int kEights = 256 / T::kGroup / 8;
    int16x8_t scales[2][8], weights[2][8];
    unroll<8>([&](auto r) {
        const Scales scale = T::scales(rows[r] + at);
        const Scales weight = weights_of_sums<T>(rows[r] + at, scale);
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

template <class T>
[[gnu::flatten]] inline void unpack_block256(const uint8_t* const* rows, int blocks, const Unpacked& to) {
    for (int b = 0; b < blocks; ++b) {
        const size_t at = static_cast<size_t>(b) * kBytes<T>;
        unroll<8>([&](auto j) {
            constexpr int J = j;
            Codes codes[8];
            unroll<8>([&](auto r) { codes[r] = T::template codes<J>(rows[r] + at); });
            store_codes(codes, to.codes + (static_cast<size_t>(b) * 8 + J) * kCodeBytes);
        });
        unpack_scales<T>(rows, at, b, to);
        unpack_floats<T>(rows, at + T::kDAt, b, to);
    }
}

template <class T, int NT>
[[gnu::flatten]] inline void tile_block32(const Unpacked& w, const InputRows& in, const int* tokens,
                         float32x4_t (*acc)[2]) {
    TokenRows<NT> x(in, tokens, 32, 32);
    const int blocks = in.columns / 32;
    for (int b = 0; b < blocks; ++b) {
        int32x4_t sums[kSums<NT>];
        unroll<kSums<NT>>([&](auto i) { sums[i] = vdupq_n_s32(0); });
        multiply<NT, 32>(w.codes + static_cast<size_t>(b) * kCodeBytes, x.q, sums);
        unroll<NT>([&](auto t) {
            constexpr int kToken = t;
            x.q[t] += 32;
            unroll<2>([&](auto half) {
                const int at = b * 8 + half * 4;
                acc[t][half] = add_block32<T>(acc[t][half], rows_of<kToken, half>(sums),
                                              vld1q_f32(w.d + at), vld1q_f32(w.m + at), x, t, b);
            });
        });
    }
}

// Of one token and eight rows: the sum over a super-block's groups of weight times input sum.
template <int Groups>
inline void dot_group_sums(const int16_t* weights, const int16_t* sums, int32x4_t* total) {
    total[0] = total[1] = vdupq_n_s32(0);
    unroll<Groups>([&](auto g) {
        const int16x8_t weight = vld1q_s16(weights + g * 8);
        total[0] = vmlal_n_s16(total[0], vget_low_s16(weight), sums[g]);
        total[1] = vmlal_high_n_s16(total[1], weight, sums[g]);
    });
}

template <class T, int NT>
[[gnu::flatten]] inline void tile_block256(const Unpacked& w, const InputRows& in, const int* tokens,
                          float32x4_t (*acc)[2]) {
    constexpr int kGroups = 256 / T::kGroup, kGroupBytes = T::kGroup * 8;
    TokenRows<NT> x(in, tokens, 256, T::kGroup);
    const int blocks = in.columns / 256;
    for (int b = 0; b < blocks; ++b) {
        int32x4_t sums[kSums<NT>];
        unroll<kSums<NT>>([&](auto i) { sums[i] = vdupq_n_s32(0); });
        for (int g = b * kGroups; g < (b + 1) * kGroups; ++g) {
            int32x4_t part[kSums<NT>];
            unroll<kSums<NT>>([&](auto i) { part[i] = vdupq_n_s32(0); });
            multiply<NT, T::kGroup>(w.codes + static_cast<size_t>(g) * kGroupBytes, x.q, part);
            add_scaled<NT>(part, w.scales + static_cast<size_t>(g) * kScaleRegisters * 4, sums);
            unroll<NT>([&](auto t) { x.q[t] += T::kGroup; });
        }
        unroll<NT>([&](auto t) {
            constexpr int kToken = t;
            int32x4_t pair[2];
            dot_group_sums<kGroups>(w.mins + static_cast<size_t>(b) * kGroups * 8,
                                    x.sums[t] + b * kGroups, pair);
            unroll<2>([&](auto half) {
                const int at = b * 8 + half * 4;
                acc[t][half] = add_block256<T>(
                    acc[t][half], without_offset<T>(rows_of<kToken, half>(sums), pair[half]),
                    pair[half], vld1q_f32(w.d + at), vld1q_f32(w.m + at), x.d[t][b]);
            });
        });
    }
}

// Eight unpacked rows, the panel's from `first` on, against all tokens.
template <class T, bool Super>
inline void run_tiles(const Panel& panel, const Unpacked& w, int first) {
    in_runs<kTileTokens>(panel.tokens, [&](auto nt, int token) {
        int from[nt];
        float* to[nt];
        token_rows<nt>(panel, token, from, to);
        float32x4_t acc[nt][2];
        unroll<nt>([&](auto t) { acc[t][0] = acc[t][1] = vdupq_n_f32(0.0f); });
        if constexpr (Super) {
            tile_block256<T, nt>(w, *panel.input, from, acc);
        } else {
            tile_block32<T, nt>(w, *panel.input, from, acc);
        }
        for (int t = 0; t < nt; ++t) {
            store_rows(to[t] + first, acc[t][0], panel.rows - first);
            store_rows(to[t] + first + 4, acc[t][1], panel.rows - first - 4);
        }
    });
}

template <class T, bool Super>
void matmul(const Panel& panel) {
    if (panel.tokens < kGemmTokens) return gemv<T, Super>(panel);
    const int columns = panel.input->columns, block = Super ? 256 : 32;
    const Unpacked w(panel.scratch, columns, block);
    for (int first = 0; first < panel.rows; first += 8) {
        const uint8_t* rows[8];
        row_pointers<8>(panel, first, rows);
        if constexpr (Super) {
            unpack_block256<T>(rows, columns / block, w);
        } else {
            unpack_block32<T>(rows, columns / block, w);
        }
        run_tiles<T, Super>(panel, w, first);
    }
}

}  // namespace
}  // namespace moestream
