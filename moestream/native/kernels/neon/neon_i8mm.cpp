// The same kernels for ARM that also multiplies int8 matrices (Apple M2, Graviton 3).
//
// Only products with many tokens differ, but this is a whole table: what runs has one name, and
// each can be chosen and tested alone.
#include "kernels/neon/gemm.h"
#include "kernels/table.h"

#if !defined(__ARM_FEATURE_MATMUL_INT8)
#error "neon_i8mm.cpp must be compiled with +i8mm"
#endif

namespace moestream {

constinit const Kernels kNeonI8mmKernels = make_table<Neon>("neon-i8mm");

}  // namespace moestream
