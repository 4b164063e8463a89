// What is different on macOS when mapped bytes are brought into memory.
//
// Untested here: there is no such machine. Sources: fcntl(2), madvise(2) and mincore(2) of macOS;
// xnu bsd/sys/fcntl.h (struct radvisory: the count is an int, so one request is below 2 GiB).
#pragma once

#if defined(__APPLE__)

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace moestream {

inline constexpr size_t kAdviseStep = size_t{8} << 20;
inline constexpr unsigned char kInCore = MINCORE_INCORE;
using Incore = char;  // what mincore fills

// Ask for the bytes ahead of use. madvise(MADV_WILLNEED) does little on macOS; F_RDADVISE reads.
inline void advise(int fd, int64_t offset, uint8_t*, size_t n) {
    for (size_t done = 0; done < n; done += kAdviseStep) {
        radvisory request{};
        request.ra_offset = static_cast<off_t>(offset + static_cast<int64_t>(done));
        request.ra_count = static_cast<int>(std::min(kAdviseStep, n - done));
        if (fcntl(fd, F_RDADVISE, &request) != 0) return;  // only advice
    }
}

// There is no MADV_POPULATE_READ: the caller touches the pages.
inline bool populate(uint8_t*, size_t, int*) { return false; }

// Threads that woke interrupt others soon enough.
inline void wake_at_once() {}

}  // namespace moestream

#endif
