// Several residual streams: the row that a branch reads of them by gates, and its result's way back.
#include <algorithm>

#include "core/context.h"
#include "core/smooth.h"

namespace moestream {
namespace {

constexpr int kRow = 64;         // floats at once, on the stack
constexpr int kColumns = 512;    // that one task averages
constexpr int kNumbers = 16384;  // that one task norms or writes

// body(row) for all rows of so many numbers.
template <class Body>
void each_row(Context& context, int rows, int columns, const Body& body) {
    const int step = std::max(1, kNumbers / columns);
    context.pool.parallel_for((rows + step - 1) / step, [&](int task, int) {
        for (int row = task * step; row < std::min(rows, (task + 1) * step); ++row) body(row);
    });
}

// The mean of a token's normed streams, each number by the sigmoid of its gate.
void average(const Kernels& kernels, const StreamGates& by, const float* normed,
             const float* gates, int first, int last, float* out) {
    float decay[kRow], sums[kRow];
    for (int at = first; at < last; at += kRow) {
        const int n = std::min(kRow, last - at);
        std::fill_n(sums, n, 0.0f);
        for (int stream = 0; stream < by.streams; ++stream) {
            const size_t here = static_cast<size_t>(stream) * by.columns + at;
            for (int i = 0; i < n; ++i) decay[i] = -gates[here + i];
            kernels.exponentials(decay, n, 0.0f, decay);
            for (int i = 0; i < n; ++i) sums[i] += normed[here + i] / (1.0f + decay[i]);
        }
        const float share = 1.0f / static_cast<float>(by.streams);
        for (int i = 0; i < n; ++i) out[at + i] = sums[i] * share;
    }
}

}  // namespace

void read_streams(Context& context, const float* x, int tokens, const StreamGates& by, float* out,
                  float* scales) {
    const int count = by.streams, columns = by.columns, rank = by.down->rows;
    const size_t wide = static_cast<size_t>(count) * columns;
    const float share = 1.0f / static_cast<float>(count);
    float* normed = context.streams.get<float>(tokens * (2 * wide + rank));
    float *gates = normed + tokens * wide, *narrow = gates + tokens * wide;
    each_row(context, tokens * count, columns, [&](int row) {
        const size_t at = static_cast<size_t>(row) * columns;
        context.kernels.rms_norm(x + at, by.norm + static_cast<size_t>(row % count) * columns,
                                 columns, by.eps, normed + at);
    });
    const Product first[2] = {{by.down, nullptr, narrow}, {by.inject, nullptr, scales}};
    linear(context, normed, tokens, first, by.inject == nullptr ? 1 : 2);
    const size_t numbers = static_cast<size_t>(tokens) * rank;
    for (size_t i = 0; i < numbers; ++i) narrow[i] *= share;
    sigmoid_scale(context, narrow, narrow, numbers, 1, narrow);
    const Product second{by.up, nullptr, gates};
    linear(context, narrow, tokens, &second, 1);
    const int parts = (columns + kColumns - 1) / kColumns;
    context.pool.parallel_for(tokens * parts, [&](int task, int) {
        const size_t token = task / parts;
        const int begin = task % parts * kColumns;
        average(context.kernels, by, normed + token * wide, gates + token * wide, begin,
                std::min(columns, begin + kColumns), out + token * columns);
    });
    for (int i = 0; by.inject != nullptr && i < tokens * count; ++i) {
        scales[i] = 2.0f * sigmoid_lane(scales[i] * share);
    }
}

void write_streams(Context& context, const float* x, const float* added, const float* scales,
                   int tokens, int count, int columns, float* out) {
    each_row(context, tokens * count, columns, [&](int row) {
        const size_t at = static_cast<size_t>(row) * columns;
        const float* from = added + static_cast<size_t>(row / count) * columns;
        for (int i = 0; i < columns; ++i) out[at + i] = x[at + i] + from[i] * scales[row];
    });
}

}  // namespace moestream
