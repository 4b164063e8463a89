// One attention tile: blocks of keys and values become float32 once for all queries of the tile.
//
// V is an instruction set's vectors; a sum has eight lanes, which are kParts registers.
#pragma once

#include "core/attention.h"
#include "kernels/rows.h"

namespace moestream {
namespace {

// Of a multiple of eight values.
template <class V>
inline void half_to_floats(const uint16_t* from, int values, float* out) {
    for (int i = 0; i < values; i += 8) {
        typename V::Float v[kParts<V>];
        V::template load_values<Type::F16>(reinterpret_cast<const uint8_t*>(from + i), v);
        unroll<kParts<V>>([&](auto part) { V::store(out + i + part * V::kLanes, v[part]); });
    }
}

template <class V>
inline void q8_0_to_floats(const uint8_t* from, int blocks, float* out) {
    for (int b = 0; b < blocks; ++b, from += 34, out += 32) {
        const auto d = V::set(V::half(from));
        for (int i = 0; i < 32; i += 8) {
            typename V::Float v[kParts<V>];
            V::load_codes(from + 2 + i, v);
            unroll<kParts<V>>([&](auto part) {
                V::store(out + i + part * V::kLanes, V::mul(v[part], d));
            });
        }
    }
}

// `count` rows from position `start` on, in place or in `scratch`.
template <class V>
inline const float* block_floats(const CacheRows& rows, int start, int count, int dim,
                                 float* scratch) {
    return cache_floats(rows, start, count, dim, scratch, half_to_floats<V>, q8_0_to_floats<V>);
}

// Lanes of Q queries' products with N keys: acc (query, key of four, part).
template <class V, int Q, int N>
inline void dot_keys(const float* const* q, const float* keys, int dim, typename V::Float* acc) {
    constexpr int kPart = kParts<V>;
    fill<Q * 4 * kPart>(acc, V::zero());
    for (int c = 0; c < dim; c += 8) {
        unroll<N * kPart>([&](auto k) {
            constexpr int n = k / kPart, part = k % kPart;
            const auto key = V::load(keys + n * dim + c + part * V::kLanes);
            unroll<Q>([&](auto i) {
                constexpr int at = (i * 4 + n) * kPart + part;
                acc[at] = V::fma(V::load(q[i] + c + part * V::kLanes), key, acc[at]);
            });
        });
    }
}

// Scores of Q queries against `count` keys; a row of kKeyBlock scores a query.
template <class V, int Q>
[[gnu::flatten]] inline void score(const float* const* q, const float* keys, int count, int dim,
                                   float scale, float* scores) {
    constexpr int kQuery = 4 * kParts<V>;
    typename V::Float acc[Q * kQuery];
    int j = 0;
    for (; j + 4 <= count; j += 4) {
        dot_keys<V, Q, 4>(q, keys + j * dim, dim, acc);
        unroll<Q>([&](auto i) { V::fold4(acc + i * kQuery, scale, scores + i * kKeyBlock + j); });
    }
    for (; j < count; ++j) {
        dot_keys<V, Q, 1>(q, keys + j * dim, dim, acc);
        unroll<Q>([&](auto i) { scores[i * kKeyBlock + j] = V::fold(acc + i * kQuery) * scale; });
    }
}

// Scores become exponentials (0 before `hidden` and beyond `count`); returns what older results
// shrink by.
template <class V>
inline float soften(float* scores, int hidden, int count, float* maximum, typename V::Float* sum) {
    constexpr float kNever = -std::numeric_limits<float>::infinity();
    const float before = *maximum;
    float largest = before;
    for (int j = 0; j < hidden; ++j) scores[j] = kNever;
    for (int j = 0; j < count; ++j) largest = scores[j] > largest ? scores[j] : largest;
    for (int j = count; j < kKeyBlock; ++j) scores[j] = kNever;
    *maximum = largest;
    float shrink = 1.0f;
    if (before != largest) shrink = V::first(V::exp(V::set(before - largest)));
    unroll<kParts<V>>([&](auto part) { sum[part] = V::mul(sum[part], V::set(shrink)); });
    for (int j = 0; j < count; j += 8) {
        unroll<kParts<V>>([&](auto part) {
            float* at = scores + j + part * V::kLanes;
            const auto e = V::exp(V::sub(V::load(at), V::set(largest)));
            V::store(at, e);
            sum[part] = V::add(sum[part], e);
        });
    }
    return shrink;
}

// Where weighted values come from and go to.
struct Weighing {
    const float* scores;  // kKeyBlock a query
    const float* values;  // `stride` floats apart
    int count;
    int stride;
    const float* shrink;
    float* weighted;  // `dim` floats apart
    int dim;
};

// weighted = weighted * shrink + scores @ values, for Q queries and Columns coordinates from
// `column` on.
template <class V, int Q, int Columns>
[[gnu::flatten]] inline void accumulate(const Weighing& w, int column) {
    constexpr int N = Columns / V::kLanes;
    float* weighted = w.weighted + column;
    typename V::Float acc[Q * N];
    unroll<Q * N>([&](auto k) {
        constexpr int i = k / N, n = k % N;
        acc[k] = V::mul(V::load(weighted + i * w.dim + n * V::kLanes), V::set(w.shrink[i]));
    });
    const float* values = w.values + column;
    for (int j = 0; j < w.count; ++j, values += w.stride) {
        unroll<N>([&](auto n) {
            const auto value = V::load(values + n * V::kLanes);
            unroll<Q>([&](auto i) {
                constexpr int at = i * N + n;
                acc[at] = V::fma(value, V::set(w.scores[i * kKeyBlock + j]), acc[at]);
            });
        });
    }
    unroll<Q * N>([&](auto k) {
        constexpr int i = k / N, n = k % N;
        V::store(weighted + i * w.dim + n * V::kLanes, acc[k]);
    });
}

template <class V>
class TileRun {
  public:
    explicit TileRun(const AttentionTile& tile) : tile_(tile) {
        for (int i = 0; i < tile.queries; ++i) {
            tile.maximum[i] = -std::numeric_limits<float>::infinity();
            fill<kParts<V>>(sums_[i], V::zero());
        }
        std::memset(tile.weighted, 0, sizeof(float) * tile.queries * tile.value_dim);
    }

    void run() {
        for (int start = tile_.begin; start < tile_.end; start += kKeyBlock) block(start);
        for (int i = 0; i < tile_.queries; ++i) tile_.sum[i] = V::fold(sums_[i]);
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
        const float* keys = block_floats<V>(t.keys, start, rows, t.dim, floats);
        each(start, [&](auto queries, int i, int count) {
            score<V, queries>(t.q + i, keys, count, t.dim, t.scale, scores + i * kKeyBlock);
        });
        for (int i = 0; i < t.queries; ++i) {
            const int count = t.seen(i, start);
            if (count == 0) continue;
            shrink[i] = soften<V>(scores + i * kKeyBlock, t.hidden(i, start), count, &t.maximum[i],
                                  sums_[i]);
        }
        const float* values = t.values.data == nullptr
                                  ? keys
                                  : block_floats<V>(t.values, start, rows, t.value_dim, floats);
        each(start, [&](auto queries, int i, int count) {
            const Weighing weighing{scores + i * kKeyBlock, values, count, t.value_stride(),
                                    shrink + i,
                                    t.weighted + static_cast<size_t>(i) * t.value_dim, t.value_dim};
            int column = 0;
            for (; column + 32 <= t.value_dim; column += 32) {
                accumulate<V, queries, 32>(weighing, column);
            }
            for (; column < t.value_dim; column += 8) accumulate<V, queries, 8>(weighing, column);
        });
    }

    const AttentionTile& tile_;
    typename V::Float sums_[kTileQueries][kParts<V>];
};

template <class V>
void attend(const AttentionTile& tile) {
    // No model has heads of other sizes; the scalar kernel takes them as they are.
    if (tile.dim % 8 != 0 || tile.value_dim % 8 != 0) return kScalarKernels.attend(tile);
    TileRun<V>(tile).run();
}

}  // namespace
}  // namespace moestream
