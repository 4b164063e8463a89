// From a router's logits to experts and their weights.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/context.h"
#include "core/smooth.h"

namespace moestream {
namespace {

// Smallest normal float16: keeps the normalisation of router weights from dividing by zero.
constexpr float kMinWeightSum = 6.103515625e-5f;

// One thread's own numbers, one an expert or a group.
struct Scratch {
    float* gated;   // what weights are taken from
    float* scores;  // what is chosen by
    float* totals;  // of groups
    uint8_t* taken;

    static size_t bytes(const RoutingRule& rule) {
        return sizeof(float) * (2 * rule.experts + rule.groups) +
               static_cast<size_t>(std::max(rule.experts, rule.groups));
    }
    Scratch(float* base, const RoutingRule& rule)
        : gated(base),
          scores(gated + rule.experts),
          totals(scores + rule.experts),
          taken(reinterpret_cast<uint8_t*>(totals + rule.groups)) {}
};

// The largest that is not taken, which it then is: the lowest index among equals, and among what
// is left when only NaN is left.
int take_best(const float* values, int count, uint8_t* taken) {
    int best = -1;
    for (int i = 0; i < count; ++i) {
        if (taken[i]) continue;
        const bool is_number = values[i] == values[i];
        if (best < 0 || values[i] > values[best] ||
            (is_number && values[best] != values[best])) {
            best = i;
        }
    }
    taken[best] = 1;
    return best;
}

// e^(x - largest) / sum, in place or not.
void softmax(const Kernels& kernels, const float* x, int count, float* out) {
    kernels.exponentials(x, count, *std::max_element(x, x + count), out);
    float total = 0.0f;
    for (int i = 0; i < count; ++i) total += out[i];
    for (int i = 0; i < count; ++i) out[i] /= total;
}

void gate(const Kernels& kernels, const RoutingRule& rule, const float* logits, float* gated) {
    const int experts = rule.experts;
    if (rule.gating == Gating::Softmax) {
        softmax(kernels, logits, experts, gated);
    } else if (rule.gating == Gating::Sigmoid) {
        for (int i = 0; i < experts; ++i) gated[i] = -logits[i];
        kernels.exponentials(gated, experts, 0.0f, gated);
        for (int i = 0; i < experts; ++i) gated[i] = 1.0f / (1.0f + gated[i]);
    } else if (rule.gating == Gating::SqrtSoftplus) {
        for (int i = 0; i < experts; ++i) gated[i] = -std::fabs(logits[i]);
        kernels.exponentials(gated, experts, 0.0f, gated);
        for (int i = 0; i < experts; ++i) gated[i] = std::sqrt(softplus_of(logits[i], gated[i]));
    } else {
        std::copy_n(logits, experts, gated);
    }
}

// Take away the experts of all but the best groups, a group being as good as its two best.
void drop_groups(const RoutingRule& rule, const Scratch& scratch) {
    const int size = rule.experts / rule.groups;
    for (int group = 0; group < rule.groups; ++group) {
        const float* scores = scratch.scores + group * size;
        float first = -std::numeric_limits<float>::infinity(), second = first;
        for (int i = 0; i < size; ++i) {
            if (scores[i] > first) {
                second = first;
                first = scores[i];
            } else if (scores[i] > second) {
                second = scores[i];
            }
        }
        scratch.totals[group] = size > 1 ? second + first : first;
    }
    std::fill_n(scratch.taken, rule.groups, 0);
    for (int n = 0; n < rule.groups_used; ++n) {
        take_best(scratch.totals, rule.groups, scratch.taken);
    }
    for (int group = 0; group < rule.groups; ++group) {
        if (scratch.taken[group]) continue;
        std::fill_n(scratch.scores + group * size, size, -std::numeric_limits<float>::infinity());
    }
}

void route_token(const Kernels& kernels, const RoutingRule& rule, const float* logits,
                 const Scratch& scratch, int32_t* ids, float* weights) {
    const int experts = rule.experts, k = rule.k;
    gate(kernels, rule, logits, scratch.gated);
    std::copy_n(scratch.gated, experts, scratch.scores);
    if (rule.bias != nullptr) {
        for (int i = 0; i < experts; ++i) scratch.scores[i] += rule.bias[i];
    }
    if (rule.groups > 1) drop_groups(rule, scratch);
    std::fill_n(scratch.taken, experts, 0);
    for (int slot = 0; slot < k; ++slot) {
        ids[slot] = take_best(scratch.scores, experts, scratch.taken);
        weights[slot] = scratch.gated[ids[slot]];
    }
    if (rule.gating == Gating::SoftmaxOfChosen) softmax(kernels, weights, k, weights);
    float sum = 0.0f;
    for (int slot = 0; slot < k; ++slot) sum += weights[slot];
    const float divisor = rule.normalise ? (sum < kMinWeightSum ? kMinWeightSum : sum) : 1.0f;
    for (int slot = 0; slot < k; ++slot) weights[slot] = weights[slot] / divisor * rule.scale;
}

}  // namespace

void route(Context& context, const float* logits, int tokens, const RoutingRule& rule,
           int32_t* ids, float* weights) {
    context.reserve_scratch(Scratch::bytes(rule));
    const int step = 16;
    context.pool.parallel_for((tokens + step - 1) / step, [&](int task, int thread) {
        const Scratch scratch(context.scratch[thread].get<float>(0), rule);
        for (int token = task * step; token < std::min(tokens, (task + 1) * step); ++token) {
            const size_t at = static_cast<size_t>(token) * rule.k;
            route_token(context.kernels, rule,
                        logits + static_cast<size_t>(token) * rule.experts, scratch, ids + at,
                        weights + at);
        }
    });
}

}  // namespace moestream
