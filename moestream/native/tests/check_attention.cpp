// Attention tiles: both cache types, every size of head, queries that see all, some or nothing.
#include <algorithm>
#include <cmath>

#include "../attention.h"
#include "../half.h"
#include "support.h"

namespace moestream::check {
namespace {

struct Result {
    Guarded<float> maximum, sum, weighted;
    Result(int queries, int dim)
        : maximum(queries), sum(queries), weighted(static_cast<size_t>(queries) * dim) {}
};

struct Case {
    int dim, queries, begin, end;
    bool half;
    Style style;
};

class Tile {
  public:
    Tile(const Case& c, Random& random)
        : case_(c),
          q_(floats(random, c.style, static_cast<size_t>(c.queries) * c.dim)),
          floats_{floats(random, c.style, cached()), floats(random, c.style, cached())},
          halves_{Guarded<uint16_t>(cached()), Guarded<uint16_t>(cached())} {
        for (int which = 0; which < 2; ++which) {
            for (size_t i = 0; i < cached(); ++i) {
                halves_[which][i] = float_to_half(floats_[which][i]);
            }
        }
        // From one that sees nothing to one that sees all; neighbours often see the same.
        for (int i = 0; i < c.queries; ++i) {
            visible_[i] = i > 0 && random.below(2) == 0
                              ? visible_[i - 1]
                              : std::max(0, c.begin - 1) + random.below(c.end - c.begin + 3);
        }
    }

    Result run(const Kernels& kernels) const {
        Result result(case_.queries, case_.dim);
        const Guarded<float> scratch(attention_scratch_floats(case_.dim));
        AttentionTile tile{};
        tile.queries = case_.queries;
        for (int i = 0; i < case_.queries; ++i) {
            tile.q[i] = q_.data() + static_cast<size_t>(i) * case_.dim;
            tile.visible[i] = visible_[i];
        }
        tile.dim = case_.dim;
        tile.scale = 0.125f;
        tile.half = case_.half;
        tile.keys = case_.half ? static_cast<const void*>(halves_[0].data()) : floats_[0].data();
        tile.values = case_.half ? static_cast<const void*>(halves_[1].data()) : floats_[1].data();
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
    size_t cached() const { return static_cast<size_t>(case_.end) * case_.dim; }

    Case case_;
    Guarded<float> q_;
    Guarded<float> floats_[2];
    Guarded<uint16_t> halves_[2];
    int visible_[kTileQueries];
};

void check_case(const Kernels& kernels, const Case& c, Random& random) {
    begin_case("%s: attend, dim %d, %d queries, positions %d to %d, %s cache, %s", kernels.name,
               c.dim, c.queries, c.begin, c.end, c.half ? "f16" : "f32",
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
    for (const bool half : {false, true}) {
        for (const int dim : {1, 7, 8, 16, 20, 24, 32, 33, 40, 64, 72, 96, 128, 256}) {
            for (const int queries : {1, 2, 5, 32}) {
                const int begin = random.below(3) * 32, end = begin + 1 + random.below(70);
                check_case(kernels, {dim, queries, begin, end, half, Style::Normal}, random);
            }
        }
        for (int end = 1; end <= 68; ++end) {
            check_case(kernels, {16, 3, 0, end, half, Style::Normal}, random);
        }
        for (const Style style : kStyles) {
            for (const int dim : {8, 40, 128}) {
                check_case(kernels, {dim, 9, 32, 32 + kSplitPositions / 2, half, style}, random);
            }
        }
        check_case(kernels, {64, 32, 0, kSplitPositions, half, Style::Normal}, random);
    }
}

}  // namespace moestream::check
