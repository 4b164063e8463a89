// Which instruction sets this build has and this machine runs. Adding one is a row here.
#include <cstring>

#include "core/arm_features.h"
#include "core/context.h"

namespace moestream {
namespace {

struct Entry {
    const Kernels* kernels;
    bool (*runs_here)();
};

bool always() { return true; }

#if defined(MOESTREAM_X86)
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

bool has_avxvnni() { return has_avx2() && __builtin_cpu_supports("avxvnni"); }

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

// The best first.
constexpr Entry kEntries[] = {
#if defined(MOESTREAM_X86)
    {&kAvx512Kernels, has_avx512},
    {&kAvxVnniKernels, has_avxvnni},
    {&kAvx2Kernels, has_avx2},
#endif
#if defined(MOESTREAM_NEON)
    {&kNeonI8mmKernels, [] { return has_i8mm() && has_dot_product(); }},
    {&kNeonKernels, has_dot_product},
#endif
    {&kScalarKernels, always},
};

}  // namespace

const Kernels* choose_kernels(const char* name, std::vector<const char*>* available) {
    const Kernels* chosen = nullptr;
    for (const Entry& entry : kEntries) {
        if (!entry.runs_here()) continue;
        available->push_back(entry.kernels->name);
        const bool wanted = name == nullptr || std::strcmp(name, entry.kernels->name) == 0;
        if (chosen == nullptr && wanted) chosen = entry.kernels;
    }
    return chosen;
}

}  // namespace moestream
