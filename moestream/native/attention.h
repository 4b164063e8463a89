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
    int first[kTileQueries];       // positions that the query may see: from here
    int visible[kTileQueries];     // to here, exclusive
    int dim;                       // of keys
    int value_dim;
    float scale;
    CacheRows keys;    // read through cache_floats, a block of kKeyBlock positions at a time
    CacheRows values;  // the same; their types may differ. No data: the first value_dim of keys
    int begin;  // a multiple of kKeyBlock
    int end;
    // Results of each query: maximum, sum of exponentials, and weighted values (queries,
    // value_dim).
    // Left at -infinity, 0 and 0 for a query that sees nothing of the split.
    float* maximum;
    float* sum;
    float* weighted;
    float* scratch;  // attention_scratch_floats of the longer
};

// The part [from, to) of the block of kKeyBlock positions at `start` that the query sees. Counting
// from the block's own start keeps every position in the same lane, wherever a window begins.
struct Seen {
    int from, to;

    bool operator==(const Seen& other) const { return from == other.from && to == other.to; }
};

static inline Seen seen(const AttentionTile& tile, int query, int start) {
    const int first = tile.first[query] - start;
    const int end = (tile.end < tile.visible[query] ? tile.end : tile.visible[query]) - start;
    const Seen part{first < 0 ? 0 : first, end < kKeyBlock ? end : kKeyBlock};
    return part.from < part.to ? part : Seen{0, 0};
}

// What all queries of the tile see of it together.
static inline Seen seen_by_any(const AttentionTile& tile, int start) {
    Seen all{0, 0};
    for (int i = 0; i < tile.queries; ++i) {
        const Seen part = seen(tile, i, start);
        if (part.to == 0) continue;
        if (all.to == 0 || part.from < all.from) all.from = part.from;
        if (part.to > all.to) all.to = part.to;
    }
    return all;
}

// A block of keys or values as float32, and its scores.
constexpr size_t attention_scratch_floats(int dim) {
    return static_cast<size_t>(kKeyBlock) * (dim + 8) + kTileQueries * kKeyBlock + 64;
}

}  // namespace moestream
