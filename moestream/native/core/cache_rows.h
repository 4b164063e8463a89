// How keys and values lie in the cache, and how the units of all instruction sets read them.
//
// A head's rows of `dim` values follow one another without gaps, as F32, F16, or blocks of 32 of
// Q8_0 or Q4_0. A new instruction set brings its own conversions to float32. They are exact in any
// width: a float16 has its value as float32, and a block's value is one float32 product, scale
// times code.
// Everything is static, as in half.h.
#pragma once

#include "core/half.h"
#include "core/types.h"

namespace moestream {

inline constexpr int kCacheBlock = 32;  // values of a block
inline constexpr int kQ8_0Bytes = 34, kQ4_0Bytes = 18;  // of one: a float16 and the codes

static inline size_t cache_row_bytes(Type type, int dim) {
    const auto values = static_cast<size_t>(dim);
    switch (type) {
        case Type::F32: return 4 * values;
        case Type::F16: return 2 * values;
        case Type::Q8_0: return values / kCacheBlock * kQ8_0Bytes;
        default: return values / kCacheBlock * kQ4_0Bytes;
    }
}

// The codes of a Q4_0 block, of which a byte holds the i-th of both halves.
static inline void q4_0_codes(const uint8_t* block, int8_t* codes) {
    constexpr int kHalf = kCacheBlock / 2;
    for (int i = 0; i < kHalf; ++i) {
        codes[i] = static_cast<int8_t>((block[2 + i] & 15) - 8);
        codes[kHalf + i] = static_cast<int8_t>((block[2 + i] >> 4) - 8);
    }
}

// The rows of one head in a block of the cache.
struct CacheRows {
    Type type;
    const uint8_t* data;
};

// `count` rows from position `start` on as float32 (count, dim): in place, or decoded into
// `scratch` by `half_to_floats(from, values, out)`, `q8_0_to_floats(from, blocks, out)` or
// `q4_0_to_floats(from, blocks, out)`.
template <class HalfToFloats, class Q8_0ToFloats, class Q4_0ToFloats>
static inline const float* cache_floats(const CacheRows& rows, int start, int count, int dim,
                                        float* scratch, const HalfToFloats& half_to_floats,
                                        const Q8_0ToFloats& q8_0_to_floats,
                                        const Q4_0ToFloats& q4_0_to_floats) {
    const uint8_t* from = rows.data + static_cast<size_t>(start) * cache_row_bytes(rows.type, dim);
    switch (rows.type) {
        case Type::F32:
            return reinterpret_cast<const float*>(from);
        case Type::F16:
            half_to_floats(reinterpret_cast<const uint16_t*>(from), count * dim, scratch);
            return scratch;
        case Type::Q8_0:
            q8_0_to_floats(from, count * dim / kCacheBlock, scratch);
            return scratch;
        default:
            q4_0_to_floats(from, count * dim / kCacheBlock, scratch);
            return scratch;
    }
}

}  // namespace moestream
