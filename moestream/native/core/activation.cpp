// Gated activations. All but SwiGLU are made of the exponential, in which instruction sets agree.
#include <algorithm>

#include "core/context.h"

namespace moestream {
namespace {

constexpr int kRow = 64;  // floats at once, on the stack
constexpr size_t kChunk = 16384;  // floats that one task handles

// gate / (1 + e^exponent), that is gate * sigmoid(-exponent), times up.
void scale_by_sigmoid(const Kernels& kernels, const float* gate, const float* exponent,
                      const float* up, int count, float* out) {
    float e[kRow];
    kernels.exponentials(exponent, count, 0.0f, e);
    for (int i = 0; i < count; ++i) out[i] = gate[i] / (1.0f + e[i]) * up[i];
}

// gelu(g) = g * (1 + tanh(y)) / 2 = g * sigmoid(2 y).
void geglu(const Kernels& kernels, const float* gate, const float* up, int count, float* out) {
    constexpr float kRootTwoOverPi = 0.797884561f, kCubic = 0.044715f;
    float exponent[kRow] = {};
    for (int i = 0; i < count; ++i) {
        const float g = gate[i];
        exponent[i] = -2.0f * (kRootTwoOverPi * g * (1.0f + kCubic * g * g));
    }
    scale_by_sigmoid(kernels, gate, exponent, up, count, out);
}

void swiglu_oai(const Kernels& kernels, const float* gate, const float* up, int count, float* out) {
    constexpr float kSlope = 1.702f, kLimit = 7.0f;
    float clamped[kRow] = {}, raised[kRow] = {}, exponent[kRow] = {};
    for (int i = 0; i < count; ++i) {
        clamped[i] = gate[i] > kLimit ? kLimit : gate[i];
        const float u = up[i] > kLimit ? kLimit : up[i];
        raised[i] = (u < -kLimit ? -kLimit : u) + 1.0f;
        exponent[i] = -kSlope * clamped[i];
    }
    scale_by_sigmoid(kernels, clamped, exponent, raised, count, out);
}

}  // namespace

void glu_row(const Kernels& kernels, Activation activation, const float* gate, const float* up,
             int count, float* out) {
    if (activation == Activation::Silu) return kernels.swiglu(gate, up, count, out);
    const auto run = activation == Activation::Gelu ? geglu : swiglu_oai;
    for (int at = 0; at < count; at += kRow) {
        run(kernels, gate + at, up + at, std::min(kRow, count - at), out + at);
    }
}

void glu(Context& context, Activation activation, const float* gate, const float* up, size_t count,
         float* out) {
    const int chunks = static_cast<int>((count + kChunk - 1) / kChunk);
    context.pool.parallel_for(chunks, [&](int chunk, int) {
        const size_t first = chunk * kChunk;
        glu_row(context.kernels, activation, gate + first, up + first,
                static_cast<int>(std::min(kChunk, count - first)), out + first);
    });
}

}  // namespace moestream
