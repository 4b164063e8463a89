#include "core/packing.h"

#include <cstring>

#include "core/block_decode.h"

namespace moestream {
namespace {

// Where the code of column `column` (of 32) of `row` lies: byte and shift of its low bits, and of
// its two high bits.
struct Place {
    int byte, shift, high_byte, high_shift;
};

Place place_of(int bits, int row, int column) {
    const int quad = column / 4, lane = row * 4 + column % 4;
    if (bits == 8) return {quad * 32 + lane, 0, 0, 0};
    return {quad % 4 * 32 + lane, quad / 4 * 4, 128 + quad / 4 * 32 + lane, quad % 4 * 2};
}

// As place_of has it, four columns at a time.
void put_codes(const Packing& packing, const int8_t* q, int row, uint8_t* group) {
    uint8_t code[32];
    for (int i = 0; i < 32; ++i) code[i] = static_cast<uint8_t>(q[i] + packing.offset);
    if (packing.code_bits == 8) {
        for (int quad = 0; quad < 8; ++quad) {
            std::memcpy(group + quad * 32 + row * 4, code + quad * 4, 4);
        }
        return;
    }
    uint8_t low[16], high[8] = {};
    for (int i = 0; i < 16; ++i) {
        low[i] = static_cast<uint8_t>((code[i] & 15) | (code[i + 16] & 15) << 4);
    }
    for (int quad = 0; quad < 4; ++quad) {
        std::memcpy(group + quad * 32 + row * 4, low + quad * 4, 4);
    }
    if (packing.code_bits == 4) return;
    for (int quad = 0; quad < 4; ++quad) {
        for (int i = 0; i < 4; ++i) {
            high[i] |= static_cast<uint8_t>(code[quad * 4 + i] >> 4 << (quad * 2));
            high[i + 4] |= static_cast<uint8_t>(code[16 + quad * 4 + i] >> 4 << (quad * 2));
        }
    }
    std::memcpy(group + 128 + row * 4, high, 4);
    std::memcpy(group + 160 + row * 4, high + 4, 4);
}

int get_code(const Packing& packing, const uint8_t* group, int row, int column) {
    const Place at = place_of(packing.code_bits, row, column);
    if (packing.code_bits == 8) return static_cast<int8_t>(group[at.byte]);
    int code = (group[at.byte] >> at.shift) & 15;
    if (packing.code_bits == 6) code |= ((group[at.high_byte] >> at.high_shift) & 3) << 4;
    return code - packing.offset;
}

template <Type T>
void pack_block(const uint8_t* block, int row, uint8_t* out) {
    constexpr Packing packing = packing_of(T);
    Block decoded;
    const uint8_t* floats = block + layout_of(T).d_at;
    std::memcpy(out + row * 2, floats, 2);
    if (packing.has_min) std::memcpy(out + 16 + row * 2, floats + 2, 2);
    uint8_t* codes = out + packing.codes_at();
    decode<T>(block, &decoded);
    if (packing.pairs == 0) {
        put_codes(packing, decoded.q, row, codes);
        return;
    }
    const int step = packing.pairs_of_16 ? 1 : 2;  // decoded scales are one for 16 columns
    for (int group = 0; group < 2 * packing.pairs; ++group) {
        const int at = group / 2 * 16 + row * 2 + group % 2;
        out[packing.scales_at() + at] = static_cast<uint8_t>(decoded.scale[group * step]);
        if (packing.has_min) out[packing.mins_at() + at] = decoded.min[group * step];
    }
    for (int g = 0; g < 8; ++g) {
        put_codes(packing, decoded.q + g * 32, row, codes + g * packing.group_bytes());
    }
}

}  // namespace

void pack_rows(Type type, const uint8_t* rows, size_t row_bytes, int count, int columns,
               uint8_t* out) {
    if (count < kPackedRows) std::memset(out, 0, packed_rows_bytes(type, columns));
    with_type(type, [&]<Type T>() {
        if constexpr (layout_of(T).packed_bits > 0) {
            for (int b = 0; b < columns / layout_of(T).block_values; ++b) {
                for (int row = 0; row < count; ++row) {
                    pack_block<T>(rows + row * row_bytes + b * layout_of(T).block_bytes, row,
                                  out + static_cast<size_t>(b) * packing_of(T).block_bytes);
                }
            }
        }
    });
}

void decode_packed_row(Type type, const uint8_t* packed, int row, int columns, float* out) {
    const Packing packing = packing_of(type);
    const int block_values = packing.pairs > 0 ? 256 : 32;
    for (int i = 0; i < columns; ++i) {
        const uint8_t* block = packed + static_cast<size_t>(i / block_values) * packing.block_bytes;
        const float d = load_half(block + row * 2);
        const float m = packing.has_min ? load_half(block + 16 + row * 2) : 0.0f;
        const int column = i % block_values;
        const uint8_t* codes = block + packing.codes_at() + column / 32 * packing.group_bytes();
        const int code = get_code(packing, codes, row, column % 32);
        if (packing.pairs == 0) {
            out[i] = d * static_cast<float>(code) + m;
            continue;
        }
        const int group = column / (packing.pairs_of_16 ? 16 : 32);
        const int at = group / 2 * 16 + row * 2 + group % 2;
        const uint8_t byte = block[packing.scales_at() + at];
        // Scales of Q6_K are signed, those of Q4_K are less than 64.
        const auto scale = static_cast<float>(static_cast<int8_t>(byte));
        const float min = packing.has_min ? block[packing.mins_at() + at] : 0.0f;
        out[i] = d * scale * static_cast<float>(code) - m * min;
    }
}

}  // namespace moestream
