// AVX2's kernels with byte products in fours, which AVX-VNNI brings to processors without AVX-512
// (Intel since Alder Lake).

namespace moestream {
namespace {
constexpr const char* kTableName = "avxvnni";
}
}  // namespace moestream

#include "kernels/avx2/table.h"

namespace moestream {

const Kernels kAvxVnniKernels = kAvx2Table;

}  // namespace moestream
