// Later layers' routers on this layer's residual stream: what they will probably choose.
//
// Owns the mean of the stream at each layer, by which what lies between two layers is foretold:
// x at a later layer is about x here, plus what the means differ by. Never part of a result.
#pragma once

#include <cstdint>
#include <vector>

#include "core/context.h"

namespace moestream {

// One layer's router and its norm.
struct Gate {
    const float* norm;  // (columns)
    float eps;
    const Matrix* router;
    const float* bias;  // of the router, or null
    RoutingRule rule;
};

class Gates {
  public:
    // Gates by the layers' order. All have the same columns, and choose as many experts.
    explicit Gates(std::vector<Gate> gates);

    int count() const { return static_cast<int>(gates_.size()); }
    int columns() const { return gates_[0].router->columns; }
    int k() const { return gates_[0].rule.k; }

    // Note the stream (tokens, columns) at the layer at `place`; a mean of the last tokens is kept.
    void note(int place, const float* x, int tokens);
    // What each of the next `ahead` layers would choose of x, the stream at `place`:
    // (ahead, tokens, k).
    void choose(Context& context, int place, const float* x, int tokens, int ahead, int32_t* ids);

  private:
    void choose_one(Context& context, const Gate& gate, const float* x, int tokens, int32_t* ids);

    const std::vector<Gate> gates_;
    std::vector<float> means_;  // (gates, columns)
    std::vector<int> noted_;    // tokens by gate, up to kWindow
    std::vector<float> moved_, normed_, logits_, weights_;
};

}  // namespace moestream
