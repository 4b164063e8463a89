// What is different on Linux when mapped bytes are brought into memory.
//
// Source: madvise(2) and mincore(2) of man-pages 6.
#pragma once

#if defined(__linux__)

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace moestream {

// One MADV_WILLNEED reads no more than the device's readahead window, whatever was asked.
inline constexpr size_t kAdviseStep = size_t{256} << 10;
inline constexpr unsigned char kInCore = 1;
using Incore = unsigned char;  // what mincore fills

inline void advise(int, int64_t, uint8_t* page, size_t n) {
    for (size_t done = 0; done < n; done += kAdviseStep) {
        madvise(page + done, std::min(kAdviseStep, n - done), MADV_WILLNEED);
    }
}

// True with *error set if the kernel has done it or failed; false if it knows no such call
// (before 5.14). Pages past the end of the file give EFAULT here, not the signal.
inline bool populate(uint8_t* page, size_t n, int* error) {
#if !defined(MADV_POPULATE_READ)
    constexpr int MADV_POPULATE_READ = 22;
#endif
    *error = 0;
    while (madvise(page, n, MADV_POPULATE_READ) != 0) {
        if (errno == EINVAL) return false;
        if (errno == EINTR || errno == EAGAIN) continue;
        *error = errno;
        break;
    }
    return true;
}

}  // namespace moestream

#endif
