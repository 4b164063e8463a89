// Attention tiles: every cache type, every size of head, queries that see all, some or nothing.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/attention.h"
#include "core/half.h"
#include "tests/support.h"

namespace moestream::check {
namespace {

struct Result {
    Guarded<float> maximum, sum, weighted;
    Result(int queries, int dim)
        : maximum(queries), sum(queries), weighted(static_cast<size_t>(queries) * dim) {
        std::fill_n(maximum.data(), queries, -std::numeric_limits<float>::infinity());
        std::fill_n(sum.data(), queries, 0.0f);
        std::fill_n(weighted.data(), weighted.size(), 0.0f);
    }
};

struct Case {
    int dim, queries, end;
    Type cache;
    Style style;
    int value_dim = 0;      // 0: as the keys
    bool in_keys = false;   // values are the first of the keys
    bool windowed = false;  // some of the first positions are hidden

    int values() const { return value_dim == 0 ? dim : value_dim; }
};

class Tile {
  public:
    Tile(const Case& c, Random& random)
        : case_(c),
          q_(floats(random, c.style, static_cast<size_t>(c.queries) * c.dim)),
          cache_{Guarded<uint8_t>(cache_bytes(c.dim)), Guarded<uint8_t>(cache_bytes(c.values()))} {
        fill(cache_[0].data(), floats(random, c.style, cached(c.dim)), random);
        fill(cache_[1].data(), floats(random, c.style, cached(c.values())), random);
        see(random);
    }

    // Choose what each query sees: from nothing to all; neighbours often see the same.
    void see(Random& random) {
        for (int i = 0; i < case_.queries; ++i) {
            const bool same = i > 0 && random.below(2) == 0;
            visible_[i] = same ? visible_[i - 1] : random.below(case_.end + 3) - 1;
            first_[i] = case_.windowed && !same ? random.below(std::max(0, visible_[i]) + 2) - 1
                        : same                  ? first_[i - 1]
                                                : 0;
        }
        cap_ = random.below(3) == 0 ? 2.0f : 0.0f;
        chosen_.resize(0);
        if (random.below(3) != 0) return;
        chosen_.resize(static_cast<size_t>(case_.queries) * kSplitPositions);
        for (uint8_t& byte : chosen_) byte = random.below(4) == 0;
    }

    // Add what the queries see to `result`.
    void run(const Kernels& kernels, const Result& result) const {
        const Guarded<float> scratch(
            attention_scratch_floats(case_.queries, case_.dim, case_.values()));
        AttentionTile tile{};
        tile.queries = case_.queries;
        for (int i = 0; i < case_.queries; ++i) {
            tile.q[i] = q_.data() + static_cast<size_t>(i) * case_.dim;
            tile.first[i] = first_[i];
            tile.visible[i] = visible_[i];
            if (!chosen_.empty()) tile.chosen[i] = chosen_.data() + i * kSplitPositions;
        }
        tile.dim = case_.dim;
        tile.value_dim = case_.values();
        tile.scale = 0.125f;
        tile.cap = cap_;
        tile.keys = {case_.cache, cache_[0].data()};
        if (!case_.in_keys) tile.values = {case_.cache, cache_[1].data()};
        tile.end = case_.end;
        tile.maximum = result.maximum.data();
        tile.sum = result.sum.data();
        tile.weighted = result.weighted.data();
        tile.scratch = scratch.data();
        kernels.attend(tile);
    }

  private:
    // The rows that may be read; those from `end` on must not show in any result.
    static constexpr int rows(int end) { return (end + kRowsRead - 1) / kRowsRead * kRowsRead; }
    size_t cached(int dim) const { return static_cast<size_t>(rows(case_.end)) * dim; }
    size_t cache_bytes(int dim) const {
        return rows(case_.end) * cache_row_bytes(case_.cache, dim);
    }

    // Values as the cache's type holds them, NaN from `end` on; of blocks, every 32nd as a scale of
    // random codes.
    void fill(uint8_t* cache, const Guarded<float>& values, Random& random) const {
        const size_t known = values.size() / rows(case_.end) * case_.end;
        for (size_t i = 0; i < values.size(); ++i) {
            const float value = i < known ? values[i] : std::numeric_limits<float>::quiet_NaN();
            if (case_.cache == Type::F32) {
                std::memcpy(cache + 4 * i, &value, 4);
            } else if (case_.cache == Type::F16) {
                const uint16_t half = float_to_half(value);
                std::memcpy(cache + 2 * i, &half, 2);
            } else if (i % kCacheBlock == 0) {
                const size_t bytes = cache_row_bytes(case_.cache, kCacheBlock);
                uint8_t* block = cache + i / kCacheBlock * bytes;
                const uint16_t half = float_to_half(value);
                std::memcpy(block, &half, 2);
                for (size_t k = 2; k < bytes; ++k) {
                    block[k] = static_cast<uint8_t>(random.below(256));
                }
            }
        }
    }

    Case case_;
    Guarded<float> q_;
    Guarded<uint8_t> cache_[2];
    int first_[kTileQueries], visible_[kTileQueries];
    float cap_ = 0;
    std::vector<uint8_t> chosen_;  // positions that queries see, or empty
};

// One split alone, then as a second one onto the first.
void check_case(const Kernels& kernels, const Case& c, Random& random) {
    begin_case("%s: attend, dim %d and %d, %d queries, %d positions, %s cache, %s", kernels.name,
               c.dim, c.values(), c.queries, c.end, layout_of(c.cache).name,
               kStyleNames[static_cast<int>(c.style)]);
    Tile tile(c, random);
    const Result got(c.queries, c.values()), expected(c.queries, c.values());
    for (int split = 0; split < 2; ++split) {
        tile.run(kernels, got);
        tile.run(kScalarKernels, expected);
        compare("maximum", got.maximum, expected.maximum);
        compare("sum", got.sum, expected.sum);
        compare("weighted", got.weighted, expected.weighted);
        tile.see(random);
    }
}

void check_cache(const Kernels& kernels, Type cache, Random& random) {
    constexpr Style kNormal = Style::Normal;
    const int step = cache == Type::Q8_0 || cache == Type::Q4_0 ? kCacheBlock : 1;
    for (const int dim : {1, 7, 8, 16, 20, 24, 32, 33, 40, 64, 72, 96, 128, 256}) {
        if (dim % step != 0) continue;
        for (const int queries : {1, 2, 5, 9, 32}) {
            check_case(kernels, {dim, queries, 1 + random.below(134), cache, kNormal}, random);
        }
    }
    for (int end = 1; end <= 132; ++end) {
        check_case(kernels, {std::max(16, step), 7, end, cache, kNormal}, random);
    }
    for (const Style style : kStyles) {
        for (const int dim : {8, 40, 128}) {
            if (dim % step != 0) continue;
            check_case(kernels, {dim, 9, kSplitPositions / 2, cache, style}, random);
        }
    }
    check_case(kernels, {64, kTileQueries, kSplitPositions, cache, kNormal}, random);
    for (const bool windowed : {false, true}) {
        check_case(kernels, {64, 21, 130, cache, kNormal, 0, false, windowed}, random);
        check_case(kernels, {192, 5, 70, cache, kNormal, 128, false, windowed}, random);
        check_case(kernels, {64, 3, 90, cache, kNormal, 96, false, windowed}, random);
        check_case(kernels, {576, 16, 99, cache, kNormal, 512, true, windowed}, random);
    }
}

}  // namespace

void check_attention(const Kernels& kernels) {
    Random random(3);
    for (const Type cache : {Type::F32, Type::F16, Type::Q8_0, Type::Q4_0}) {
        check_cache(kernels, cache, random);
    }
}

}  // namespace moestream::check
