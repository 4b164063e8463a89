// Writes the new keys and values of a pass into its sequences' blocks.
#pragma once

#include "core/context.h"

namespace moestream {

// Those of one row of the pass, of (rows, kv_heads, dim); no values where `v` is null.
void append_row(const Kernels&, const AttentionShape&, const KVPass&, int row, const float* k,
                const float* v);

// Values in blocks of Q8_0: `count` of them, a multiple of kCacheBlock.
void to_q8_0(const Kernels&, const float* x, int count, uint8_t* out);

}  // namespace moestream
