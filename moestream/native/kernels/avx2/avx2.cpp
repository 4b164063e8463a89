// The kernels for x86-64 with AVX2, FMA and F16C (Intel since Haswell, AMD since Excavator).

namespace moestream {
namespace {
constexpr const char* kTableName = "avx2";
}
}  // namespace moestream

#include "kernels/avx2/table.h"

namespace moestream {

const Kernels kAvx2Kernels = kAvx2Table;

}  // namespace moestream
