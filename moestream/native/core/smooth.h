// Sigmoid and softplus of single numbers, by the exponential in which instruction sets agree: the
// system's own differs from one machine to the next.
#pragma once

#include <algorithm>
#include <cmath>

#include "core/scalar_math.h"

namespace moestream {

// log(1 + u) for u within 0 and 1: 2 atanh(u / (2 + u)), whose next term is below 2^-29.
static inline float log1p_lane(float u) {
    const float s = u / (2.0f + u), square = s * s;
    float sum = 1.0f / 15.0f;
    for (int odd = 13; odd > 1; odd -= 2) sum = sum * square + 1.0f / static_cast<float>(odd);
    return 2.0f * (s + s * (square * sum));
}

static inline float sigmoid_lane(float x) {
    const float decay = exp_lane(-std::fabs(x));
    return (x >= 0.0f ? 1.0f : decay) / (1.0f + decay);
}

// log(1 + e^x), `decay` being e^-|x|: what is above zero, and what is left.
static inline float softplus_of(float x, float decay) {
    return (x > 0.0f ? x : 0.0f) + log1p_lane(decay);
}

static inline float softplus_lane(float x) { return softplus_of(x, exp_lane(-std::fabs(x))); }

}  // namespace moestream
