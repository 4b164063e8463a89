// A small pool of threads for loops of independent tasks.
//
// Owns waking, sharing out and waiting. Idle workers spin for a quarter of a millisecond, because
// the next operation of a decode step is that near, then sleep in the kernel: an engine that waits
// for its user takes no time at all. Knows nothing of what tasks compute.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace moestream {

class ThreadPool {
  public:
    explicit ThreadPool(int threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // Call body(task, thread) for tasks 0 to count, in any order, on any thread; the caller is
    // thread 0. Returns when all are done. Not to be called from two threads at once, nor from
    // within a body; bodies must not throw.
    template <class Body>
    void parallel_for(int count, const Body& body) {
        if (count <= 1 || alone_ || workers_.empty() || forked()) {
            for (int i = 0; i < count; ++i) body(i, 0);
            return;
        }
        run(count, [](const void* data, int task, int thread) {
            (*static_cast<const Body*>(data))(task, thread);
        }, &body);
    }

    // While one lives that is `on`, loops run on the caller: for work that takes less than to share.
    class Alone {
      public:
        Alone(ThreadPool& pool, bool on) : pool_(pool) { pool.alone_ = on; }
        ~Alone() { pool_.alone_ = false; }
        Alone(const Alone&) = delete;
        Alone& operator=(const Alone&) = delete;

      private:
        ThreadPool& pool_;
    };

  private:
    using Call = void (*)(const void* data, int task, int thread);

    bool forked() const;
    void stop();
    void run(int count, Call call, const void* data);
    void work(int thread);
    void take_tasks(int thread);
    uint32_t await_change(uint32_t seen) const;

    std::vector<std::thread> workers_;
    uint32_t generation_;
    bool alone_ = false;  // only the caller asks
    // Read only by threads that hold a task, which keeps the loop and these alive.
    Call call_ = nullptr;
    const void* data_ = nullptr;
    int count_ = 0;
    std::atomic<bool> stopping_{false};
    // Each on its own cache line: they are written by different threads at different times.
    alignas(64) std::atomic<uint32_t> epoch_{0};
    alignas(64) std::atomic<int> left_{0};
    alignas(64) std::atomic<int> done_{0};
};

// Physical cores that this process may run on, at least 1.
int physical_cores();

}  // namespace moestream
