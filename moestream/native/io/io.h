// Bytes from a file into memory, by the two ways there are: read and page in.
//
// Owns the differences between systems. Knows nothing of queues, threads or experts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moestream {

// The file ended before the bytes that were needed: it was truncated after it was opened.
inline constexpr int kShortRead = -1;

// Read n bytes at `offset` into `to`, of which `needed` must be there: the rest is what O_DIRECT
// reads beyond them, which may lie past the end. 0, an errno, or kShortRead.
int read_at(int fd, uint8_t* to, size_t n, int64_t offset, size_t needed);

// Bring n mapped bytes, found at `offset` of fd, into memory and into this process's page table,
// so that touching them will not wait. 0, an errno, or kShortRead.
int page_in(int fd, int64_t offset, uint8_t* address, size_t n);

// Whether all pages of a mapping that hold these bytes are in memory.
bool all_resident(const uint8_t* address, size_t n);

// Keep pages from being evicted. Locking reaches outward to whole pages; unlocking only inward,
// because the page at either end may hold a neighbour's bytes. 0 or an errno.
int lock_pages(const uint8_t* address, size_t n);
int unlock_pages(const uint8_t* address, size_t n);

// What a thread does first that will read.
void begin_reading_thread();

}  // namespace moestream
