// Which instructions beyond NEON this ARM machine has.
//
// Untested on macOS: there is no such machine here. Sources: the Linux kernel's
// Documentation/arch/arm64/elf_hwcaps.rst; Apple's "Determining instruction set characteristics".
#pragma once

#if defined(__aarch64__)

#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#endif

namespace moestream {

#if defined(__linux__)

inline bool has_dot_product() { return (getauxval(AT_HWCAP) & (1ul << 20)) != 0; }  // ASIMDDP
inline bool has_i8mm() { return (getauxval(AT_HWCAP2) & (1ul << 13)) != 0; }        // I8MM

#elif defined(__APPLE__)

inline bool has_feature(const char* name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

inline bool has_dot_product() { return has_feature("hw.optional.arm.FEAT_DotProd"); }
inline bool has_i8mm() { return has_feature("hw.optional.arm.FEAT_I8MM"); }

#else

inline bool has_dot_product() { return false; }
inline bool has_i8mm() { return false; }

#endif

}  // namespace moestream

#endif
