// The kernels for ARM with the dot product instructions (Apple M1, Graviton 2, Raspberry Pi 5).
#include "kernels/neon/table.h"

namespace moestream {

const Kernels kNeonKernels = kNeonTable;

}  // namespace moestream
