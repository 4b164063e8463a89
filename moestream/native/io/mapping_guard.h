// Mapped files that are cut short while they are read: zeros and a count, not the process's end.
//
// A page of a mapping that its file no longer reaches raises SIGBUS. Where the address lies in a
// watched mapping, the handler puts a page of zeros there, so that what was under way comes to its
// end; whoever asked for it is to look at the count and throw the result away. Elsewhere the
// signal does what it did before.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moestream {

// A number for the mapping, or -1 when no more can be watched.
int watch_mapping(const void* begin, size_t bytes);

// Pages that were missing since it is watched.
uint64_t missing_pages(int mapping);

// To be called before the memory is unmapped.
void forget_mapping(int mapping);

}  // namespace moestream
