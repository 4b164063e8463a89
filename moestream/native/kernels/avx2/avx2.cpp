// The kernels for x86-64 with AVX2, FMA and F16C (Intel since Haswell, AMD since Excavator).
#include "kernels/avx2/gemm.h"
#include "kernels/table.h"

namespace moestream {

constinit const Kernels kAvx2Kernels = make_table<Avx2>("avx2");

}  // namespace moestream
