// One attention tile: blocks of keys and values become float32 once for all queries of the tile.
#pragma once

#include <limits>

#include "core/attention.h"
#include "core/kernels.h"
#include "kernels/neon/common.h"

namespace moestream {
namespace {

// Of a multiple of eight values.
inline void half_to_floats(const uint16_t* from, int values, float* out) {
    for (int i = 0; i < values; i += 8) {
        const uint16x8_t v = vld1q_u16(from + i);
        vst1q_f32(out + i, halves_to_float(vget_low_u16(v)));
        vst1q_f32(out + i + 4, halves_to_float(vget_high_u16(v)));
    }
}

inline void q8_0_to_floats(const uint8_t* from, int blocks, float* out) {
    for (int b = 0; b < blocks; ++b, from += 34, out += 32) {
        const float d = load_half(from);
        for (int i = 0; i < 32; i += 8) {
            const int16x8_t q = vmovl_s8(vld1_s8(reinterpret_cast<const int8_t*>(from + 2 + i)));
            vst1q_f32(out + i, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(q))), d));
            vst1q_f32(out + i + 4, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(q))), d));
        }
    }
}

// `count` rows from position `start` on, in place or in `scratch`.
inline const float* block_floats(const CacheRows& rows, int start, int count, int dim,
                                 float* scratch) {
    return cache_floats(rows, start, count, dim, scratch, half_to_floats, q8_0_to_floats);
}

// Lanes of Q queries' products with N keys.
template <int Q, int N>
inline void dot_keys(const float* const* q, const float* keys, int dim,
                     float32x4_t (*acc)[4][2]) {
    unroll<Q * N>([&](auto i) { acc[i / N][i % N][0] = acc[i / N][i % N][1] = vdupq_n_f32(0.0f); });
    for (int c = 0; c < dim; c += 8) {
        unroll<N>([&](auto n) {
            const float32x4_t low = vld1q_f32(keys + n * dim + c);
            const float32x4_t high = vld1q_f32(keys + n * dim + c + 4);
            unroll<Q>([&](auto i) {
                acc[i][n][0] = vfmaq_f32(acc[i][n][0], vld1q_f32(q[i] + c), low);
                acc[i][n][1] = vfmaq_f32(acc[i][n][1], vld1q_f32(q[i] + c + 4), high);
            });
        });
    }
}

// Scores of Q queries against `count` keys; a row of kKeyBlock scores a query.
template <int Q>
[[gnu::flatten]] inline void score(const float* const* q, const float* keys, int count, int dim, float scale,
                  float* scores) {
    float32x4_t acc[Q][4][2];
    int j = 0;
    for (; j + 4 <= count; j += 4) {
        dot_keys<Q, 4>(q, keys + j * dim, dim, acc);
        unroll<Q>([&](auto i) {
            vst1q_f32(scores + i * kKeyBlock + j, vmulq_n_f32(fold_float4(acc[i]), scale));
        });
    }
    for (; j < count; ++j) {
        dot_keys<Q, 1>(q, keys + j * dim, dim, acc);
        unroll<Q>([&](auto i) { scores[i * kKeyBlock + j] = fold_float(acc[i][0]) * scale; });
    }
}

// Scores become exponentials (0 before `hidden` and beyond `count`); returns what older results shrink by.
inline float soften(float* scores, int hidden, int count, float* maximum, float32x4_t* sum) {
    const float before = *maximum;
    float largest = before;
    for (int j = 0; j < hidden; ++j) scores[j] = -std::numeric_limits<float>::infinity();
    for (int j = 0; j < count; ++j) largest = scores[j] > largest ? scores[j] : largest;
    for (int j = count; j < kKeyBlock; ++j) scores[j] = -std::numeric_limits<float>::infinity();
    *maximum = largest;
    const float shrink =
        before == largest ? 1.0f : vgetq_lane_f32(exp4(vdupq_n_f32(before - largest)), 0);
    unroll<2>([&](auto half) { sum[half] = vmulq_n_f32(sum[half], shrink); });
    for (int j = 0; j < count; j += 8) {
        unroll<2>([&](auto half) {
            float* at = scores + j + half * 4;
            const float32x4_t e = exp4(vsubq_f32(vld1q_f32(at), vdupq_n_f32(largest)));
            vst1q_f32(at, e);
            sum[half] = vaddq_f32(sum[half], e);
        });
    }
    return shrink;
}

// weighted = weighted * shrink + scores @ values (stride floats apart), for Q queries and N * 4 coordinates.
template <int Q, int N>
[[gnu::flatten]] inline void accumulate(const float* scores, const float* values, int count, int stride,
                       int dim,
                       const float* shrink, float* weighted) {
    float32x4_t acc[Q][N];
    unroll<Q * N>([&](auto k) {
        const int i = k / N, n = k % N;
        acc[i][n] = vmulq_n_f32(vld1q_f32(weighted + i * dim + n * 4), shrink[i]);
    });
    for (int j = 0; j < count; ++j) {
        unroll<N>([&](auto n) {
            const float32x4_t value = vld1q_f32(values + j * stride + n * 4);
            unroll<Q>([&](auto i) {
                acc[i][n] = vfmaq_n_f32(acc[i][n], value, scores[i * kKeyBlock + j]);
            });
        });
    }
    unroll<Q * N>([&](auto k) {
        const int i = k / N, n = k % N;
        vst1q_f32(weighted + i * dim + n * 4, acc[i][n]);
    });
}

template <int Q>
inline void accumulate_all(const float* scores, const float* values, int count, int stride,
                       int dim,
                           const float* shrink, float* weighted) {
    int c = 0;
    for (; c + 32 <= dim; c += 32) {
        accumulate<Q, 8>(scores, values + c, count, stride, dim, shrink, weighted + c);
    }
    for (; c < dim; c += 8) {
        accumulate<Q, 2>(scores, values + c, count, stride, dim, shrink, weighted + c);
    }
}

class TileRun {
  public:
    explicit TileRun(const AttentionTile& tile) : tile_(tile) {
        for (int i = 0; i < tile.queries; ++i) {
            tile.maximum[i] = -std::numeric_limits<float>::infinity();
            sums_[i][0] = sums_[i][1] = vdupq_n_f32(0.0f);
        }
        std::memset(tile.weighted, 0, sizeof(float) * tile.queries * tile.value_dim);
    }

    void run() {
        for (int start = tile_.begin; start < tile_.end; start += kKeyBlock) block(start);
        for (int i = 0; i < tile_.queries; ++i) tile_.sum[i] = fold_float(sums_[i]);
    }

  private:
    // Call body(2, ...) on pairs of queries that see the same positions, body(1, ...) on the
    // others, the number being a constant.
    template <class Body>
    void each(int start, const Body& body) const {
        for (int i = 0; i < tile_.queries;) {
            const int count = tile_.seen(i, start);
            if (count == 0) {
                ++i;
            } else if (i + 1 < tile_.queries && tile_.seen(i + 1, start) == count) {
                body(std::integral_constant<int, 2>{}, i, count);
                i += 2;
            } else {
                body(std::integral_constant<int, 1>{}, i, count);
                ++i;
            }
        }
    }

    void block(int start) {
        const AttentionTile& t = tile_;
        const int rows = t.end - start < kKeyBlock ? t.end - start : kKeyBlock;
        float* scores = t.scratch;
        float* floats = scores + kTileQueries * kKeyBlock;
        float shrink[kTileQueries];
        const float* keys = block_floats(t.keys, start, rows, t.dim, floats);
        each(start, [&](auto queries, int i, int count) {
            score<queries>(t.q + i, keys, count, t.dim, t.scale, scores + i * kKeyBlock);
        });
        for (int i = 0; i < t.queries; ++i) {
            const int count = tile_.seen(i, start);
            if (count == 0) continue;
            shrink[i] = soften(scores + i * kKeyBlock, t.hidden(i, start), count, &t.maximum[i], sums_[i]);
        }
        const float* values = t.values.data == nullptr
                                  ? keys
                                  : block_floats(t.values, start, rows, t.value_dim, floats);
        each(start, [&](auto queries, int i, int count) {
            accumulate_all<queries>(scores + i * kKeyBlock, values, count, t.value_stride(), t.value_dim, shrink + i,
                                    t.weighted + static_cast<size_t>(i) * t.value_dim);
        });
    }

    const AttentionTile& tile_;
    float32x4_t sums_[kTileQueries][2];
};

void attend(const AttentionTile& tile) {
    // No model has heads of other sizes; the scalar kernel takes them as they are.
    if (tile.dim % 8 != 0 || tile.value_dim % 8 != 0) return kScalarKernels.attend(tile);
    TileRun(tile).run();
}

}  // namespace
}  // namespace moestream
