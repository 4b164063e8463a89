// The boundary between drivers and instruction sets: one table of functions an instruction set.
//
// Owns the exact meaning of a quantised product, so that every table gives the same bits:
//   32-value types:   acc = fma(d * a.d, S, acc), then acc = fma(m, a.s, acc) where there is m
//                     (NVFP4: for 16 values each);
//   256-value types:  acc = fma(d * a.d, S, acc), then acc = fma(-dmin * a.d, M, acc);
// block after block, S and M being exact integer sums. Float types sum eight lanes (column i in
// lane i % 8, each by fma), and the lanes as ((0+4)+(2+6)) + ((1+5)+(3+7)).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/types.h"

namespace moestream {

// Rows of an input, in the form that a weight type's product reads (see Input).
struct InputRows {
    Input kind;
    int columns;
    int tokens;
    const float* x;         // Float: (tokens, columns)
    const int8_t* q;        // (tokens, columns), in -127..127
    const float* d;         // (tokens, blocks): scale
    const float* s;         // (tokens, blocks): scale times the sum of q; Block32 only
    const int16_t* sums16;  // (tokens, columns / 16): sums of 16 q
    const int16_t* sums32;  // (tokens, columns / 32): sums of 32 q
};

// out[out_rows[i]][0..rows) = weights @ input[in_rows[i]] for a panel of weight rows.
struct Panel {
    const uint8_t* weights;  // any alignment
    size_t row_bytes;        // from one row to the next
    int rows;                // at most kPanelRows
    const InputRows* input;
    const int32_t* in_rows;   // null: 0, 1, 2, ...
    const int32_t* out_rows;  // null: 0, 1, 2, ...
    int tokens;
    float* out;
    size_t out_stride;  // floats from one output row to the next
    uintptr_t next;  // address that this thread will probably read from next; 0: not known
    uint8_t* scratch;   // panel_scratch_bytes(columns), 64-byte aligned, this thread's own
};

inline constexpr int kPanelRows = 16;

// Room to unpack a panel: a byte a value, and for each 16 columns scales of all sorts.
constexpr size_t panel_scratch_bytes(int columns) {
    return static_cast<size_t>(columns + 256) * kPanelRows * 2 + 32768;
}

struct QuantizedRow {
    int8_t* q;
    float* d;
    float* s;
    int16_t* sums16;
    int16_t* sums32;
};

struct AttentionTile;  // attention.h

// One head's token in the gated delta rule. `state` (dim, dim), a row a coordinate of v, becomes
// keep * state, column by column where there are `keeps`, then nears v at k by the part `write` of
// what is missing; out = state @ q.
struct DeltaStep {
    float* state;
    const float* q;
    const float* k;
    const float* v;
    float keep, write;
    int dim;  // a multiple of 8
    float* out;
    const float* keeps = nullptr;  // (dim,), in place of `keep`
};

// One head's token in Mamba-2. `state` (rows, columns), a row a coordinate of x, becomes
// keep * state + step * x b^T; out = state @ c + skip * x.
struct ScanStep {
    float* state;
    const float* x;
    const float* b;
    const float* c;
    float keep, step, skip;
    int rows, columns;  // multiples of 4 and of 8
    float* out;
};

// A product of one panel with any number of tokens.
using Matmul = void (*)(const Panel&);

// The kernels of one type of weights.
struct TypeKernels {
    Matmul matmul;
    // The same of packed rows (packing.h), `row_bytes` being from one eight to the next; null for
    // a type that this instruction set wants in the file's order.
    Matmul matmul_packed;
};

struct Kernels {
    const char* name;
    std::array<TypeKernels, kNumTypes> of_type;  // by type_index
    // One row of `columns` floats to int8 blocks of 32 or 256. A block with a value that is not
    // finite gets the scale NaN, so that all products with it are NaN.
    void (*quantize32)(const float* x, int columns, const QuantizedRow& out);
    void (*quantize256)(const float* x, int columns, const QuantizedRow& out);
    // out = x / rms(x) * weight.
    void (*rms_norm)(const float* x, const float* weight, int columns, float eps, float* out);
    // out = silu(gate) * up.
    void (*swiglu)(const float* gate, const float* up, int count, float* out);
    // One tile of queries against one split of the cache; see attention.h.
    void (*attend)(const AttentionTile&);
    void (*to_half)(const float* x, int count, uint16_t* out);
    // out = e^(x - shift).
    void (*exponentials)(const float* x, int count, float shift, float* out);
    void (*delta_step)(const DeltaStep&);
    void (*scan_step)(const ScanStep&);
};

extern const Kernels kScalarKernels;
#if defined(MOESTREAM_X86)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512Kernels;
#endif
#if defined(MOESTREAM_NEON)
extern const Kernels kNeonKernels;
extern const Kernels kNeonI8mmKernels;
#endif

}  // namespace moestream
