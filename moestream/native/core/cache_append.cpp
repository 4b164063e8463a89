#include "core/cache_append.h"

#include <cstring>

#include "core/attention.h"

namespace moestream {
namespace {

// As in llama.cpp: the codes are rounded with the float32 scale, which is then stored as F16.
void to_q8_0(const Kernels& kernels, const float* x, int count, uint8_t* out) {
    for (int i = 0; i < count; i += 32, out += 34) {
        alignas(32) int8_t q[32];
        int16_t sums16[2], sums32[1];
        float d, s;
        kernels.quantize32(x + i, 32, {q, &d, &s, sums16, sums32});
        const uint16_t half = float_to_half(d);
        std::memcpy(out, &half, sizeof half);
        std::memcpy(out + 2, q, sizeof q);
    }
}

// A row's new keys or values (kv_heads, dim) into its sequence's block.
void append(const Kernels& kernels, const AttentionShape& shape, const KVPass& pass, int row,
            const float* from, int dim, Type type, size_t offset) {
    const KVSequence& sequence = pass.sequences[pass.sequence_of[row]];
    const int position = sequence.start + row - sequence.row;
    const size_t bytes = cache_row_bytes(type, dim);
    auto* to = reinterpret_cast<uint8_t*>(sequence.blocks[position / kSplitPositions]) + offset +
               position % kSplitPositions * bytes;
    from += static_cast<size_t>(row) * shape.kv_heads * dim;
    for (int head = 0; head < shape.kv_heads; ++head, from += dim, to += kSplitPositions * bytes) {
        if (type == Type::F32) {
            std::memcpy(to, from, bytes);
        } else if (type == Type::F16) {
            kernels.to_half(from, dim, reinterpret_cast<uint16_t*>(to));
        } else {
            to_q8_0(kernels, from, dim, to);
        }
    }
}

}  // namespace

void append_row(const Kernels& kernels, const AttentionShape& shape, const KVPass& pass, int row,
                const float* k, const float* v) {
    append(kernels, shape, pass, row, k, shape.dim, shape.key_type, shape.key_offset);
    if (v == nullptr) return;
    append(kernels, shape, pass, row, v, shape.value_dim, shape.value_type, shape.value_offset);
}

}  // namespace moestream
