// Attention over the KV cache: the work of one tile, and how tiles make up the whole.
//
// Positions are cut into fixed splits of kSplitPositions, which are the cache's blocks, each with
// its own running maximum, sum and weighted values, merged in order: any number of threads, and any
// number of tokens and sequences at once, makes the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "core/cache_rows.h"
#include "core/scalar_math.h"

namespace moestream {

inline constexpr int kTileQueries = 128;
inline constexpr int kSplitPositions = 256;
inline constexpr int kKeyBlock = 64;   // positions whose keys or values are float32 at one time
inline constexpr int kRowsRead = 16;   // rows of the cache are read in so many
inline constexpr int kSumLanes = 16;   // position i's exponential goes to the sum in lane i % 16

// The sum of kSumLanes lanes.
static inline float sum_of_lanes(const float* v) {
    float eight[8];
    for (int i = 0; i < 8; ++i) eight[i] = v[i] + v[i + 8];
    return sum_lanes(eight);
}

// Queries that share a KV head, against one split, which is where positions are counted from.
//
// A query's score with a key is fma(q[c], k[c], ...) from the first coordinate to the last, then
// times `scale`. A split's exponentials are of scores less the split's largest; its weighted values
// are fma(exponential, v[c], ...) from the first position to the last that the query sees.
struct AttentionTile {
    int queries;
    const float* q[kTileQueries];  // each (dim,)
    int first[kTileQueries];       // the query sees positions from this one
    int visible[kTileQueries];     // to before this one
    const uint8_t* chosen[kTileQueries];  // and of those the ones that are not 0; null for all
    int dim;
    int value_dim;
    float scale;
    float cap;         // what scaled scores stay within, by a tanh; 0 for no bound
    CacheRows keys;    // read through cache_floats, kRowsRead at a time, also those from `end` on
    CacheRows values;  // the same; their types may differ. No data: the keys' first value_dim
    int end;           // of the split's positions, those that hold something
    // Results of each query, which this split is merged into, as by merge() in attention.cpp:
    // maximum, sum of exponentials, weighted values (queries, value_dim).
    float* maximum;  // -infinity, with a sum of 0, before the first split of which it sees some
    float* sum;
    float* weighted;
    float* scratch;  // attention_scratch_floats(queries, dim, value_dim)

    // From the first to the last position that a query sees; none where both are the same.
    int seen_from(int query) const {
        const int to = seen_to(query);
        int from = first[query] <= 0 ? 0 : first[query] < to ? first[query] : to;
        while (from < to && hides(query, from)) ++from;
        return from;
    }
    int seen_to(int query) const {
        int to = visible[query] <= 0 ? 0 : visible[query] < end ? visible[query] : end;
        while (to > 0 && hides(query, to - 1)) --to;
        return to;
    }
    // Whether a position between the two is none that the query sees.
    bool hides(int query, int position) const {
        return chosen[query] != nullptr && chosen[query][position] == 0;
    }
    bool nothing_yet(int query) const {
        return sum[query] == 0.0f && maximum[query] == -std::numeric_limits<float>::infinity();
    }
};

// A block of keys or values as float32, one of keys transposed, scores, weighted values.
constexpr size_t attention_scratch_floats(int queries, int dim, int value_dim) {
    const int rows = dim > value_dim ? dim : value_dim;
    return static_cast<size_t>(kKeyBlock) * (rows + dim) +
           static_cast<size_t>(queries) * (kSplitPositions + value_dim);
}

}  // namespace moestream
