// What is written for macOS, run on another system against stand-ins for the calls that only macOS
// has: advice to read, which bytes are asked for, and what sysctl is asked of the processor.
//
// Knows what the manual pages say, not what macOS does; where there is macOS it is not built.
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

// From here on the sources see macOS; the headers above are the system's own.
#undef __linux__
#define __APPLE__ 1
#define F_RDADVISE 44
#define MINCORE_INCORE 0x1

struct radvisory {
    off_t ra_offset;
    int ra_count;
};

namespace {

std::vector<radvisory> advised;
bool refused = false;
std::map<std::string, int> sysctls;

int fake_fcntl(int, int command, radvisory* request) {
    if (command == F_RDADVISE) advised.push_back(*request);
    return refused ? -1 : 0;
}

// Pages are there from the second on.
int fake_mincore(void*, size_t n, char* in_core) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    for (size_t i = 0; i * page < n; ++i) in_core[i] = i == 0 ? 0x10 : 0x11;
    return 0;
}

}  // namespace

int sysctlbyname(const char* name, void* value, size_t* size, void*, size_t) {
    const auto found = sysctls.find(name);
    if (found == sysctls.end() || *size != sizeof(int)) return -1;
    std::memcpy(value, &found->second, sizeof(int));
    return 0;
}

#define fcntl fake_fcntl
#define mincore fake_mincore
#include "core/threads.cpp"
#include "io/io.cpp"
#undef __aarch64__
#define __aarch64__ 1
#include "core/arm_features.h"

namespace moestream::check {
namespace {

int failures = 0;

void expect(bool held, const char* what) {
    if (held) return;
    std::printf("not so: %s\n", what);
    ++failures;
}

void check_advice() {
    constexpr size_t kStep = size_t{8} << 20;
    advised.clear();
    advise(3, 4096, nullptr, 2 * kStep + 5);
    expect(advised.size() == 3, "three requests for two steps and a bit");
    expect(advised[2].ra_offset == static_cast<off_t>(4096 + 2 * kStep), "they follow one another");
    expect(advised[1].ra_count == static_cast<int>(kStep), "one is of a step");
    expect(advised[2].ra_count == 5, "the last is of what is left");
    advised.clear();
    refused = true;
    advise(3, 0, nullptr, 4 * kStep);
    expect(advised.size() == 1, "what is refused is not asked for again");
    refused = false;
}

void check_page_in() {
    const char* folder = std::getenv("TMPDIR");
    std::string path = std::string(folder != nullptr ? folder : "/tmp") + "/check_darwin.XXXXXX";
    const int file = mkstemp(path.data());
    unlink(path.c_str());
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t size = 4 * page;
    if (file < 0 || ftruncate(file, static_cast<off_t>(size)) != 0) {
        std::perror("no temporary file");
        std::exit(2);
    }
    auto* mapped = static_cast<uint8_t*>(mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0));
    advised.clear();
    expect(page_in(file, static_cast<int64_t>(page) + 10, mapped + page + 10, page) == 0,
           "bytes are paged in");
    expect(advised.size() == 1 && advised[0].ra_offset == static_cast<off_t>(page),
           "advice begins with the page");
    expect(advised[0].ra_count == static_cast<int>(page) + 10, "and ends with the bytes");
    expect(page_in(file, static_cast<int64_t>(size) - 1, mapped + size - 1, 2) == kShortRead,
           "a file that ends too soon is told");
    expect(!all_resident(mapped, 2), "a page that is not in core is seen");
    munmap(mapped, size);
    close(file);
}

void check_processor() {
    sysctls = {{"hw.perflevel0.physicalcpu", 4}, {"hw.physicalcpu", 8}};
    expect(physical_cores() == 4, "performance cores alone count");
    sysctls = {{"hw.physicalcpu", 8}};
    expect(physical_cores() == 8, "all count where there is one kind");
    sysctls = {};
    expect(physical_cores() == 1, "there is a core");
    expect(!has_dot_product() && !has_i8mm(), "nothing is claimed that is not told");
    sysctls = {{"hw.optional.arm.FEAT_DotProd", 1}, {"hw.optional.arm.FEAT_I8MM", 0}};
    expect(has_dot_product() && !has_i8mm(), "an M1 has the one");
    sysctls["hw.optional.arm.FEAT_I8MM"] = 1;
    expect(has_i8mm(), "an M2 has both");
}

}  // namespace
}  // namespace moestream::check

int main() {
    moestream::check::check_advice();
    moestream::check::check_page_in();
    moestream::check::check_processor();
    std::printf("darwin: %d not so\n", moestream::check::failures);
    return moestream::check::failures == 0 ? 0 : 1;
}
