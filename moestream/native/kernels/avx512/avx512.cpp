// The kernels for x86-64 with AVX-512 and VNNI (Intel since Ice Lake, AMD since Zen 4).
//
// Products with many tokens use its wide registers. All else is AVX2's, compiled with VNNI: a sum
// of floats has eight lanes whatever the machine, and reading weights once is bound by memory.
#include "core/kernels.h"
#include "kernels/avx2/float.h"
#include "kernels/avx2/packed.h"
#include "kernels/avx2/rows.h"
#include "kernels/avx512/gemm.h"
#include "kernels/delta_step.h"

namespace moestream {

const Kernels kAvx512Kernels = {
    "avx512",
    {matmul_float<Type::F32>, matmul_float<Type::F16>, matmul_float<Type::BF16>,
     matmul_wide<Q8_0, false>, matmul_wide<Q4_0, false>, matmul_wide<Q4_1, false>,
     matmul_wide<Q5_0, false>, matmul_wide<Q5_1, false>, matmul_wide<IQ4_NL, false>,
     matmul_wide<MXFP4, false>, matmul_wide<Q2_K, true>, matmul_wide<Q3_K, true>,
     matmul_wide<Q4_K, true>, matmul_wide<Q5_K, true>, matmul_wide<Q6_K, true>,
     matmul_wide<IQ4_XS, true>},
    {nullptr, nullptr, nullptr, matmul_packed_wide<Q8_0, false>, matmul_packed_wide<Q4_0, false>,
     matmul_packed_wide<Q4_1, false>, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
     matmul_packed_wide<Q4_K, true>, nullptr, matmul_packed_wide<Q6_K, true>, nullptr},
    quantize<32>,
    quantize<256>,
    rms_norm,
    swiglu,
    attend,
    to_half,
    exponentials,
    delta_step,
};

}  // namespace moestream
