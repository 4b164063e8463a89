// Later layers' routers on this layer's residual stream: what they will probably choose.
//
// Owns the mean of the stream at each layer, by which what lies between two layers is foretold:
// x at a later layer is about x here, plus what the means differ by. Never part of a result.
#pragma once

#include <cstdint>
#include <vector>

#include "core/buffer.h"
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
    // Routers of floats are copied to int8: a guess need not be exact, and the copy is a quarter of
    // what has to come from memory in the middle of a token.
    Gates(Context& context, std::vector<Gate> gates);
    Gates(const Gates&) = delete;

    int count() const { return static_cast<int>(gates_.size()); }
    int columns() const { return gates_[0].router->columns; }
    int k() const { return gates_[0].rule.k; }

    // Note the stream (tokens, columns) at the layer at `place`; a mean of the last tokens is kept.
    void note(int place, const float* x, int tokens);
    // What each of the next `ahead` layers would choose of x, the stream at `place`: each expert
    // once, all tokens' first choices first.
    std::vector<std::vector<int32_t>> choose(Context& context, int place, const float* x,
                                             int tokens, int ahead);

  private:
    std::vector<int32_t> choose_one(Context& context, int place, const float* x, int tokens);

    std::vector<Gate> gates_;
    std::vector<Matrix> routers_;  // of the gates, or their copies
    std::vector<Buffer> copies_;
    std::vector<float> means_;  // (gates, columns)
    std::vector<int> noted_;    // tokens by gate, up to kWindow
    std::vector<float> moved_, normed_, logits_, weights_;
    std::vector<int32_t> ids_;
};

}  // namespace moestream
