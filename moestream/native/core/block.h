// A block taken apart, and what takes each type's apart: the scalar decoders that every kernel is
// checked against.
//
// A block's values are
//     32-value types:   d * q[i] + m; NVFP4: d16[i / 16] * q[i]
//     256-value types:  d * scale[i / 16] * q[i] - dmin * min[i / 16]
// with small integers q, scale and min.
#pragma once

#include "core/half.h"
#include "core/types.h"

namespace moestream {
namespace {

struct Block {
    float d;
    float m;  // m of a 32-value type, dmin of a 256-value type; 0 where there is none
    float d16[4];  // of NVFP4, in place of d
    int8_t q[256];
    int8_t scale[16];
    uint8_t min[16];
};

// The codes of a block less their offset, and the scales and minimums of a super-block: what is
// there and nowhere else is a type's bits.
template <Type T>
void decode_codes(const uint8_t* p, Block* out);

}  // namespace
}  // namespace moestream
