#include "io/io.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "io/darwin.h"
#include "io/linux.h"

namespace moestream {
namespace {

// O_DIRECT wants offsets, lengths and addresses in multiples of this, on every disk known.
constexpr size_t kDirectAlignment = 4096;

uintptr_t page_size() {
    static const auto size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    return size;
}

struct Pages {
    uint8_t* first;
    size_t n_bytes;
};

Pages outward(const uint8_t* address, size_t n) {
    const auto begin = reinterpret_cast<uintptr_t>(address) & ~(page_size() - 1);
    const uintptr_t end = reinterpret_cast<uintptr_t>(address) + n;
    return {reinterpret_cast<uint8_t*>(begin), end - begin};
}

bool file_holds(int fd, int64_t end) {
    struct stat status;
    return fstat(fd, &status) == 0 && status.st_size >= end;
}

}  // namespace

int read_at(int fd, uint8_t* to, size_t n, int64_t offset, size_t needed) {
    size_t done = 0;
    while (done < needed) {
        const ssize_t got = pread(fd, to + done, n - done, offset + static_cast<int64_t>(done));
        if (got < 0) {
            if (errno == EINTR) continue;
            return errno;
        }
        const size_t reached = done + static_cast<size_t>(got);
        if (reached >= needed) return 0;
        // Go on from an aligned place; at the end of the file that makes no headway.
        const size_t next = reached & ~(kDirectAlignment - 1);
        if (next <= done) return kShortRead;
        done = next;
    }
    return 0;
}

int page_in(int fd, int64_t offset, uint8_t* address, size_t n) {
    if (!file_holds(fd, offset + static_cast<int64_t>(n))) return kShortRead;
    const Pages pages = outward(address, n);
    advise(fd, offset - (address - pages.first), pages.first, pages.n_bytes);
    int error = 0;
    if (populate(pages.first, pages.n_bytes, &error)) return error == EFAULT ? kShortRead : error;
    for (size_t i = 0; i < pages.n_bytes; i += page_size()) {
        static_cast<void>(*static_cast<volatile const uint8_t*>(pages.first + i));
    }
    return 0;
}

bool all_resident(const uint8_t* address, size_t n) {
    constexpr size_t kMost = 256;  // pages asked about at once
    Incore in_core[kMost];
    const Pages pages = outward(address, n);
    for (size_t done = 0; done < pages.n_bytes; done += kMost * page_size()) {
        const size_t step = std::min(kMost * page_size(), pages.n_bytes - done);
        if (mincore(pages.first + done, step, in_core) != 0) return false;
        for (size_t i = 0; i * page_size() < step; ++i) {
            if ((in_core[i] & kInCore) == 0) return false;
        }
    }
    return true;
}

void begin_reading_thread() { wake_at_once(); }

int lock_pages(const uint8_t* address, size_t n) {
    const Pages pages = outward(address, n);
    return mlock(pages.first, pages.n_bytes) == 0 ? 0 : errno;
}

int unlock_pages(const uint8_t* address, size_t n) {
    const uintptr_t begin =
        (reinterpret_cast<uintptr_t>(address) + page_size() - 1) & ~(page_size() - 1);
    const uintptr_t end = (reinterpret_cast<uintptr_t>(address) + n) & ~(page_size() - 1);
    if (end <= begin) return 0;
    return munlock(reinterpret_cast<void*>(begin), end - begin) == 0 ? 0 : errno;
}

}  // namespace moestream
