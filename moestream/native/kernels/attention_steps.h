// The steps of an attention tile: unpacking rows, products, exponentials.
//
// V is an instruction set's vectors for attention. A product is summed one term after another and
// a sum of exponentials in kSumLanes lanes, so the width of V shows in no result.
#pragma once

#include <cstring>
#include <limits>

#include "core/attention.h"
#include "kernels/loops.h"

namespace moestream {
namespace {

inline constexpr float kNever = -std::numeric_limits<float>::infinity();

// Not the standard's, which units of other instruction sets might be linked to.
template <class T>
inline T smaller(T a, T b) {
    return b < a ? b : a;
}
template <class T>
inline T larger(T a, T b) {
    return a < b ? b : a;
}

// Positions whose scores lie side by side in transposed keys.
template <class V>
inline constexpr int kPanel = V::kVectors * V::kLanes;

// What V::load_values and V::load_codes load at once.
template <class V>
inline constexpr int kStep = V::kLanes < 8 ? 8 : V::kLanes;

// Of a multiple of sixteen values.
template <class V>
inline void half_to_floats(const uint16_t* from, int values, float* out) {
    for (int i = 0; i < values; i += kStep<V>) {
        typename V::Float v[kStep<V> / V::kLanes];
        V::template load_values<Type::F16>(reinterpret_cast<const uint8_t*>(from + i), v);
        unroll<kStep<V> / V::kLanes>([&](auto r) { V::store(out + i + r * V::kLanes, v[r]); });
    }
}

// A block's codes times its scale.
template <class V>
inline void scale_codes(const int8_t* codes, typename V::Float d, float* out) {
    for (int i = 0; i < kCacheBlock; i += kStep<V>) {
        typename V::Float v[kStep<V> / V::kLanes];
        V::load_codes(reinterpret_cast<const uint8_t*>(codes + i), v);
        unroll<kStep<V> / V::kLanes>([&](auto r) {
            V::store(out + i + r * V::kLanes, V::mul(v[r], d));
        });
    }
}

template <class V>
inline void q8_0_to_floats(const uint8_t* from, int blocks, float* out) {
    for (int b = 0; b < blocks; ++b, from += kQ8_0Bytes, out += kCacheBlock) {
        scale_codes<V>(reinterpret_cast<const int8_t*>(from + 2), V::set(V::half(from)), out);
    }
}

template <class V>
inline void q4_0_to_floats(const uint8_t* from, int blocks, float* out) {
    for (int b = 0; b < blocks; ++b, from += kQ4_0Bytes, out += kCacheBlock) {
        alignas(kCacheBlock) int8_t codes[kCacheBlock];
        q4_0_codes(from, codes);
        scale_codes<V>(codes, V::set(V::half(from)), out);
    }
}

// `count` rows from position `start` on, in place or in `scratch`; a multiple of sixteen.
template <class V>
inline const float* block_floats(const CacheRows& rows, int start, int count, int dim,
                                 float* scratch) {
    return cache_floats(rows, start, count, dim, scratch, half_to_floats<V>, q8_0_to_floats<V>,
                        q4_0_to_floats<V>);
}

// kRowsRead rows of keys to columns of a panel (dim, kPanel).
template <class V>
[[gnu::flatten]] inline void transpose(const float* rows, int dim, float* panel) {
    for (int c = 0; c < dim; c += 4) {
        unroll<kRowsRead / V::kLanes>([&](auto part) {
            typename V::Float v[4];
            V::transpose4(rows + part * V::kLanes * dim + c, dim, v);
            unroll<4>([&](auto r) {
                V::store(panel + (c + r) * kPanel<V> + part * V::kLanes, v[r]);
            });
        });
    }
}

// Columns of no key.
template <class V>
inline void clear(int dim, float* panel) {
    for (int c = 0; c < dim; ++c) std::memset(panel + c * kPanel<V>, 0, kRowsRead * sizeof(float));
}

// acc (Q, N) += a (Q rows, columns `from` to `to`) @ b (rows `stride` apart).
template <class V, int Q, int N>
inline void add_products(const float* const* a, int from, int to, const float* b, int stride,
                         typename V::Float* acc) {
    const float* row[Q];
    unroll<Q>([&](auto i) { row[i] = a[i]; });
    b += from * stride;
#pragma GCC unroll 2
    for (int k = from; k < to; ++k, b += stride) {
        typename V::Float column[N];
        unroll<N>([&](auto n) { column[n] = V::load(b + n * V::kLanes); });
        unroll<Q>([&](auto i) {
            const auto by = V::set(row[i][k]);
            unroll<N>([&](auto n) { acc[i * N + n] = V::fma(column[n], by, acc[i * N + n]); });
        });
    }
}

// Scores of Q queries against a panel of keys; a row of kSplitPositions scores a query.
template <class V, int Q>
[[gnu::flatten]] inline void score(const float* const* q, const float* panel, int dim, float scale,
                                   float* scores) {
    constexpr int N = V::kVectors;
    typename V::Float acc[Q * N];
    fill<Q * N>(acc, V::zero());
    add_products<V, Q, N>(q, 0, dim, panel, kPanel<V>, acc);
    unroll<Q * N>([&](auto k) {
        V::store(scores + k / N * kSplitPositions + k % N * V::kLanes,
                 V::mul(acc[k], V::set(scale)));
    });
}

// Scores of positions `from` to `to` become cap * tanh(score / cap).
template <class V>
[[gnu::flatten]] inline void bend(float* scores, int from, int to, float cap) {
    const auto by = V::set(2.0f / cap);
    for (int j = from / V::kLanes * V::kLanes; j < to; j += V::kLanes) {
        V::store(scores + j, V::exp(V::mul(V::load(scores + j), by)));
    }
    for (int j = from; j < to; ++j) scores[j] = cap - 2.0f * cap / (1.0f + scores[j]);
}

// Scores of positions `from` to `to` become exponentials; returns the largest, and their sum.
template <class V>
[[gnu::flatten]] inline float soften(float* scores, int from, int to, float* sum) {
    constexpr int kParts = kSumLanes / V::kLanes;
    const int begin = from / kSumLanes * kSumLanes;
    const int end = (to + kSumLanes - 1) / kSumLanes * kSumLanes;
    for (int j = begin; j < from; ++j) scores[j] = kNever;
    for (int j = to; j < end; ++j) scores[j] = kNever;
    typename V::Float most = V::set(kNever), lanes[kParts];
    for (int j = begin; j < end; j += V::kLanes) most = V::max(V::load(scores + j), most);
    const float largest = V::largest(most) + 0.0f;  // of two zeros the positive one
    fill<kParts>(lanes, V::zero());
    for (int j = begin; j < end; j += kSumLanes) {
        unroll<kParts>([&](auto part) {
            float* at = scores + j + part * V::kLanes;
            const auto e = V::exp(V::sub(V::load(at), V::set(largest)));
            V::store(at, e);
            lanes[part] = V::add(lanes[part], e);
        });
    }
    float sums[kSumLanes];
    unroll<kParts>([&](auto part) { V::store(sums + part * V::kLanes, lanes[part]); });
    *sum = sum_of_lanes(sums);
    return largest;
}

// into = into * shrink[0] + from * shrink[1], of a multiple of eight values.
template <class V>
inline void mix(float* into, const float* from, int values, const float* shrink) {
    const auto a = V::set(shrink[0]), b = V::set(shrink[1]);
    for (int i = 0; i < values; i += V::kLanes) {
        V::store(into + i,
                 V::add(V::mul(V::load(into + i), a), V::mul(V::load(from + i), b)));
    }
}

}  // namespace
}  // namespace moestream
