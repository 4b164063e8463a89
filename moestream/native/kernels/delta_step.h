// One token's step of the gated delta rule, as the unit that includes this compiles it.
//
// Written over eight lanes, so that every instruction set adds up in the same order: column i in
// lane i % 8, the lanes as sum_lanes does. A head's state is read and written once.
#pragma once

#include <cstring>

#include "core/kernels.h"
#include "core/scalar_math.h"

namespace moestream {
namespace {

using Lanes = float __attribute__((vector_size(32)));

inline constexpr int kDeltaRows = 4;

// Four rows at once, whose sums do not wait for each other.
template <bool ByColumn>
inline void delta_rows(const DeltaStep& step, int first) {
    const int dim = step.dim;
    float* rows[kDeltaRows];
    Lanes sums[kDeltaRows] = {};
    for (int r = 0; r < kDeltaRows; ++r) {
        rows[r] = step.state + static_cast<size_t>(first + r) * dim;
    }
    Lanes row, with, kept = Lanes{} + step.keep;
    for (int i = 0; i < dim; i += 8) {
        std::memcpy(&with, step.k + i, sizeof with);
        if constexpr (ByColumn) std::memcpy(&kept, step.keeps + i, sizeof kept);
        for (int r = 0; r < kDeltaRows; ++r) {
            std::memcpy(&row, rows[r] + i, sizeof row);
            row *= kept;
            sums[r] += row * with;
            std::memcpy(rows[r] + i, &row, sizeof row);
        }
    }
    float lanes[8], change[kDeltaRows];
    for (int r = 0; r < kDeltaRows; ++r) {
        std::memcpy(lanes, &sums[r], sizeof lanes);
        change[r] = (step.v[first + r] - sum_lanes(lanes)) * step.write;
        sums[r] = Lanes{};
    }
    Lanes query;
    for (int i = 0; i < dim; i += 8) {
        std::memcpy(&with, step.k + i, sizeof with);
        std::memcpy(&query, step.q + i, sizeof query);
        for (int r = 0; r < kDeltaRows; ++r) {
            std::memcpy(&row, rows[r] + i, sizeof row);
            row += with * change[r];
            sums[r] += row * query;
            std::memcpy(rows[r] + i, &row, sizeof row);
        }
    }
    for (int r = 0; r < kDeltaRows; ++r) {
        std::memcpy(lanes, &sums[r], sizeof lanes);
        step.out[first + r] = sum_lanes(lanes);
    }
}

inline void delta_step(const DeltaStep& step) {
    const auto rows = step.keeps == nullptr ? delta_rows<false> : delta_rows<true>;
    for (int first = 0; first < step.dim; first += kDeltaRows) rows(step, first);
}

}  // namespace
}  // namespace moestream
