// How keys and values lie in the cache, and how the units of all instruction sets read them.
//
// A head's rows of `dim` values follow one another without gaps, as F32, F16 or Q8_0 blocks.
// A new instruction set brings its own two conversions to float32. Both are exact in any width: a
// float16 has its value as float32, and a Q8_0 value is one float32 product, scale times code.
// Everything is static, as in half.h.
#pragma once

#include "core/half.h"
#include "core/types.h"

namespace moestream {

static inline size_t cache_row_bytes(Type type, int dim) {
    const auto values = static_cast<size_t>(dim);
    return type == Type::F32 ? 4 * values : type == Type::F16 ? 2 * values : values / 32 * 34;
}

// The rows of one head in a block of the cache.
struct CacheRows {
    Type type;
    const uint8_t* data;
};

// `count` rows from position `start` on as float32 (count, dim): in place, or decoded into
// `scratch` by `half_to_floats(from, values, out)` or `q8_0_to_floats(from, blocks, out)`.
template <class HalfToFloats, class Q8_0ToFloats>
static inline const float* cache_floats(const CacheRows& rows, int start, int count, int dim,
                                        float* scratch, const HalfToFloats& half_to_floats,
                                        const Q8_0ToFloats& q8_0_to_floats) {
    const uint8_t* from = rows.data + static_cast<size_t>(start) * cache_row_bytes(rows.type, dim);
    switch (rows.type) {
        case Type::F32:
            return reinterpret_cast<const float*>(from);
        case Type::F16:
            half_to_floats(reinterpret_cast<const uint16_t*>(from), count * dim, scratch);
            return scratch;
        default:
            q8_0_to_floats(from, count * dim / 32, scratch);
            return scratch;
    }
}

}  // namespace moestream
