// The order that resident matrices are kept in: eight rows side by side, as vector lanes want them.
//
// Weights that every token needs are copied at load anyway; in this order a lane is a row, nothing
// has to be folded, and memory is read as one stream. A block of eight rows is
//     d of the rows (float16), m of the rows where there is one,
//     super-blocks: scales, then minimums, as bytes (pair of groups, row, 2),
//     for each 32 columns: codes (quad of columns, row, 4), of 4 bits two to a byte (quads i and
//     i + 4), of 6 bits followed by their high bits (4 quads to a byte), of 8 bits as they are.
// Codes are unsigned, with their type's offset, except Q8_0's. It is as large as the file's, or
// for Q4_K 3 % larger.
#pragma once

#include "core/types.h"

namespace moestream {

inline constexpr int kPackedRows = 8;

struct Packing {
    int code_bits;  // 0: a type that is kept in the file's order
    int offset;     // added to codes
    bool has_min;
    int pairs;         // of scale groups
    bool pairs_of_16;  // a group is 16 columns, not 32
    int block_bytes;   // of eight rows

    constexpr int scales_at() const { return has_min ? 32 : 16; }
    constexpr int mins_at() const { return scales_at() + pairs * 16; }
    constexpr int codes_at() const { return mins_at() + (has_min ? pairs * 16 : 0); }
    constexpr int group_bytes() const { return code_bits * 32; }  // 32 columns of eight rows
};

constexpr Packing packing_of(Type type) {
    const TypeLayout& layout = layout_of(type);
    if (layout.packed_bits == 0) return {};
    const int groups = layout.block_values / layout.group;
    const bool super = layout.block_values == 256;
    Packing p{layout.packed_bits,        layout.offset,      layout.has_min,
              super ? groups / 2 : 0, layout.group == 16, 0};
    p.block_bytes = p.codes_at() + p.group_bytes() * (super ? 8 : 1);
    return p;
}

// Bytes of eight packed rows.
constexpr size_t packed_rows_bytes(Type type, int columns) {
    return static_cast<size_t>(columns) / layout_of(type).block_values *
           packing_of(type).block_bytes;
}

// Pack up to eight rows (the rest become zeros) that are `row_bytes` apart.
void pack_rows(Type type, const uint8_t* rows, size_t row_bytes, int count, int columns,
               uint8_t* out);

// Values of row `row` of eight packed rows.
void decode_packed_row(Type type, const uint8_t* packed, int row, int columns, float* out);

}  // namespace moestream
