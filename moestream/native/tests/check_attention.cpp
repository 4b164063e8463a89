// Attention tiles: every cache type, every size of head, queries that see all, some or nothing.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/attention.h"
#include "core/half.h"
#include "tests/support.h"

namespace moestream::check {
namespace {

struct Result {
    Guarded<float> maximum, sum, weighted;
    Result(int queries, int dim)
        : maximum(queries), sum(queries), weighted(static_cast<size_t>(queries) * dim) {}
};

struct Case {
    int dim, queries, begin, end;
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
        // From one that sees nothing to one that sees all; neighbours often see the same.
        for (int i = 0; i < c.queries; ++i) {
            visible_[i] = i > 0 && random.below(2) == 0
                              ? visible_[i - 1]
                              : std::max(0, c.begin - 1) + random.below(c.end - c.begin + 3);
            first_[i] = c.windowed ? random.below(visible_[i] + 1) : 0;
        }
    }

    Result run(const Kernels& kernels) const {
        Result result(case_.queries, case_.values());
        const Guarded<float> scratch(
            attention_scratch_floats(std::max(case_.dim, case_.values())));
        AttentionTile tile{};
        tile.queries = case_.queries;
        for (int i = 0; i < case_.queries; ++i) {
            tile.q[i] = q_.data() + static_cast<size_t>(i) * case_.dim;
            tile.first[i] = first_[i];
            tile.visible[i] = visible_[i];
        }
        tile.dim = case_.dim;
        tile.value_dim = case_.values();
        tile.scale = 0.125f;
        tile.keys = {case_.cache, cache_[0].data()};
        if (!case_.in_keys) tile.values = {case_.cache, cache_[1].data()};
        tile.begin = case_.begin;
        tile.end = case_.end;
        tile.maximum = result.maximum.data();
        tile.sum = result.sum.data();
        tile.weighted = result.weighted.data();
        tile.scratch = scratch.data();
        kernels.attend(tile);
        return result;
    }

  private:
    size_t cached(int dim) const { return static_cast<size_t>(case_.end) * dim; }
    size_t cache_bytes(int dim) const { return case_.end * cache_row_bytes(case_.cache, dim); }

    // Values as the cache's type holds them; of Q8_0, every 32nd as a scale of random codes.
    void fill(uint8_t* cache, const Guarded<float>& values, Random& random) const {
        for (size_t i = 0; i < values.size(); ++i) {
            if (case_.cache == Type::F32) {
                std::memcpy(cache + 4 * i, &values[i], 4);
            } else if (case_.cache == Type::F16 || i % 32 == 0) {
                const uint16_t half = float_to_half(values[i]);
                std::memcpy(cache + (case_.cache == Type::F16 ? 2 * i : i / 32 * 34), &half, 2);
            }
            if (case_.cache == Type::Q8_0) {
                cache[i / 32 * 34 + 2 + i % 32] = static_cast<uint8_t>(random.below(256));
            }
        }
    }

    Case case_;
    Guarded<float> q_;
    Guarded<uint8_t> cache_[2];
    int first_[kTileQueries], visible_[kTileQueries];
};

void check_case(const Kernels& kernels, const Case& c, Random& random) {
    begin_case("%s: attend, dim %d, %d queries, positions %d to %d, %s cache, %s", kernels.name,
               c.dim, c.queries, c.begin, c.end, layout_of(c.cache).name,
               kStyleNames[static_cast<int>(c.style)]);
    const Tile tile(c, random);
    const Result got = tile.run(kernels), expected = tile.run(kScalarKernels);
    compare("maximum", got.maximum, expected.maximum);
    compare("sum", got.sum, expected.sum);
    compare("weighted", got.weighted, expected.weighted);
}

}  // namespace

void check_attention(const Kernels& kernels) {
    Random random(3);
    for (const Type cache : {Type::F32, Type::F16, Type::Q8_0}) {
        const int step = cache == Type::Q8_0 ? 32 : 1;
        for (const int dim : {1, 7, 8, 16, 20, 24, 32, 33, 40, 64, 72, 96, 128, 256}) {
            if (dim % step != 0) continue;
            for (const int queries : {1, 2, 5, 32}) {
                const int begin = random.below(3) * 32, end = begin + 1 + random.below(70);
                check_case(kernels, {dim, queries, begin, end, cache, Style::Normal}, random);
            }
        }
        for (int end = 1; end <= 68; ++end) {
            check_case(kernels, {std::max(16, step), 3, 0, end, cache, Style::Normal}, random);
        }
        for (const Style style : kStyles) {
            for (const int dim : {8, 40, 128}) {
                if (dim % step != 0) continue;
                check_case(kernels, {dim, 9, 32, 32 + kSplitPositions / 2, cache, style}, random);
            }
        }
        check_case(kernels, {64, 32, 0, kSplitPositions, cache, Style::Normal}, random);
        for (const bool windowed : {false, true}) {
            check_case(kernels, {64, 9, 32, 130, cache, Style::Normal, 0, false, windowed}, random);
            const Style style = Style::Normal;
            check_case(kernels, {192, 5, 0, 70, cache, style, 128, false, windowed}, random);
            check_case(kernels, {64, 3, 0, 90, cache, Style::Normal, 96, false, windowed}, random);
            check_case(kernels, {576, 16, 0, 99, cache, style, 512, true, windowed}, random);
        }
    }
}

}  // namespace moestream::check
