// The table of an instruction set's kernels, made of its vectors: V as in products.h.
#pragma once

#include "kernels/attention_tile.h"
#include "kernels/delta_step.h"
#include "kernels/float_products.h"
#include "kernels/products.h"
#include "kernels/rows.h"
#include "kernels/scan_step.h"

namespace moestream {
namespace {

template <class V, Type T>
constexpr TypeKernels type_kernels() {
    if constexpr (layout_of(T).input() == Input::Float) {
        return {matmul_float<typename V::Few, T>, nullptr};
    } else {
        using Blocks = typename V::template Trait<T>;
        if constexpr (layout_of(T).packed_bits == 0) return {matmul<V, Blocks, false>, nullptr};
        return {matmul<V, Blocks, false>, matmul<V, Blocks, layout_of(T).packed_bits != 0>};
    }
}

template <class V>
constexpr Kernels make_table(const char* name) {
    using Few = typename V::Few;
    return {
        name,
        for_all_types([]<Type T>() { return type_kernels<V, T>(); }),
        quantize<Few, 32>,
        quantize<Few, 256>,
        rms_norm<Few>,
        swiglu<Few>,
        attend<typename V::Attention>,
        to_half<Few>,
        exponentials<Few>,
        delta_step,
        scan_step,
    };
}

}  // namespace
}  // namespace moestream
