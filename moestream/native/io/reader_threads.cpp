// The threads' side of the reader: taking pieces from the queues, reading them, laying them out.
#include <algorithm>
#include <cerrno>
#include <new>

#include "io/io.h"
#include "io/reader.h"

namespace moestream {

using std::chrono::nanoseconds;
using std::chrono::steady_clock;

void Reader::Free::operator()(uint8_t* p) const { ::operator delete(p, std::align_val_t{4096}); }

// A page-aligned buffer for one key. There are at most a few more than threads: a key's pieces are
// taken one after another. Null where there is no memory for it.
uint8_t* Reader::take_staging() {
    if (free_staging_.empty()) {
        try {
            staging_.emplace_back(
                static_cast<uint8_t*>(::operator new(staging_bytes_, std::align_val_t{4096})));
        } catch (const std::bad_alloc&) {  // not to be thrown in a thread: it would end the process
            return nullptr;
        }
        return staging_.back().get();
    }
    uint8_t* staging = free_staging_.back();
    free_staging_.pop_back();
    return staging;
}

void Reader::encode_slot(uint32_t key, const Job& job) const {
    const auto slot = static_cast<int64_t>(reinterpret_cast<uintptr_t>(job.destination));
    for (size_t i = 0; i < kSlotMatrices; ++i) {
        const SlotMatrix& m = matrices_[key * kSlotMatrices + i];
        const auto type = static_cast<Type>(m.type);
        mlx_encode(type, static_cast<int>(m.bits), job.staging + m.source,
                   layout_of(type).row_bytes(static_cast<int>(m.columns)),
                   static_cast<int>(m.rows), static_cast<int>(m.columns),
                   {reinterpret_cast<uint8_t*>(m.codes + slot * m.codes_stride),
                    reinterpret_cast<uint8_t*>(m.scales + slot * m.scales_stride),
                    reinterpret_cast<uint8_t*>(m.biases + slot * m.biases_stride)});
    }
}

bool Reader::may_begin() const {
    if (!demand_.empty()) return true;
    // A demand that comes now finds a thread, and a disk, that is not full of guesses.
    const int most = std::max(1, options_.threads - 1);
    return !speculative_.empty() && speculative_under_way_ < most;
}

bool Reader::exhausted(uint32_t key, const Job& job) const {
    if (job.error != 0) return true;
    for (size_t i = job.range; i < ranges_per_key_; ++i) {
        if (ranges_[key * ranges_per_key_ + i].n_bytes > (i == job.range ? job.begin : 0)) {
            return false;
        }
    }
    return true;
}

Reader::Piece Reader::next_piece() {
    std::deque<uint32_t>& queue = demand_.empty() ? speculative_ : demand_;
    const uint32_t key = queue.front();
    Job& job = jobs_[key];
    const ReadRange* range = &ranges_[key * ranges_per_key_ + job.range];
    while (range->n_bytes <= job.begin) ++range, ++job.range, job.begin = 0;
    const int64_t step = static_cast<int64_t>(options_.piece_bytes);
    // A short last piece goes along with the one before it.
    const int64_t left = range->n_bytes - job.begin;
    const int64_t end = left < step + step / 2 ? range->n_bytes : job.begin + step;
    const Piece piece{key, range, job.begin, end, job.speculative};
    job.begin = end;
    ++job.pieces;
    set_state(key, ReadState::Reading);
    if (exhausted(key, job)) queue.pop_front();
    return piece;
}

int Reader::perform(const Piece& piece, uint8_t* destination) const {
    for (int64_t left = injected_delay_ns_; left > 0 && !closed_; left -= 1'000'000) {
        std::this_thread::sleep_for(nanoseconds(std::min<int64_t>(left, 1'000'000)));
    }
    if (const int error = injected_error_; error != 0) return error;
    const ReadRange& range = *piece.range;
    const int fd = static_cast<int>(range.fd);
    const auto n = static_cast<size_t>(piece.end - piece.begin);
    if (options_.mapped) {
        return page_in(fd, range.offset + piece.begin,
                       reinterpret_cast<uint8_t*>(range.place) + piece.begin, n);
    }
    const int64_t needed = std::min(range.needed, piece.end) - piece.begin;
    return read_at(fd, destination + range.place + piece.begin, n, range.offset + piece.begin,
                   static_cast<size_t>(std::max<int64_t>(needed, 0)));
}

bool Reader::finish(const Piece& piece, int error) {
    Job& job = jobs_[piece.key];
    --job.pieces;
    ++counters_.pieces;
    (job.speculative ? counters_.speculative_bytes : counters_.demand_bytes) +=
        static_cast<uint64_t>(piece.end - piece.begin);
    if (error != 0 && job.error == 0) {
        job.error = error;
        std::erase(demand_, piece.key);
        std::erase(speculative_, piece.key);
    }
    return job.pieces == 0 && exhausted(piece.key, job);
}

void Reader::settle(uint32_t key) {
    Job& job = jobs_[key];
    if (job.staging != nullptr) free_staging_.push_back(job.staging);
    job.staging = nullptr;
    set_state(key, job.error ? ReadState::Failed : ReadState::Ready);
    done_.notify_all();
}

void Reader::work() {
    begin_reading_thread();
    std::unique_lock lock(mutex_);
    for (;;) {
        work_.wait(lock, [this] { return stopping_ || may_begin(); });
        if (stopping_) return;
        const Piece piece = next_piece();
        Job& job = jobs_[piece.key];
        if (!matrices_.empty() && job.staging == nullptr) {
            job.staging = take_staging();
            if (job.staging == nullptr) {
                if (finish(piece, ENOMEM)) settle(piece.key);
                continue;
            }
        }
        uint8_t* destination = job.staging != nullptr ? job.staging : job.destination;
        if (under_way_++ == 0) busy_since_ = steady_clock::now();
        counters_.deepest = std::max(counters_.deepest, static_cast<uint64_t>(under_way_));
        if (piece.speculative) ++speculative_under_way_;
        const bool more = may_begin();
        lock.unlock();
        if (more) work_.notify_one();
        const int error = perform(piece, destination);
        lock.lock();
        if (piece.speculative) --speculative_under_way_;
        if (--under_way_ == 0) {
            counters_.busy_ns += (steady_clock::now() - busy_since_).count();
        }
        if (!finish(piece, error)) continue;
        if (job.staging != nullptr && job.error == 0) {
            lock.unlock();
            encode_slot(piece.key, job);  // nobody else touches a job that is read and not settled
            lock.lock();
        }
        settle(piece.key);
    }
}

}  // namespace moestream
