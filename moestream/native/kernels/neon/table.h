// The table of NEON kernels, as the unit that includes this compiles them.
#pragma once

#include "kernels/delta_step.h"
#include "kernels/neon/attention.h"
#include "kernels/neon/float.h"
#include "kernels/neon/packed.h"
#include "kernels/neon/rows.h"

namespace moestream {
namespace {

constexpr Kernels kNeonTable = {
    kNeonName,
    {matmul_float<Type::F32>, matmul_float<Type::F16>, matmul_float<Type::BF16>,
     matmul<Q8_0, false>, matmul<Q4_0, false>, matmul<Q4_1, false>, matmul<Q5_0, false>,
     matmul<Q5_1, false>, matmul<IQ4_NL, false>, matmul<MXFP4, false>, matmul<Q2_K, true>,
     matmul<Q3_K, true>, matmul<Q4_K, true>, matmul<Q5_K, true>, matmul<Q6_K, true>,
     matmul<IQ4_XS, true>},
    {nullptr, nullptr, nullptr, matmul_packed<Q8_0, false>, matmul_packed<Q4_0, false>,
     matmul_packed<Q4_1, false>, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
     matmul_packed<Q4_K, true>, nullptr, matmul_packed<Q6_K, true>, nullptr},
    quantize<32>,
    quantize<256>,
    rms_norm,
    swiglu,
    attend,
    to_half,
    exponentials,
    delta_step,
};

}  // namespace
}  // namespace moestream
