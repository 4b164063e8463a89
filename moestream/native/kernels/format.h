// A type's row of types.h as constants: what an instruction set's trait of the type builds on.
#pragma once

#include <bit>

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
};

// By how much to shift for a product with a power of two.
constexpr int shift_of(int power) { return std::countr_zero(static_cast<unsigned>(power)); }

}  // namespace moestream
