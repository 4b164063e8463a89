// The callers' side of the reader: its queues, and what has become of what is in them.
#include "io/reader.h"

#include <unistd.h>

#include <algorithm>

#include "io/io.h"

namespace moestream {

using std::chrono::nanoseconds;
using std::chrono::steady_clock;

Reader::Reader(std::vector<ReadRange> ranges, size_t keys, Options options)
    : ranges_(std::move(ranges)),
      keys_(keys),
      ranges_per_key_(keys ? ranges_.size() / keys : 0),
      options_(options),
      owner_(getpid()),
      states_(std::make_unique<std::atomic<uint8_t>[]>(keys)),
      jobs_(keys) {
    threads_.reserve(options.threads);
    try {
        for (int i = 0; i < options.threads; ++i) threads_.emplace_back([this] { work(); });
    } catch (...) {  // the system has no more: those that were made must end before they are dropped
        close();
        throw;
    }
}

Reader::~Reader() { close(); }

void Reader::close() {
    if (closed_.exchange(true)) return;  // by another thread, maybe at this moment
    if (getpid() != owner_) {
        for (std::thread& thread : threads_) thread.detach();
        return;
    }
    {
        std::lock_guard lock(mutex_);
        stopping_ = true;
        demand_.clear();
        speculative_.clear();
    }
    work_.notify_all();
    done_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void Reader::encode(std::vector<SlotMatrix> matrices, size_t staging_bytes) {
    std::lock_guard lock(mutex_);
    matrices_ = std::move(matrices);
    staging_bytes_ = staging_bytes;
}

void Reader::submit(uint32_t key, uint8_t* destination, bool speculative, uint64_t generation) {
    {
        std::lock_guard lock(mutex_);
        Job& job = jobs_[key];
        switch (state(key)) {
            case ReadState::Ready:
                return;
            case ReadState::Queued:
            case ReadState::Reading:
                if (speculative || !job.speculative) return;
                job.speculative = false;
                if (const auto at = std::find(speculative_.begin(), speculative_.end(), key);
                    at != speculative_.end()) {
                    speculative_.erase(at);
                    demand_.push_back(key);
                }
                break;
            default:
                job = Job{};
                job.destination = destination;
                job.generation = generation;
                job.speculative = speculative;
                set_state(key, ReadState::Queued);
                if (speculative) {
                    queue_guess(key);
                } else {
                    demand_.push_back(key);
                }
        }
    }
    // One is enough: a thread that begins a piece wakes the next if there is more.
    work_.notify_one();
}

// Behind those that are wanted as soon or sooner, and behind one that was begun.
void Reader::queue_guess(uint32_t key) {
    const auto before = std::find_if(speculative_.rbegin(), speculative_.rend(), [&](uint32_t other) {
        return jobs_[other].generation <= jobs_[key].generation ||
               state(other) == ReadState::Reading;
    });
    speculative_.insert(before.base(), key);
}

std::vector<uint32_t> Reader::cancel_before(uint64_t generation) {
    std::vector<uint32_t> cancelled;
    std::lock_guard lock(mutex_);
    std::erase_if(speculative_, [&](uint32_t key) {
        if (jobs_[key].generation >= generation || state(key) != ReadState::Queued) return false;
        set_state(key, ReadState::Absent);
        cancelled.push_back(key);
        return true;
    });
    counters_.cancelled += cancelled.size();
    return cancelled;
}

void Reader::forget(uint32_t key) {
    std::lock_guard lock(mutex_);
    if (state(key) == ReadState::Ready || state(key) == ReadState::Failed) {
        set_state(key, ReadState::Absent);
    }
}

bool Reader::wait_any(const std::vector<uint32_t>& keys, nanoseconds timeout) {
    std::unique_lock lock(mutex_);
    return done_.wait_for(lock, timeout, [&] {
        return stopping_ || std::any_of(keys.begin(), keys.end(), [&](uint32_t key) {
            return state(key) == ReadState::Ready || state(key) == ReadState::Failed;
        });
    });
}

int Reader::error(uint32_t key) {
    std::lock_guard lock(mutex_);
    return jobs_[key].error;
}

bool Reader::resident(uint32_t key) const {
    const ReadRange* range = &ranges_[key * ranges_per_key_];
    return std::all_of(range, range + ranges_per_key_, [](const ReadRange& r) {
        return all_resident(reinterpret_cast<const uint8_t*>(r.place), r.n_bytes);
    });
}

int Reader::lock(uint32_t key, bool on) {
    const ReadRange* range = &ranges_[key * ranges_per_key_];
    for (size_t i = 0; i < ranges_per_key_; ++i) {
        const auto* address = reinterpret_cast<const uint8_t*>(range[i].place);
        const int error = on ? lock_pages(address, range[i].n_bytes)
                             : unlock_pages(address, range[i].n_bytes);
        if (error == 0) continue;
        if (on) {  // all of it or nothing: nobody would let go of a part
            for (size_t j = 0; j < i; ++j) {
                unlock_pages(reinterpret_cast<const uint8_t*>(range[j].place), range[j].n_bytes);
            }
        }
        return error;
    }
    return 0;
}

ReadCounters Reader::counters() {
    std::lock_guard lock(mutex_);
    ReadCounters now = counters_;
    if (under_way_ > 0) now.busy_ns += (steady_clock::now() - busy_since_).count();
    return now;
}

void Reader::inject(int error, nanoseconds delay) {
    injected_error_ = error;
    injected_delay_ns_ = delay.count();
}

}  // namespace moestream
