// Exponentials, sigmoids and softplus of many numbers, shared out among the threads.
#include "core/smooth.h"

#include "core/context.h"

namespace moestream {
namespace {

constexpr size_t kRow = 64;      // floats at once, on the stack; zeros, as GCC sees no n above 0
constexpr size_t kChunk = 8192;  // floats that one task handles; an exponential is not a sum

// body(first, n) for runs of at most kRow numbers.
template <class Body>
void in_rows(Context& context, size_t count, const Body& body) {
    const int chunks = static_cast<int>((count + kChunk - 1) / kChunk);
    context.pool.parallel_for(chunks, [&](int chunk, int) {
        const size_t first = chunk * kChunk, last = std::min(count, first + kChunk);
        for (size_t at = first; at < last; at += kRow) {
            body(at, static_cast<int>(std::min(kRow, last - at)));
        }
    });
}

}  // namespace

void exponentials(Context& context, const float* x, size_t count, float* out) {
    in_rows(context, count, [&](size_t at, int n) {
        context.kernels.exponentials(x + at, n, 0.0f, out + at);
    });
}

void softplus(Context& context, const float* x, size_t count, float* out) {
    in_rows(context, count, [&](size_t at, int n) {
        float decay[kRow] = {};
        for (int i = 0; i < n; ++i) decay[i] = -std::fabs(x[at + i]);
        context.kernels.exponentials(decay, n, 0.0f, decay);
        for (int i = 0; i < n; ++i) out[at + i] = softplus_of(x[at + i], decay[i]);
    });
}

void sigmoid_scale(Context& context, const float* x, const float* logits, size_t count, int each,
                   float* out) {
    if (each == 1) {
        in_rows(context, count, [&](size_t at, int n) {
            float decay[kRow] = {};
            for (int i = 0; i < n; ++i) decay[i] = -logits[at + i];
            context.kernels.exponentials(decay, n, 0.0f, decay);
            for (int i = 0; i < n; ++i) out[at + i] = x[at + i] / (1.0f + decay[i]);
        });
        return;
    }
    const size_t rows = count / each, step = std::max<size_t>(1, 2 * kChunk / each);
    context.pool.parallel_for(static_cast<int>((rows + step - 1) / step), [&](int task, int) {
        for (size_t row = task * step; row < std::min(rows, (task + 1) * step); ++row) {
            const float divisor = 1.0f + exp_lane(-logits[row]);
            for (size_t i = row * each; i < (row + 1) * each; ++i) out[i] = x[i] / divisor;
        }
    });
}

}  // namespace moestream
