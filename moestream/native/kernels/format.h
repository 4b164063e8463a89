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
    // Columns that an input has a scale for, how many times that a block of weights has, and
    // columns that a float scale of the weights is for.
    static constexpr int kUnit = kSuper ? 256 : 32, kParts = kLayout.block_values / kUnit;
    static constexpr int kBlock = T == Type::NVFP4 ? 16 : kUnit;
    static constexpr int kBytes = kLayout.block_bytes;  // of kParts units
    static constexpr int kGroup = kLayout.group, kGroups = kUnit / kGroup;
    static constexpr int kDAt = kLayout.d_at, kOffset = kLayout.offset;
    static constexpr float kDTimes = kLayout.d_times;
    static constexpr bool kPlain = false;  // a super-block without scales: all are 1

    // A super-block made ready to be taken apart: what codes<J>() and scales() are given.
    static const uint8_t* open(const uint8_t* p) { return p; }
    // d of a block, as float16, before it is multiplied by kDTimes.
    static uint16_t half_bits(const uint8_t* p) { return load_u16(p + kDAt); }
};

// By how much to shift for a product with a power of two.
constexpr int shift_of(int power) { return std::countr_zero(static_cast<unsigned>(power)); }

}  // namespace moestream
