#include "io/mapping_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

namespace moestream {
namespace {

// Read by the handler on any thread: `end` is 0 where there is none.
struct Mapping {
    std::atomic<uintptr_t> begin{0}, end{0};
    std::atomic<uint64_t> missing{0};
};

constexpr int kMappings = 256;
Mapping mappings[kMappings];
std::mutex changing;
uintptr_t page_bytes;
struct sigaction handler_before;

void on_bus_error(int, siginfo_t* info, void*) {
    const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    for (Mapping& mapping : mappings) {
        if (address >= mapping.end.load() || address < mapping.begin.load()) continue;
        void* page = reinterpret_cast<void*>(address / page_bytes * page_bytes);
        constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        if (mmap(page, page_bytes, PROT_READ, kFlags, -1, 0) == MAP_FAILED) break;
        mapping.missing.fetch_add(1);
        return;
    }
    // Not ours: the instruction runs again, and meets what was there before us.
    sigaction(SIGBUS, &handler_before, nullptr);
}

void install() {
    page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGBUS, &action, &handler_before);
}

}  // namespace

int watch_mapping(const void* begin, size_t bytes) {
    const std::lock_guard lock(changing);
    static const bool installed = (install(), true);
    static_cast<void>(installed);
    for (int i = 0; i < kMappings; ++i) {
        if (mappings[i].end.load() != 0) continue;
        const auto first = reinterpret_cast<uintptr_t>(begin);
        mappings[i].missing.store(0);
        mappings[i].begin.store(first);
        mappings[i].end.store(first + bytes);
        return i;
    }
    return -1;
}

uint64_t missing_pages(int mapping) {
    return mapping >= 0 && mapping < kMappings ? mappings[mapping].missing.load() : 0;
}

void forget_mapping(int mapping) {
    if (mapping < 0 || mapping >= kMappings) return;
    const std::lock_guard lock(changing);
    mappings[mapping].end.store(0);
    mappings[mapping].begin.store(0);
}

}  // namespace moestream
