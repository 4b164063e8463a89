// The kernels for x86-64 with AVX-512 and VNNI (Intel since Ice Lake, AMD since Zen 4).
//
// Products with many tokens use its wide registers. All else is AVX2's, compiled with VNNI: a sum
// of floats has eight lanes whatever the machine, and reading weights once is bound by memory.
#include "kernels/avx512/gemm.h"
#include "kernels/table.h"

namespace moestream {

constinit const Kernels kAvx512Kernels = make_table<Avx512>("avx512");

}  // namespace moestream
