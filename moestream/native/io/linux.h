// What is different on Linux when bytes are brought into memory.
//
// Source: madvise(2), mincore(2) and sched_setattr(2) of man-pages 6; Linux 6.12, sched/syscalls.c.
#pragma once

#if defined(__linux__)

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

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

// Have this thread run for a tenth of a millisecond at a time: since Linux 6.12 one that woke may
// then interrupt arithmetic, which otherwise keeps its core for some milliseconds. A read would
// wait for that twice. Older kernels know no such thing, and nothing is lost.
inline void wake_at_once() {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes{};
    static_assert(sizeof attributes == 48);  // SCHED_ATTR_SIZE_VER0
    const pid_t self = 0;
    if (syscall(SYS_sched_getattr, self, &attributes, sizeof attributes, 0) != 0) return;
    attributes.runtime = 100'000;
    syscall(SYS_sched_setattr, self, &attributes, 0);
}

}  // namespace moestream

#endif
