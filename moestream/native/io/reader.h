// Background reads of experts: a demand queue, a speculative queue, threads that empty them.
//
// Owns jobs, their order and their states. A job brings the byte ranges of one key (an expert of
// a layer) into memory; large ranges are cut into pieces, so that several threads keep the disk's
// queue full for one expert. Knows nothing of routing, residency or budgets: its caller says
// what to read, where to, and how urgently.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/mlx_encode.h"

namespace moestream {

enum class ReadState : uint8_t { Absent = 0, Queued = 1, Reading = 2, Ready = 3, Failed = 4 };

// One row of the table of ranges; int64 throughout, because Python fills it.
struct ReadRange {
    int64_t fd;
    int64_t offset;   // in the file
    int64_t n_bytes;  // 0 for no range
    int64_t place;    // within the destination; when paging in, the mapped address
    int64_t needed;   // bytes of n_bytes that must be there, see read_at
};

// Where one matrix of a key goes once it is read, laid out for MLX; int64, as in ReadRange.
// A slot's codes begin at `codes + slot * codes_stride`, and so on.
struct SlotMatrix {
    int64_t source;  // within what was read
    int64_t type, bits, rows, columns;
    int64_t codes, codes_stride;
    int64_t scales, scales_stride;
    int64_t biases, biases_stride;
};

inline constexpr size_t kSlotMatrices = 3;  // gate, up and down

struct ReadCounters {
    uint64_t demand_bytes = 0;
    uint64_t speculative_bytes = 0;
    uint64_t pieces = 0;
    uint64_t cancelled = 0;  // jobs
    uint64_t busy_ns = 0;    // with at least one read under way
    uint64_t deepest = 0;    // most pieces under way at once
};

class Reader {
  public:
    struct Options {
        int threads;
        size_t piece_bytes;
        bool mapped;  // page in instead of reading
    };

    Reader(std::vector<ReadRange> ranges, size_t keys, Options options);
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    // From now on, lay out what was read in slots (keys * kSlotMatrices of them): destinations are
    // slot numbers. What is being read lies in buffers of so many bytes until it is whole.
    void encode(std::vector<SlotMatrix> matrices, size_t staging_bytes);

    // Queue a key that is Absent or Failed, to be read to `destination`. One that is already
    // under way is moved to the demand queue if this is demand; one that is Ready is left.
    void submit(uint32_t key, uint8_t* destination, bool speculative, uint64_t generation);
    // Take back speculative jobs of generations before this one that have not begun.
    std::vector<uint32_t> cancel_before(uint64_t generation);
    // Forget a key whose memory is to be used for another: Ready or Failed to Absent.
    void forget(uint32_t key);
    // True as soon as one of the keys is Ready or Failed, false if none is within the time.
    bool wait_any(const std::vector<uint32_t>& keys, std::chrono::nanoseconds timeout);
    // Stop the threads; jobs that have not begun are dropped.
    void close();

    size_t keys() const { return keys_; }
    const std::atomic<uint8_t>* states() const { return states_.get(); }
    ReadState state(uint32_t key) const {
        return static_cast<ReadState>(states_[key].load(std::memory_order_acquire));
    }
    int error(uint32_t key);
    bool resident(uint32_t key) const;  // of a mapped key
    int lock(uint32_t key, bool on);    // of a mapped key; 0 or an errno
    ReadCounters counters();
    bool closed() const { return closed_; }

    // For tests: let every read from now on fail with `error`, or take this much longer.
    void inject(int error, std::chrono::nanoseconds delay);

  private:
    struct Job {
        uint8_t* destination = nullptr;
        uint64_t generation = 0;
        uint8_t* staging = nullptr;  // what is read, where it is to be laid out anew
        size_t range = 0;   // next piece: of this range ...
        int64_t begin = 0;  // ... from here
        int pieces = 0;     // under way
        int error = 0;
        bool speculative = false;
    };
    struct Piece {
        uint32_t key;
        const ReadRange* range;
        int64_t begin, end;
        bool speculative;
    };

    void queue_guess(uint32_t key);
    void work();
    bool may_begin() const;
    Piece next_piece();
    bool exhausted(uint32_t key, const Job& job) const;
    int perform(const Piece& piece, uint8_t* destination) const;
    void encode_slot(uint32_t key, const Job& job) const;
    uint8_t* take_staging();
    // Note that a piece is done; true if it was the key's last.
    bool finish(const Piece& piece, int error);
    void settle(uint32_t key);
    void set_state(uint32_t key, ReadState state) {
        states_[key].store(static_cast<uint8_t>(state), std::memory_order_release);
    }

    const std::vector<ReadRange> ranges_;
    const size_t keys_, ranges_per_key_;
    const Options options_;
    const int owner_;  // process: a fork's child has none of the threads
    std::unique_ptr<std::atomic<uint8_t>[]> states_;

    std::mutex mutex_;
    std::condition_variable work_, done_;
    std::vector<Job> jobs_;  // by key
    struct Free {
        void operator()(uint8_t* p) const;
    };
    std::vector<SlotMatrix> matrices_;
    size_t staging_bytes_ = 0;
    std::vector<std::unique_ptr<uint8_t, Free>> staging_;  // all of them
    std::vector<uint8_t*> free_staging_;
    std::deque<uint32_t> demand_, speculative_;
    int under_way_ = 0, speculative_under_way_ = 0;
    bool stopping_ = false;
    std::atomic<bool> closed_{false};
    ReadCounters counters_;
    std::chrono::steady_clock::time_point busy_since_;
    std::atomic<int> injected_error_{0};
    std::atomic<int64_t> injected_delay_ns_{0};
    std::vector<std::thread> threads_;
};

}  // namespace moestream
