// The grids of the codebook types, as kernels look them up: a row of four or eight bytes at once.
//
// Data only: it may be shared by units of different instruction sets.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/grid_tables.h"

namespace moestream {

// The number that four hexadecimal digits are.
constexpr uint32_t read_row(const char* digits) {
    uint32_t packed = 0;
    for (int i = 0; i < 4; ++i) {
        const char digit = digits[i];
        packed = packed << 4 | static_cast<uint32_t>(digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    return packed;
}

// Rows of `values` bytes, each the level whose number stands in `bits` bits of the packed row.
template <class Row, size_t Size, size_t Levels>
constexpr auto expand_grid(const char (&rows)[Size], const uint8_t (&levels)[Levels]) {
    constexpr int kBits = Levels <= 4 ? 2 : 3, kValues = sizeof(Row);
    std::array<Row, Size / 4> grid{};
    for (size_t row = 0; row < grid.size(); ++row) {
        const uint32_t packed = read_row(rows + 4 * row);
        for (int i = 0; i < kValues; ++i) {
            const uint32_t level = packed >> (kBits * i) & ((1u << kBits) - 1);
            grid[row] |= static_cast<Row>(levels[level]) << (8 * i);
        }
    }
    return grid;
}

inline constexpr uint8_t kIq2Levels[] = {8, 25, 43};
inline constexpr uint8_t kIq3xxsLevels[] = {4, 12, 20, 28, 36, 44, 52, 62};
inline constexpr uint8_t kIq3sLevels[] = {1, 3, 5, 7, 9, 11, 13, 15};
// Eight times -1, 0 and 1, and 16 more: what is added for a block's shift keeps them positive.
inline constexpr uint8_t kIq1Levels[] = {8, 16, 24};

alignas(64) inline constexpr auto kIq2xxsGrid = expand_grid<uint64_t>(kIq2XxsRows, kIq2Levels);
alignas(64) inline constexpr auto kIq2xsGrid = expand_grid<uint64_t>(kIq2XsRows, kIq2Levels);
alignas(64) inline constexpr auto kIq2sGrid = expand_grid<uint64_t>(kIq2SRows, kIq2Levels);
alignas(64) inline constexpr auto kIq3xxsGrid = expand_grid<uint32_t>(kIq3XxsRows, kIq3xxsLevels);
alignas(64) inline constexpr auto kIq3sGrid = expand_grid<uint32_t>(kIq3SRows, kIq3sLevels);
alignas(64) inline constexpr auto kIq1Grid = expand_grid<uint64_t>(kIq1SRows, kIq1Levels);

// The grid with one more in all bytes, then again with one less: with a shift on top of the three
// high bits of a row's number, as IQ1_M's nibbles have it, both are looked up at once.
constexpr auto shifted_grid(const auto& rows) {
    constexpr uint64_t kOnes = 0x0101010101010101;
    std::array<uint64_t, 2 * std::tuple_size_v<std::remove_cvref_t<decltype(rows)>>> grid{};
    for (size_t row = 0; row < rows.size(); ++row) {
        grid[row] = rows[row] + kOnes;
        grid[rows.size() + row] = rows[row] - kOnes;
    }
    return grid;
}

alignas(64) inline constexpr auto kIq1ShiftedGrid = shifted_grid(kIq1Grid);

}  // namespace moestream
