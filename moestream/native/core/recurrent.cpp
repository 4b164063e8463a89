// Layers whose memory does not grow: the short convolution, the gated delta rule and Mamba-2.
#include <algorithm>
#include <array>
#include <cmath>

#include "core/context.h"
#include "core/smooth.h"

namespace moestream {
namespace {

constexpr int kChannels = 1024;  // that one task convolves

constexpr std::array<float, kChannels> kOnes = [] {
    std::array<float, kChannels> ones{};
    ones.fill(1.0f);
    return ones;
}();

// Channels `first` to `last` of all tokens.
void convolve(const Convolution& shape, const float* x, const float* kernel, const float* bias,
              int first, int last, float* past, float* out) {
    const int before = shape.width - 1;
    const auto channels = static_cast<size_t>(shape.channels);
    const auto seen = [&](int index) {
        return index < before ? past + index * channels : x + (index - before) * channels;
    };
    const float* rows[kMostWidth];
    for (int token = 0; token < shape.tokens; ++token) {
        for (int j = 0; j < shape.width; ++j) rows[j] = seen(token + j);
        float* sums = out + token * channels;
        for (int c = first; c < last; ++c) {
            const float* weights = kernel + static_cast<size_t>(c) * shape.width;
            float sum = 0.0f;
            for (int j = 0; j < shape.width; ++j) sum += rows[j][c] * weights[j];
            sums[c] = bias == nullptr ? sum : sum + bias[c];
        }
    }
    // The oldest first: what is read has not been overwritten yet.
    for (int i = 0; i < before; ++i) {
        const float* from = seen(shape.tokens + i);
        std::copy(from + first, from + last, past + i * channels + first);
    }
}

// Brings vectors to unit length, as a root mean square: eps is beside the sum of squares. Queries
// are scaled by 1 / sqrt(dim) besides. `scratch` is of 2 * dim.
class UnitLength {
  public:
    UnitLength(float* scratch, int dim, float eps)
        : unit_(scratch), scaled_(scratch + dim), dim_(dim), eps_(eps / static_cast<float>(dim)) {
        std::fill(unit_, unit_ + dim, 1.0f / std::sqrt(static_cast<float>(dim)));
        std::fill(scaled_, scaled_ + dim, 1.0f / static_cast<float>(dim));
    }
    void queries(const Kernels& kernels, const float* x, float* out) const {
        kernels.rms_norm(x, scaled_, dim_, eps_, out);
    }
    void keys(const Kernels& kernels, const float* x, float* out) const {
        kernels.rms_norm(x, unit_, dim_, eps_, out);
    }

  private:
    float *unit_, *scaled_;
    int dim_;
    float eps_;
};

}  // namespace

void causal_conv(Context& context, const Convolution& shape, const float* x, const float* kernel,
                 const float* bias, bool silu, float* past, float* out) {
    const int tasks = (shape.channels + kChannels - 1) / kChannels;
    context.pool.parallel_for(tasks, [&](int task, int) {
        const int first = task * kChannels, last = std::min(shape.channels, first + kChannels);
        convolve(shape, x, kernel, bias, first, last, past, out);
        for (int token = 0; silu && token < shape.tokens; ++token) {
            float* sums = out + static_cast<size_t>(token) * shape.channels + first;
            context.kernels.swiglu(sums, kOnes.data(), last - first, sums);
        }
    });
}

void delta_net(Context& context, const DeltaNet& net, const float* qkv, const float* write,
               const float* forget, float* state, float* out) {
    const int dim = net.dim, heads = net.heads, keys = net.key_heads;
    const auto row_size = static_cast<size_t>(2 * keys + heads) * dim;
    context.reserve_scratch(sizeof(float) * dim * 4);
    context.pool.parallel_for(heads, [&](int head, int thread) {
        float* q = context.scratch[thread].get<float>(0);
        float* k = q + dim;
        const UnitLength unit(k + dim, dim, net.eps);
        for (int token = 0; token < net.tokens; ++token) {
            const float* row = qkv + token * row_size;
            const int key = net.key_of[head];
            const size_t at = static_cast<size_t>(token) * heads + head;
            unit.queries(context.kernels, row + static_cast<size_t>(key) * dim, q);
            unit.keys(context.kernels, row + static_cast<size_t>(keys + key) * dim, k);
            const float keep =
                exp_lane(net.rates[head] * softplus_lane(forget[at] + net.time_bias[head]));
            context.kernels.delta_step({state + static_cast<size_t>(head) * dim * dim, q, k,
                                        row + static_cast<size_t>(2 * keys + head) * dim, keep,
                                        sigmoid_lane(write[at]), dim, out + at * dim});
        }
    });
}

void kimi_delta(Context& context, const KimiDelta& net, const float* qkv, const float* write,
                const float* decay, float* state, float* out) {
    const int dim = net.dim, heads = net.heads;
    const size_t inner = static_cast<size_t>(heads) * dim;
    context.reserve_scratch(sizeof(float) * dim * 5);
    context.pool.parallel_for(heads, [&](int head, int thread) {
        float* q = context.scratch[thread].get<float>(0);
        float *k = q + dim, *kept = k + dim;
        const UnitLength unit(kept + dim, dim, net.eps);
        const size_t own = static_cast<size_t>(head) * dim;
        for (int token = 0; token < net.tokens; ++token) {
            const float* row = qkv + token * 3 * inner + own;
            const size_t at = token * inner + own;
            unit.queries(context.kernels, row, q);
            unit.keys(context.kernels, row + inner, k);
            context.kernels.exponentials(decay + at, dim, 0.0f, kept);
            context.kernels.delta_step({state + own * dim, q, k, row + 2 * inner, 0.0f,
                                        sigmoid_lane(write[static_cast<size_t>(token) * heads + head]),
                                        dim, out + at, kept});
        }
    });
}

void mamba(Context& context, const ChannelScan& scan, const float* x, const float* steps,
           const float* b, const float* c, float* state, float* out) {
    constexpr int kTask = 64;  // channels
    const int size = scan.size;
    context.reserve_scratch(sizeof(float) * size);
    context.pool.parallel_for((scan.channels + kTask - 1) / kTask, [&](int task, int thread) {
        float* kept = context.scratch[thread].get<float>(0);
        const int last = std::min(scan.channels, (task + 1) * kTask);
        for (int channel = task * kTask; channel < last; ++channel) {
            float* row = state + static_cast<size_t>(channel) * size;
            const float* rates = scan.rates + static_cast<size_t>(channel) * size;
            for (int token = 0; token < scan.tokens; ++token) {
                const size_t at = static_cast<size_t>(token) * scan.channels + channel;
                const float* write = b + static_cast<size_t>(token) * size;
                const float* read = c + static_cast<size_t>(token) * size;
                const float step = softplus_lane(steps[at] + scan.time_bias[channel]);
                for (int i = 0; i < size; ++i) kept[i] = step * rates[i];
                context.kernels.exponentials(kept, size, 0.0f, kept);
                float sum = 0.0f;
                for (int i = 0; i < size; ++i) {
                    row[i] = row[i] * kept[i] + step * x[at] * write[i];
                    sum += row[i] * read[i];
                }
                out[at] = sum + scan.skips[channel] * x[at];
            }
        }
    });
}

void mamba2(Context& context, const Scan& scan, const float* xbc, const float* steps, float* state,
            float* out) {
    const int heads = scan.heads, rows = scan.rows, columns = scan.columns;
    const size_t inner = static_cast<size_t>(heads) * rows;
    const size_t shared = static_cast<size_t>(scan.groups) * columns;
    context.pool.parallel_for(heads, [&](int head, int) {
        const size_t group = static_cast<size_t>(head / (heads / scan.groups)) * columns;
        for (int token = 0; token < scan.tokens; ++token) {
            const float* row = xbc + token * (inner + 2 * shared);
            const size_t at = static_cast<size_t>(token) * heads + head;
            const float step = softplus_lane(steps[at] + scan.time_bias[head]);
            const size_t own = static_cast<size_t>(head) * rows;
            context.kernels.scan_step({state + own * columns, row + own, row + inner + group,
                                       row + inner + shared + group,
                                       exp_lane(scan.rates[head] * step), step, scan.skips[head],
                                       rows, columns, out + token * inner + own});
        }
    });
}

}  // namespace moestream
