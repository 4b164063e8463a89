// A type's row of types.h as constants: what an instruction set's trait of the type builds on.
#pragma once

#include <bit>

#include "core/half.h"
#include "core/types.h"

namespace moestream {

template <Type T>
struct Format {
    static constexpr TypeLayout kLayout = layout_of(T);
    static constexpr Type kType = T;
    static constexpr bool kSuper = kLayout.block_values == 256;
    static constexpr bool kHasMin = kLayout.has_min, kSigned = kLayout.signed_codes;
    static constexpr int kBlock = kLayout.block_values, kBytes = kLayout.block_bytes;
    static constexpr int kGroup = kLayout.group, kGroups = kBlock / kGroup;
    static constexpr int kDAt = kLayout.d_at, kOffset = kLayout.offset;
    static constexpr float kDTimes = kLayout.d_times;

    // A super-block made ready to be taken apart: what codes<J>() and scales() are given.
    static const uint8_t* open(const uint8_t* p) { return p; }
    // d of a block, as float16, before it is multiplied by kDTimes.
    static uint16_t half_bits(const uint8_t* p) { return load_u16(p + kDAt); }
};

// By how much to shift for a product with a power of two.
constexpr int shift_of(int power) { return std::countr_zero(static_cast<unsigned>(power)); }

}  // namespace moestream
