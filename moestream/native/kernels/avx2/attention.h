// One attention tile: blocks of keys and values become float32 once for all queries of the tile.
#pragma once

#include <limits>

#include "core/attention.h"
#include "kernels/avx2/common.h"

namespace moestream {
namespace {

// Of a multiple of eight values.
inline void half_to_floats(const uint16_t* from, int values, float* out) {
    for (int i = 0; i < values; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(load128(from + i)));
    }
}

inline void q8_0_to_floats(const uint8_t* from, int blocks, float* out) {
    for (int b = 0; b < blocks; ++b, from += 34, out += 32) {
        const __m256 d = _mm256_cvtph_ps(_mm_set1_epi16(static_cast<short>(load_u16(from))));
        for (int i = 0; i < 32; i += 8) {
            const __m128i q = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + 2 + i));
            const __m256 codes = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
            _mm256_storeu_ps(out + i, _mm256_mul_ps(d, codes));
        }
    }
}

// `count` rows from position `start` on, in place or in `scratch`.
inline const float* block_floats(const CacheRows& rows, int start, int count, int dim,
                                 float* scratch) {
    return cache_floats(rows, start, count, dim, scratch, half_to_floats, q8_0_to_floats);
}

// Scores of Q queries against `count` keys; a row of kKeyBlock scores a query.
template <int Q>
inline void score(const float* const* q, const float* keys, int count, int dim, float scale,
                  float* scores) {
    int j = 0;
    for (; j + 4 <= count; j += 4) {
        const float* key = keys + j * dim;
        __m256 acc[Q][4];
        for (int i = 0; i < Q; ++i) {
            for (int n = 0; n < 4; ++n) acc[i][n] = _mm256_setzero_ps();
        }
        for (int c = 0; c < dim; c += 8) {
            for (int i = 0; i < Q; ++i) {
                const __m256 x = _mm256_loadu_ps(q[i] + c);
                for (int n = 0; n < 4; ++n) {
                    acc[i][n] = _mm256_fmadd_ps(x, _mm256_loadu_ps(key + n * dim + c), acc[i][n]);
                }
            }
        }
        for (int i = 0; i < Q; ++i) {
            const __m128 sum = fold_float4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
            _mm_storeu_ps(scores + i * kKeyBlock + j, _mm_mul_ps(sum, _mm_set1_ps(scale)));
        }
    }
    for (; j < count; ++j) {
        for (int i = 0; i < Q; ++i) {
            __m256 acc = _mm256_setzero_ps();
            for (int c = 0; c < dim; c += 8) {
                acc = _mm256_fmadd_ps(_mm256_loadu_ps(q[i] + c),
                                      _mm256_loadu_ps(keys + j * dim + c), acc);
            }
            scores[i * kKeyBlock + j] = fold_float(acc) * scale;
        }
    }
}

// Scores become exponentials (0 before `hidden` and beyond `count`); returns what older results shrink by.
inline float soften(float* scores, int hidden, int count, float* maximum, __m256* sum) {
    const float before = *maximum;
    float largest = before;
    for (int j = 0; j < hidden; ++j) scores[j] = -std::numeric_limits<float>::infinity();
    for (int j = 0; j < count; ++j) largest = scores[j] > largest ? scores[j] : largest;
    for (int j = count; j < kKeyBlock; ++j) scores[j] = -std::numeric_limits<float>::infinity();
    *maximum = largest;
    float shrink = 1.0f;
    if (before != largest) {
        shrink = _mm256_cvtss_f32(exp8(_mm256_set1_ps(before - largest)));
    }
    *sum = _mm256_mul_ps(*sum, _mm256_set1_ps(shrink));
    for (int j = 0; j < count; j += 8) {
        const __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(scores + j), _mm256_set1_ps(largest)));
        _mm256_storeu_ps(scores + j, e);
        *sum = _mm256_add_ps(*sum, e);
    }
    return shrink;
}

// weighted = weighted * shrink + scores @ values (stride floats apart), for Q queries and N * 8 coordinates.
template <int Q, int N>
inline void accumulate(const float* scores, const float* values, int count, int stride,
                       int dim,
                       const float* shrink, float* weighted) {
    __m256 acc[Q][N];
    for (int i = 0; i < Q; ++i) {
        for (int n = 0; n < N; ++n) {
            acc[i][n] = _mm256_mul_ps(_mm256_loadu_ps(weighted + i * dim + n * 8),
                                      _mm256_set1_ps(shrink[i]));
        }
    }
    for (int j = 0; j < count; ++j) {
        for (int n = 0; n < N; ++n) {
            const __m256 value = _mm256_loadu_ps(values + j * stride + n * 8);
            for (int i = 0; i < Q; ++i) {
                const __m256 weight = _mm256_set1_ps(scores[i * kKeyBlock + j]);
                acc[i][n] = _mm256_fmadd_ps(weight, value, acc[i][n]);
            }
        }
    }
    for (int i = 0; i < Q; ++i) {
        for (int n = 0; n < N; ++n) _mm256_storeu_ps(weighted + i * dim + n * 8, acc[i][n]);
    }
}

template <int Q>
inline void accumulate_all(const float* scores, const float* values, int count, int stride,
                       int dim,
                           const float* shrink, float* weighted) {
    int c = 0;
    for (; c + 32 <= dim; c += 32) {
        accumulate<Q, 4>(scores, values + c, count, stride, dim, shrink, weighted + c);
    }
    for (; c < dim; c += 8) {
        accumulate<Q, 1>(scores, values + c, count, stride, dim, shrink, weighted + c);
    }
}

class TileRun {
  public:
    explicit TileRun(const AttentionTile& tile) : tile_(tile) {
        for (int i = 0; i < tile.queries; ++i) {
            tile.maximum[i] = -std::numeric_limits<float>::infinity();
            sums_[i] = _mm256_setzero_ps();
        }
        std::memset(tile.weighted, 0, sizeof(float) * tile.queries * tile.value_dim);
    }

    void run() {
        for (int start = tile_.begin; start < tile_.end; start += kKeyBlock) block(start);
        for (int i = 0; i < tile_.queries; ++i) tile_.sum[i] = fold_float(sums_[i]);
    }

  private:
    // Call body<2> on pairs of queries that see the same positions, body<1> on the others.
    template <class Pair, class Single>
    void each(int start, const Pair& pair, const Single& single) const {
        for (int i = 0; i < tile_.queries;) {
            const int count = tile_.seen(i, start);
            if (count == 0) {
                ++i;
            } else if (i + 1 < tile_.queries && tile_.seen(i + 1, start) == count) {
                pair(i, count);
                i += 2;
            } else {
                single(i, count);
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
        each(start,
             [&](int i, int count) {
                 score<2>(t.q + i, keys, count, t.dim, t.scale, scores + i * kKeyBlock);
             },
             [&](int i, int count) {
                 score<1>(t.q + i, keys, count, t.dim, t.scale, scores + i * kKeyBlock);
             });
        for (int i = 0; i < t.queries; ++i) {
            const int count = tile_.seen(i, start);
            if (count == 0) continue;
            shrink[i] = soften(scores + i * kKeyBlock, t.hidden(i, start), count, &t.maximum[i], &sums_[i]);
        }
        const float* values = t.values.data == nullptr
                                  ? keys
                                  : block_floats(t.values, start, rows, t.value_dim, floats);
        each(start,
             [&](int i, int count) {
                 accumulate_all<2>(scores + i * kKeyBlock, values, count, t.value_stride(), t.value_dim, shrink + i,
                                   t.weighted + static_cast<size_t>(i) * t.value_dim);
             },
             [&](int i, int count) {
                 accumulate_all<1>(scores + i * kKeyBlock, values, count, t.value_stride(), t.value_dim, shrink + i,
                                   t.weighted + static_cast<size_t>(i) * t.value_dim);
             });
    }

    const AttentionTile& tile_;
    __m256 sums_[kTileQueries];
};

}  // namespace
}  // namespace moestream
