// AVX2's kernels with byte products in fours, which AVX-VNNI brings to processors without AVX-512
// (Intel since Alder Lake).
#include "kernels/avx2/gemm.h"
#include "kernels/table.h"

namespace moestream {

constinit const Kernels kAvxVnniKernels = make_table<Avx2>("avxvnni");

}  // namespace moestream
