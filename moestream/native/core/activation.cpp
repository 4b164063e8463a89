// Gated activations: made of SwiGLU and the exponential, in which instruction sets agree.
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
void geglu(const Kernels& kernels, Activation, const float* gate, const float* up, int count,
           float* out) {
    constexpr float kRootTwoOverPi = 0.797884561f, kCubic = 0.044715f;
    float exponent[kRow] = {};
    for (int i = 0; i < count; ++i) {
        const float g = gate[i];
        exponent[i] = -2.0f * (kRootTwoOverPi * g * (1.0f + kCubic * g * g));
    }
    scale_by_sigmoid(kernels, gate, exponent, up, count, out);
}

void swiglu_oai(const Kernels& kernels, Activation, const float* gate, const float* up, int count,
                float* out) {
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

void reglu(const Kernels&, Activation, const float* gate, const float* up, int count, float* out) {
    for (int i = 0; i < count; ++i) out[i] = gate[i] > 0.0f ? gate[i] * up[i] : 0.0f;
}

float within(float x, float limit) { return x > limit ? limit : x < -limit ? -limit : x; }

void clamped_swiglu(const Kernels& kernels, Activation how, const float* gate, const float* up,
                    int count, float* out) {
    const float limit = how.limit;
    float clamped[kRow] = {}, raised[kRow] = {};
    for (int i = 0; i < count; ++i) {
        clamped[i] = gate[i] > limit ? limit : gate[i];
        raised[i] = within(up[i], limit);
    }
    kernels.swiglu(clamped, raised, count, out);
}

void capped_swiglu(const Kernels& kernels, Activation how, const float* gate, const float* up,
                   int count, float* out) {
    const float limit = how.limit;
    float ones[kRow], passed[kRow] = {};
    std::fill(ones, ones + kRow, 1.0f);
    kernels.swiglu(gate, ones, count, passed);
    for (int i = 0; i < count; ++i) {
        out[i] = (passed[i] > limit ? limit : passed[i]) * within(up[i], limit);
    }
}

// limit * tanh(x / limit), by (1 - e) / (1 + e) with e = exp(-2 x / limit).
void soften(const Kernels& kernels, float limit, const float* x, int count, float* out) {
    constexpr float kMost = 40.0f;  // tanh is one in float32 long before
    float exponent[kRow] = {}, e[kRow];
    for (int i = 0; i < count; ++i) exponent[i] = within(-2.0f * (x[i] / limit), kMost);
    kernels.exponentials(exponent, count, 0.0f, e);
    for (int i = 0; i < count; ++i) out[i] = limit * ((1.0f - e[i]) / (1.0f + e[i]));
}

void situ(const Kernels& kernels, Activation how, const float* gate, const float* up, int count,
          float* out) {
    float softened[kRow], raised[kRow], exponent[kRow] = {};
    if (how.limit > 0.0f) {
        soften(kernels, how.limit, gate, count, softened);
    } else {
        std::copy(gate, gate + count, softened);
    }
    if (how.up_limit > 0.0f) soften(kernels, how.up_limit, up, count, raised);
    for (int i = 0; i < count; ++i) exponent[i] = -gate[i];
    scale_by_sigmoid(kernels, softened, exponent, how.up_limit > 0.0f ? raised : up, count, out);
}

using Row = void (*)(const Kernels&, Activation, const float*, const float*, int, float*);

Row row_of(Kind kind) {
    switch (kind) {
        case Kind::Gelu: return geglu;
        case Kind::SwigluOai: return swiglu_oai;
        case Kind::Relu: return reglu;
        case Kind::SiluClamped: return clamped_swiglu;
        case Kind::Situ: return situ;
        default: return capped_swiglu;
    }
}

}  // namespace

void glu_row(const Kernels& kernels, Activation activation, const float* gate, const float* up,
             int count, float* out) {
    if (activation.kind == Kind::Silu) return kernels.swiglu(gate, up, count, out);
    const Row run = row_of(activation.kind);
    for (int at = 0; at < count; at += kRow) {
        run(kernels, activation, gate + at, up + at, std::min(kRow, count - at), out + at);
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
