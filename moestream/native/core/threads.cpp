#include "core/threads.h"

#include <pthread.h>

#include <chrono>
#include <cstdio>
#include <set>
#include <string>
#include <utility>

#if defined(__linux__)
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace moestream {
namespace {

// Longer than Python takes from one operation to the next, and from a router to its experts where
// some are read: a thread that sleeps by then is woken for each layer, which takes as long again.
constexpr std::chrono::microseconds kSpin{250};

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");
#endif
}

// Ask until it is so, and say whether it became so within kSpin.
template <class Ask>
bool spin_until(const Ask& ask) {
    constexpr int kAsked = 64;  // between two looks at the clock
    const auto until = std::chrono::steady_clock::now() + kSpin;
    do {
        for (int i = 0; i < kAsked; ++i) {
            if (ask()) return true;
            pause();
        }
    } while (std::chrono::steady_clock::now() < until);
    return false;
}

// Counts forks: a child has the pool's memory but none of its threads.
std::atomic<uint32_t> fork_generation{0};

void watch_forks() {
    static const int once = pthread_atfork(nullptr, nullptr, [] { ++fork_generation; });
    static_cast<void>(once);
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
    watch_forks();
    generation_ = fork_generation.load();
    workers_.reserve(threads - 1);
    try {
        for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (...) {  // the system has no more: those that were made must end before they are dropped
        stop();
        throw;
    }
}

ThreadPool::~ThreadPool() {
    if (forked()) {
        for (std::thread& worker : workers_) worker.detach();
        return;
    }
    stop();
}

void ThreadPool::stop() {
    stopping_.store(true, std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

bool ThreadPool::forked() const {
    return generation_ != fork_generation.load(std::memory_order_relaxed);
}

void ThreadPool::run(int count, Call call, const void* data) {
    call_ = call;
    data_ = data;
    count_ = count;
    done_.store(0, std::memory_order_relaxed);
    left_.store(count, std::memory_order_release);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    take_tasks(0);
    // Only tasks are waited for: a worker that has not woken by now is not needed any more.
    const auto all_done = [&] { return done_.load(std::memory_order_acquire) == count; };
    if (spin_until(all_done)) return;
    for (int done; (done = done_.load(std::memory_order_acquire)) != count;) {
        done_.wait(done, std::memory_order_acquire);
    }
}

void ThreadPool::take_tasks(int thread) {
    // Counting down makes a late claim, after the last task, harmless: it touches nothing else.
    for (int left; (left = left_.fetch_sub(1, std::memory_order_acq_rel)) > 0;) {
        const int count = count_;
        call_(data_, count - left, thread);
        done_.fetch_add(1, std::memory_order_acq_rel);
        if (thread != 0) done_.notify_one();
    }
}

uint32_t ThreadPool::await_change(uint32_t seen) const {
    uint32_t now = seen;
    const auto changed = [&] { return (now = epoch_.load(std::memory_order_acquire)) != seen; };
    if (spin_until(changed)) return now;
    while (!changed()) epoch_.wait(seen, std::memory_order_acquire);
    return now;
}

void ThreadPool::work(int thread) {
    for (uint32_t seen = 0;;) {
        seen = await_change(seen);
        if (stopping_.load(std::memory_order_relaxed)) return;
        take_tasks(thread);
    }
}

#if defined(__linux__)

int physical_cores() {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
    std::set<std::pair<int, int>> cores;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        int ids[2] = {-1, cpu};  // package, core; a lone CPU where the system does not say
        const char* names[2] = {"physical_package_id", "core_id"};
        for (int i = 0; i < 2; ++i) {
            const std::string path = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                                     "/topology/" + names[i];
            if (std::FILE* file = std::fopen(path.c_str(), "r")) {
                if (std::fscanf(file, "%d", &ids[i]) != 1) ids[i] = i == 0 ? -1 : cpu;
                std::fclose(file);
            }
        }
        cores.insert({ids[0], ids[1]});
    }
    return cores.empty() ? 1 : static_cast<int>(cores.size());
}

#elif defined(__APPLE__)

int physical_cores() {
    // Performance cores where there are two kinds: the slow ones hold the others up.
    for (const char* name : {"hw.perflevel0.physicalcpu", "hw.physicalcpu"}) {
        int value = 0;
        size_t size = sizeof value;
        if (sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value > 0) return value;
    }
    return 1;
}

#else

int physical_cores() {
    const unsigned cores = std::thread::hardware_concurrency();
    return cores ? static_cast<int>(cores) : 1;
}

#endif

}  // namespace moestream
