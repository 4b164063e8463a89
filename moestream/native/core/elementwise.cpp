// The operations between the products: norms, rotation, embedding rows.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/block_decode.h"
#include "core/context.h"

namespace moestream {
namespace {

// Floats that one task of an elementwise loop handles; less than two are not worth a thread.
constexpr size_t kChunk = 16384;

// The values of one block, rounded as gguf's own decoder rounds them.
template <Type T>
void decode_values(const uint8_t* p, float* values) {
    constexpr TypeLayout kLayout = layout_of(T);
    if constexpr (T == Type::F32) {
        std::memcpy(values, p, sizeof(float));
    } else if constexpr (T == Type::F16) {
        *values = load_half(p);
    } else if constexpr (T == Type::BF16) {
        *values = bf16_to_float(load_u16(p));
    } else {
        Block block;
        decode<T>(p, &block);
        for (int i = 0; i < kLayout.block_values; ++i) {
            if constexpr (kLayout.block_values == 256) {
                const float scale = block.d * block.scale[i / 16];
                values[i] = scale * block.q[i] - block.m * block.min[i / 16];
            } else if constexpr (T == Type::NVFP4) {
                values[i] = block.d16[i / 16] * block.q[i];
            } else {
                values[i] = block.d * block.q[i] + block.m;
            }
        }
    }
}

void decode_row(const Matrix& matrix, const uint8_t* row, float* out) {
    with_type(kTypeLayouts[matrix.type].type, [&]<Type T>() {
        constexpr TypeLayout kLayout = layout_of(T);
        for (int b = 0; b < matrix.columns / kLayout.block_values; ++b) {
            decode_values<T>(row + static_cast<size_t>(b) * kLayout.block_bytes,
                             out + b * kLayout.block_values);
        }
    });
}

template <class Body>
void in_chunks(Context& context, size_t count, const Body& body) {
    const int chunks = static_cast<int>((count + kChunk - 1) / kChunk);
    context.pool.parallel_for(chunks, [&](int chunk, int) {
        const size_t first = chunk * kChunk;
        body(first, std::min(kChunk, count - first));
    });
}

void rotate_head(const float* x, const float* cos, const float* sin, int half, bool interleaved,
                 float* out) {
    const int step = interleaved ? 2 : 1, apart = interleaved ? 1 : half;
    for (int i = 0; i < half; ++i) {
        const float a = x[i * step], b = x[i * step + apart];
        out[i * step] = a * cos[i] - b * sin[i];
        out[i * step + apart] = a * sin[i] + b * cos[i];
    }
}

}  // namespace

void embed(Context& context, const Matrix& table, const int32_t* tokens, int count, float* out) {
    context.pool.parallel_for(count, [&](int i, int) {
        float* row = out + static_cast<size_t>(i) * table.columns;
        if (table.packed) {
            decode_packed_row(kTypeLayouts[table.type].type, table.row(tokens[i]),
                              tokens[i] % kPackedRows, table.columns, row);
        } else {
            decode_row(table, table.row(tokens[i]), row);
        }
    });
}

void rms_norm(Context& context, const float* x, int rows, int columns, const float* weight,
              float eps, float* out) {
    const int step = std::max(1, static_cast<int>(kChunk) / columns);
    context.pool.parallel_for((rows + step - 1) / step, [&](int task, int) {
        for (int row = task * step; row < std::min(rows, (task + 1) * step); ++row) {
            const size_t at = static_cast<size_t>(row) * columns;
            context.kernels.rms_norm(x + at, weight, columns, eps, out + at);
        }
    });
}

void rope(Context& context, const float* x, int tokens, int heads, int dim, const float* cos,
          const float* sin, int half, bool interleaved, float* out) {
    const int step = std::max(1, static_cast<int>(kChunk) / (heads * dim));
    context.pool.parallel_for((tokens + step - 1) / step, [&](int task, int) {
        for (int token = task * step; token < std::min(tokens, (task + 1) * step); ++token) {
            const size_t turn = static_cast<size_t>(token) * half;
            for (int head = 0; head < heads; ++head) {
                const size_t at = (static_cast<size_t>(token) * heads + head) * dim;
                rotate_head(x + at, cos + turn, sin + turn, half, interleaved, out + at);
                std::copy(x + at + 2 * half, x + at + dim, out + at + 2 * half);
            }
        }
    });
}

void add(Context& context, const float* a, const float* b, size_t count, float* out) {
    in_chunks(context, count, [&](size_t first, size_t n) {
        for (size_t i = first; i < first + n; ++i) out[i] = a[i] + b[i];
    });
}

double read_bandwidth(Context& context, size_t bytes, int repeats) {
    Buffer buffer;
    const size_t words = bytes / sizeof(uint64_t);
    auto* data = buffer.get<uint64_t>(words);
    std::memset(data, 1, bytes);
    constexpr size_t kPart = size_t{1} << 17;
    const int parts = static_cast<int>(words / kPart);
    double best = 0.0;
    for (int repeat = 0; repeat < repeats; ++repeat) {
        std::atomic<uint64_t> sink{0};
        const auto begin = std::chrono::steady_clock::now();
        context.pool.parallel_for(parts, [&](int part, int) {
            const uint64_t* p = data + static_cast<size_t>(part) * kPart;
            uint64_t sums[16] = {};
            for (size_t i = 0; i < kPart; i += 16) {
                for (int j = 0; j < 16; ++j) sums[j] += p[i + j];
            }
            uint64_t total = 0;
            for (const uint64_t sum : sums) total += sum;
            sink.fetch_add(total, std::memory_order_relaxed);
        });
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        best = std::max(best, static_cast<double>(parts) * kPart * sizeof(uint64_t) / took.count());
    }
    return best;
}

}  // namespace moestream
