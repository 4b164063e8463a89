// One token's step of Mamba-2, as the unit that includes this compiles it.
//
// Written over eight lanes, as delta_step.h is. A head's state is read and written once.
#pragma once

#include <cstring>

#include "core/kernels.h"
#include "core/scalar_math.h"
#include "kernels/delta_step.h"

namespace moestream {
namespace {

inline constexpr int kScanRows = 4;

// Four rows at once, whose sums do not wait for each other.
inline void scan_rows(const ScanStep& step, int first) {
    float* rows[kScanRows];
    Lanes sums[kScanRows] = {};
    for (int r = 0; r < kScanRows; ++r) {
        rows[r] = step.state + static_cast<size_t>(first + r) * step.columns;
    }
    Lanes row, written, read;
    for (int i = 0; i < step.columns; i += 8) {
        std::memcpy(&written, step.b + i, sizeof written);
        std::memcpy(&read, step.c + i, sizeof read);
        for (int r = 0; r < kScanRows; ++r) {
            std::memcpy(&row, rows[r] + i, sizeof row);
            row = row * step.keep + written * (step.x[first + r] * step.step);
            sums[r] += row * read;
            std::memcpy(rows[r] + i, &row, sizeof row);
        }
    }
    float lanes[8];
    for (int r = 0; r < kScanRows; ++r) {
        std::memcpy(lanes, &sums[r], sizeof lanes);
        step.out[first + r] = sum_lanes(lanes) + step.skip * step.x[first + r];
    }
}

inline void scan_step(const ScanStep& step) {
    for (int first = 0; first < step.rows; first += kScanRows) scan_rows(step, first);
}

}  // namespace
}  // namespace moestream
