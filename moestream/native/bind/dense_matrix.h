// A dense matrix as Python holds it, for the units that take one.
#pragma once

#include "bind/checks.h"
#include "core/context.h"

namespace moestream {

// A weight matrix: a copy, 64-byte aligned, in the order that `kernels` want, or where it lies.
struct DenseMatrix {
    const Kernels* kernels = nullptr;
    Matrix view;
    Buffer bytes;
    Bytes mapped;  // kept, if there is no copy
};

inline void check_made_for(const DenseMatrix& matrix, const Context& context) {
    if (matrix.kernels != &context.kernels) {
        fail("the matrix was made for another instruction set than this context's");
    }
}

}  // namespace moestream
