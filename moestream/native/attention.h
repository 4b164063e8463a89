// Attention over the KV cache: the work of one tile, and how tiles make up the whole.
//
// Positions are cut into fixed splits of kSplitPositions, each with its own running maximum, sum
// and weighted values, merged in order: any number of threads, and any number of tokens at once,
// makes the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cache_rows.h"

namespace moestream {

inline constexpr int kTileQueries = 32;
inline constexpr int kSplitPositions = 256;
inline constexpr int kKeyBlock = 32;  // positions between two updates of the running maximum

// Queries that share a KV head, against the positions [begin, end) of one split.
struct AttentionTile {
    int queries;
    const float* q[kTileQueries];  // each (dim,)
    int visible[kTileQueries];     // positions that the query may see, from 0
    int dim;
    float scale;
    CacheRows keys;    // read through cache_floats, a block of kKeyBlock positions at a time
    CacheRows values;  // the same; their types may differ
    int begin;
    int end;
    // Results of each query: maximum, sum of exponentials, and weighted values (queries, dim).
    // Left at -infinity, 0 and 0 for a query that sees nothing of the split.
    float* maximum;
    float* sum;
    float* weighted;
    float* scratch;  // attention_scratch_floats(dim)
};

// A block of keys or values as float32, and its scores.
constexpr size_t attention_scratch_floats(int dim) {
    return static_cast<size_t>(kKeyBlock) * (dim + 8) + kTileQueries * kKeyBlock + 64;
}

}  // namespace moestream
