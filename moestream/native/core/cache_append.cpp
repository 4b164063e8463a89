#include "core/cache_append.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/attention.h"

namespace moestream {

// As in llama.cpp: the codes are rounded with the float32 scale, which is then stored as F16.
void to_q8_0(const Kernels& kernels, const float* x, int count, uint8_t* out) {
    for (int i = 0; i < count; i += kCacheBlock, out += kQ8_0Bytes) {
        alignas(32) int8_t q[kCacheBlock];
        int16_t sums16[2], sums32[1];
        float d, s;
        kernels.quantize32(x + i, 32, {q, &d, &s, sums16, sums32});
        const uint16_t half = float_to_half(d);
        std::memcpy(out, &half, sizeof half);
        std::memcpy(out + 2, q, sizeof q);
    }
}

namespace {

// The scale that puts the value farthest from zero, the first of such, at -8; NaN where one is not
// finite, and 0 for a block of what is taken for zeros.
float q4_0_scale(const float* x) {
    constexpr float kTiny = 1e-30f;
    float farthest = 0.0f;
    for (int i = 0; i < kCacheBlock; ++i) {
        if (!std::isfinite(x[i])) return std::numeric_limits<float>::quiet_NaN();
        if (std::fabs(x[i]) > std::fabs(farthest)) farthest = x[i];
    }
    return std::fabs(farthest) < kTiny ? 0.0f : farthest / -8.0f;
}

// As in llama.cpp: the codes are rounded with the float32 scale, halves upwards.
void to_q4_0(const float* x, int count, uint8_t* out) {
    for (int i = 0; i < count; i += kCacheBlock, out += kQ4_0Bytes) {
        const float d = q4_0_scale(x + i);
        const float reciprocal = d == d && d != 0.0f ? 1.0f / d : 0.0f;
        const auto code = [&](int k) {
            const float shifted = reciprocal == 0.0f ? 8.0f : x[i + k] * reciprocal + 8.5f;
            return static_cast<uint8_t>(std::min(15, static_cast<int>(shifted)));
        };
        const uint16_t half = float_to_half(d);
        std::memcpy(out, &half, sizeof half);
        constexpr int kHalf = kCacheBlock / 2;
        for (int k = 0; k < kHalf; ++k) {
            out[2 + k] = static_cast<uint8_t>(code(k) | code(kHalf + k) << 4);
        }
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
        } else if (type == Type::Q8_0) {
            to_q8_0(kernels, from, dim, to);
        } else {
            to_q4_0(from, dim, to);
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
