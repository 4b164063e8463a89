// One attention tile: blocks of keys and values become float32 once for all queries of the tile.
//
// V is an instruction set's vectors for attention; V::Half takes what is less than a vector.
#pragma once

#include "kernels/attention_steps.h"

namespace moestream {
namespace {

inline constexpr float kHidden = -std::numeric_limits<float>::infinity();

template <class V>
class TileRun {
  public:
    explicit TileRun(const AttentionTile& tile) : tile_(tile) {
        from_all_ = tile.end;
        for (int i = 0; i < tile.queries; ++i) {
            from_[i] = tile.seen_from(i);
            to_[i] = tile.seen_to(i);
            if (from_[i] == to_[i]) continue;
            from_all_ = smaller(from_all_, from_[i]);
            to_all_ = larger(to_all_, to_[i]);
        }
        rows_ = tile.scratch;
        panels_ = rows_ + kKeyBlock * larger(tile.dim, tile.value_dim);
        scores_ = panels_ + kKeyBlock * tile.dim;
        weighted_ = scores_ + static_cast<size_t>(tile.queries) * kSplitPositions;
    }

    void run() {
        each_block([&](int start, int rows) { score_block(start, rows); });
        float largest[kTileQueries], sum[kTileQueries];
        for (int i = 0; i < tile_.queries; ++i) {
            if (from_[i] == to_[i]) continue;
            if (tile_.cap > 0) bend<V>(scores_ + i * kSplitPositions, from_[i], to_[i], tile_.cap);
            for (int j = from_[i]; tile_.chosen[i] != nullptr && j < to_[i]; ++j) {
                if (tile_.hides(i, j)) scores_[i * kSplitPositions + j] = kHidden;
            }
            largest[i] = soften<V>(scores_ + i * kSplitPositions, from_[i], to_[i], &sum[i]);
        }
        const size_t floats = static_cast<size_t>(tile_.queries) * tile_.value_dim;
        std::memset(weighted_, 0, floats * sizeof(float));
        each_block([&](int start, int rows) { weigh_block(start, rows); });
        for (int i = 0; i < tile_.queries; ++i) {
            if (from_[i] < to_[i]) merge(i, largest[i], sum[i]);
        }
    }

  private:
    // body(start, rows) for the blocks that some query sees some of; rows in sixteens.
    template <class Body>
    void each_block(const Body& body) const {
        for (int start = from_all_ / kKeyBlock * kKeyBlock; start < to_all_; start += kKeyBlock) {
            const int rows = smaller(kKeyBlock, to_all_ - start);
            body(start, (rows + kRowsRead - 1) / kRowsRead * kRowsRead);
        }
    }

    void score_block(int start, int rows) {
        const AttentionTile& t = tile_;
        unpack_keys(start, rows);
        for (int j = 0; j < rows; j += kPanel<V>) {
            const float* panel = panels_ + j * t.dim;
            const int at = start + j;
            in_runs<V::kQueries>(t.queries, [&](auto n, int i) {
                int from = kSplitPositions, to = 0;
                for (int k = i; k < i + n; ++k) {
                    from = smaller(from, from_[k]);
                    to = larger(to, to_[k]);
                }
                if (from >= at + kPanel<V> || to <= at) return;
                score<V, n>(t.q + i, panel, t.dim, t.scale, scores_ + i * kSplitPositions + at);
            });
        }
    }

    // Few rows at a time: both forms of them fit in the nearest cache.
    void unpack_keys(int start, int rows) {
        const int dim = tile_.dim;
        for (int j = 0; j < kKeyBlock; j += kRowsRead) {
            float* panel = panels_ + j / kPanel<V> * kPanel<V> * dim;
            if (j < rows) {
                const float* keys = block_floats<V>(tile_.keys, start + j, kRowsRead, dim, rows_);
                transpose<V>(keys, dim, panel + j % kPanel<V>);
            } else if (j % kPanel<V> != 0) {
                clear<V>(dim, panel + j % kPanel<V>);
            }
        }
    }

    void weigh_block(int start, int rows) {
        const AttentionTile& t = tile_;
        const bool in_keys = t.values.data == nullptr;
        const int stride = in_keys ? t.dim : t.value_dim;
        const float* values =
            block_floats<V>(in_keys ? t.keys : t.values, start, rows, stride, rows_);
        int column = 0;
        for (; column + kPanel<V> <= t.value_dim; column += kPanel<V>) {
            weigh_columns<V, V::kVectors>(start, rows, values + column, stride, column);
        }
        for (; column + V::kLanes <= t.value_dim; column += V::kLanes) {
            weigh_columns<V, 1>(start, rows, values + column, stride, column);
        }
        if (column < t.value_dim) {
            weigh_columns<typename V::Half, 1>(start, rows, values + column, stride, column);
        }
    }

    // Queries in groups over the positions that all of a group see, one by one over the others.
    template <class W, int N>
    void weigh_columns(int start, int rows, const float* values, int stride, int column) {
        in_runs<V::kQueries>(tile_.queries, [&](auto n, int first) {
            int from = 0, to = rows;
            for (int i = first; i < first + n; ++i) {
                from = larger(from, from_[i] - start);
                to = smaller(to, to_[i] - start);
            }
            to = larger(from, to);
            const auto alone = [&](int begin, int end) {
                if constexpr (n > 1) {
                    for (int i = first; i < first + n; ++i) {
                        weigh<W, 1, N>(i, start, larger(begin, from_[i] - start),
                                       smaller(end, to_[i] - start), values, stride, column);
                    }
                }
            };
            alone(0, smaller(from, rows));
            weigh<W, n, N>(first, start, from, to, values, stride, column);
            alone(to, rows);
        });
    }

    // Q queries' weighted values in N vectors from `column` on, over the block's rows `from` to
    // `to`.
    template <class W, int Q, int N>
    [[gnu::flatten]] void weigh(int first, int start, int from, int to, const float* values,
                                int stride, int column) {
        if (from >= to) return;
        const float* weights[Q];
        float* weighted = weighted_ + static_cast<size_t>(first) * tile_.value_dim + column;
        typename W::Float acc[Q * N];
        unroll<Q>([&](auto i) { weights[i] = scores_ + (first + i) * kSplitPositions + start; });
        unroll<Q * N>([&](auto k) {
            acc[k] = W::load(weighted + k / N * tile_.value_dim + k % N * W::kLanes);
        });
        add_products<W, Q, N>(weights, from, to, values, stride, acc);
        unroll<Q * N>([&](auto k) {
            W::store(weighted + k / N * tile_.value_dim + k % N * W::kLanes, acc[k]);
        });
    }

    void merge(int i, float largest, float sum) {
        const AttentionTile& t = tile_;
        const int dim = t.value_dim;
        const float* from = weighted_ + static_cast<size_t>(i) * dim;
        float* into = t.weighted + static_cast<size_t>(i) * dim;
        if (t.nothing_yet(i)) {
            std::memcpy(into, from, dim * sizeof(float));
            t.maximum[i] = largest;
            t.sum[i] = sum;
            return;
        }
        const float most = larger(t.maximum[i], largest);
        const float shrink[2] = {V::first(V::exp(V::set(t.maximum[i] - most))),
                                 V::first(V::exp(V::set(largest - most)))};
        t.maximum[i] = most;
        t.sum[i] = t.sum[i] * shrink[0] + sum * shrink[1];
        const int wide = dim / V::kLanes * V::kLanes;
        mix<V>(into, from, wide, shrink);
        mix<typename V::Half>(into + wide, from + wide, dim - wide, shrink);
    }

    const AttentionTile& tile_;
    int from_[kTileQueries], to_[kTileQueries];  // positions that a query sees; none: the same
    int from_all_, to_all_ = 0;                  // that some query sees
    float* rows_;                                // keys or values as they lie in the cache
    float* panels_;                              // a block of keys, transposed
    float* scores_;                              // (queries, kSplitPositions)
    float* weighted_;                            // (queries, value_dim), of this split
};

template <class V>
void attend(const AttentionTile& tile) {
    // No model has heads of other sizes; the scalar kernel takes them as they are.
    if (tile.dim % 8 != 0 || tile.value_dim % 8 != 0) return kScalarKernels.attend(tile);
    TileRun<V>(tile).run();
}

}  // namespace
}  // namespace moestream
