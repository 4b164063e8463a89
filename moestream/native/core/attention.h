// Attention over the KV cache: the work of one tile, and how tiles make up the whole.
//
// Positions are cut into fixed splits of kSplitPositions, which are the cache's blocks, each with
// its own running maximum, sum and weighted values, merged in order: any number of threads, and any
// number of tokens and sequences at once, makes the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cache_rows.h"

namespace moestream {

inline constexpr int kTileQueries = 32;
inline constexpr int kSplitPositions = 256;
inline constexpr int kKeyBlock = 32;  // positions between two updates of the running maximum

// Queries that share a KV head, against the positions [begin, end) of one split, which is where
// positions are counted from.
struct AttentionTile {
    int queries;
    const float* q[kTileQueries];  // each (dim,)
    int first[kTileQueries];       // the query sees positions from this one
    int visible[kTileQueries];     // to before this one
    int dim;
    int value_dim;
    float scale;
    CacheRows keys;    // read through cache_floats, a block of kKeyBlock positions at a time
    CacheRows values;  // the same; their types may differ. No data: the keys' first value_dim
    int begin;
    int end;
    // Results of each query: maximum, sum of exponentials, weighted values (queries, value_dim).
    // Left at -infinity, 0 and 0 for a query that sees nothing of the split.
    float* maximum;
    float* sum;
    float* weighted;
    float* scratch;  // attention_scratch_floats(max(dim, value_dim))

    // Of the block at `start`: positions of which the query sees some, counted from `start`; 0 for
    // a query that sees none of them.
    int seen(int query, int start) const {
        const int last = end < visible[query] ? end : visible[query];
        const int count = last - start < kKeyBlock ? last - start : kKeyBlock;
        return count <= hidden(query, start) ? 0 : count;
    }
    // Positions at the block's beginning that have left the query's window.
    int hidden(int query, int start) const {
        return first[query] > start ? first[query] - start : 0;
    }
    // Floats from one position's values to the next, in the floats of a block.
    int value_stride() const { return values.data == nullptr ? dim : value_dim; }
};

// A block of keys or values as float32, and its scores.
constexpr size_t attention_scratch_floats(int dim) {
    return static_cast<size_t>(kKeyBlock) * (dim + 8) + kTileQueries * kKeyBlock + 64;
}

}  // namespace moestream
