// The kernels for ARM with the dot product instructions (Apple M1, Graviton 2, Raspberry Pi 5).
#include "kernels/neon/gemm.h"
#include "kernels/table.h"

namespace moestream {

constinit const Kernels kNeonKernels = make_table<Neon>("neon");

}  // namespace moestream
