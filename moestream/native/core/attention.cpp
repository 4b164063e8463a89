// Attention: has new keys and values written, shares out tiles, merges splits in order.
#include "core/attention.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/cache_append.h"
#include "core/context.h"

namespace moestream {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Tasks a thread between two merges of splits, and bytes of what all of them leave behind.
constexpr int kTasksAThread = 32;
constexpr size_t kPartialBytes = 16 << 20;

// Results of a tile's queries over some splits.
struct Partial {
    float* maximum;   // (queries,)
    float* sum;       // (queries,)
    float* weighted;  // (queries, value_dim)

    static size_t floats(int queries, int value_dim) {
        return static_cast<size_t>(queries) * (value_dim + 2);
    }
    // Those of no split yet.
    static Partial start(float* base, int queries) {
        std::fill_n(base, queries, kNever);
        std::fill_n(base + queries, queries, 0.0f);
        return at(base, queries);
    }
    static Partial at(float* base, int queries) {
        return {base, base + queries, base + 2 * queries};
    }
    bool nothing(int query) const { return sum[query] == 0.0f && maximum[query] == kNever; }
};

// Add one split's result to that of the splits before it.
void merge(const Kernels& kernels, const Partial& into, const Partial& from, int query, int dim) {
    if (from.nothing(query)) return;
    float* a = into.weighted + static_cast<size_t>(query) * dim;
    const float* b = from.weighted + static_cast<size_t>(query) * dim;
    if (into.nothing(query)) {
        into.maximum[query] = from.maximum[query];
        into.sum[query] = from.sum[query];
        std::copy_n(b, dim, a);
        return;
    }
    const float largest = std::max(into.maximum[query], from.maximum[query]);
    const float both[2] = {into.maximum[query], from.maximum[query]};
    float shrink[2];
    kernels.exponentials(both, 2, largest, shrink);
    into.maximum[query] = largest;
    into.sum[query] = into.sum[query] * shrink[0] + from.sum[query] * shrink[1];
    for (int i = 0; i < dim; ++i) a[i] = a[i] * shrink[0] + b[i] * shrink[1];
}

// Some tokens of a sequence, and heads that share a KV head.
struct Tile {
    const KVSequence* sequence;
    int first_token, tokens;
    int kv_head, first_head, heads;  // first_head of all
    int first_split, splits;         // of the sequence's first token: all tiles merge alike

    int queries() const { return tokens * heads; }
};

class Attention {
  public:
    Attention(Context& context, const AttentionShape& shape, const KVPass& pass, const float* q,
              bool has_values, float* out)
        : context_(context), shape_(shape), q_(q), has_values_(has_values), out_(out) {
        // Keys and values are unpacked once a tile, but every thread wants some of them.
        const auto queries = static_cast<int64_t>(pass.sequence_of.size()) * shape.heads;
        const int threads = context.pool.threads();
        const int most = std::clamp<int64_t>(queries / (4 * threads), 32, kTileQueries);
        for (const KVSequence& sequence : pass.sequences) add_tiles(sequence, most);
        for (const Tile& tile : tiles_) {
            most_queries_ = std::max(most_queries_, tile.queries());
            most_splits_ = std::max(most_splits_, tile.splits);
        }
    }

    void run() {
        const int dim = shape_.dim, value_dim = shape_.value_dim;
        const size_t one = Partial::floats(most_queries_, value_dim);
        const size_t scratch = attention_scratch_floats(most_queries_, dim, value_dim);
        context_.reserve_scratch((scratch + one) * sizeof(float));
        const int tiles = static_cast<int>(tiles_.size());
        if (tiles >= 4 * context_.pool.threads() || most_splits_ == 1) {
            share_tiles(tiles, scratch);
        } else {
            share_splits(tiles, one);
        }
    }

  private:
    struct Query {
        int token, head;
    };

    // Of at most `most` queries, or one token.
    void add_tiles(const KVSequence& sequence, int most) {
        const int group = shape_.heads / shape_.kv_heads;
        // Heads of a group beyond a tile's size share it out among several tiles.
        const int most_heads = std::min(group, kTileQueries);
        const int most_tokens = std::clamp(most / most_heads, 1, sequence.tokens);
        // What has left the window of the first token is not looked at.
        const int before = first_seen(sequence, 0) / kSplitPositions;
        const int last = sequence.start + sequence.tokens;
        const int splits = (last + kSplitPositions - 1) / kSplitPositions - before;
        for (int kv_head = 0; kv_head < shape_.kv_heads; ++kv_head) {
            for (int head = 0; head < group; head += most_heads) {
                // The last tokens see most: they are begun first.
                for (int n = (sequence.tokens - 1) / most_tokens; n >= 0; --n) {
                    const int token = n * most_tokens;
                    tiles_.push_back({&sequence, token,
                                      std::min(most_tokens, sequence.tokens - token), kv_head,
                                      kv_head * group + head, std::min(most_heads, group - head),
                                      before, splits});
                }
            }
        }
    }

    // A task is a tile; its result lies behind a thread's `scratch` floats.
    void share_tiles(int tiles, size_t scratch) const {
        context_.pool.parallel_for(tiles, [&](int index, int thread) {
            const Tile& tile = tiles_[index];
            float* floats = context_.scratch[thread].get<float>(0);
            const Partial total = Partial::start(floats + scratch, tile.queries());
            for (int s = 0; s < tile.splits; ++s) attend(tile, s, total, floats);
            finish(tile, total);
        });
    }

    // A few queries over long contexts: the splits are what there is to share out, so many at a
    // time that partial results take little memory. `one` is a Partial's floats.
    void share_splits(int tiles, size_t one) const {
        const int threads = context_.pool.threads();
        const auto fit = static_cast<int>(kPartialBytes / (one * sizeof(float)));
        const int tasks = std::clamp(fit, 4 * threads, kTasksAThread * threads);
        const int step = std::clamp(tasks / tiles, 1, most_splits_);
        float* totals = context_.partials.get<float>(one * tiles * (step + 1));
        float* parts = totals + one * tiles;
        for (int i = 0; i < tiles; ++i) Partial::start(totals + one * i, tiles_[i].queries());
        for (int first = 0; first < most_splits_; first += step) {
            context_.pool.parallel_for(tiles * step, [&](int task, int thread) {
                const Tile& tile = tiles_[task / step];
                const int split = first + task % step;
                if (split >= tile.splits) return;
                attend(tile, split, Partial::start(parts + one * task, tile.queries()),
                       context_.scratch[thread].get<float>(0));
            });
            context_.pool.parallel_for(tiles, [&](int index, int) {
                const Tile& tile = tiles_[index];
                const Partial total = Partial::at(totals + one * index, tile.queries());
                const int count = std::min(step, tile.splits - first);
                for (int s = 0; s < count; ++s) {
                    float* part = parts + one * (index * step + s);
                    merge_all(tile, total, Partial::at(part, tile.queries()));
                }
                if (first + step >= most_splits_) finish(tile, total);
            });
        }
    }

    int first_seen(const KVSequence& sequence, int token) const {
        return shape_.window > 0 ? std::max(0, sequence.start + token + 1 - shape_.window) : 0;
    }
    Query query(const Tile& tile, int i) const {
        return {tile.first_token + i / tile.heads, tile.first_head + i % tile.heads};
    }
    size_t row(const Tile& tile, const Query& q) const {
        return static_cast<size_t>(tile.sequence->row + q.token) * shape_.heads + q.head;
    }

    void attend(const Tile& tile, int split, const Partial& part, float* scratch) const {
        const KVSequence& sequence = *tile.sequence;
        const int block = tile.first_split + split, origin = block * kSplitPositions;
        AttentionTile work{};
        work.queries = tile.queries();
        for (int i = 0; i < work.queries; ++i) {
            const Query at = query(tile, i);
            work.q[i] = q_ + row(tile, at) * shape_.dim;
            work.first[i] = first_seen(sequence, at.token) - origin;
            work.visible[i] = sequence.start + at.token + 1 - origin;
            if (shape_.chosen != nullptr) {
                const auto at_row = static_cast<size_t>(sequence.row + at.token);
                const size_t group = shape_.chosen_heads == 1 ? 0 : tile.kv_head;
                work.chosen[i] =
                    shape_.chosen +
                    (at_row * shape_.chosen_heads + group) * shape_.chosen_stride + origin;
            }
        }
        work.dim = shape_.dim;
        work.value_dim = shape_.value_dim;
        work.scale = shape_.scale;
        work.cap = shape_.cap;
        work.keys =
            rows(sequence, block, tile, shape_.key_type, shape_.key_offset, shape_.dim);
        if (has_values_) {
            work.values = rows(sequence, block, tile, shape_.value_type, shape_.value_offset,
                               shape_.value_dim);
        }
        work.end = std::min(kSplitPositions, sequence.start + sequence.tokens - origin);
        work.maximum = part.maximum;
        work.sum = part.sum;
        work.weighted = part.weighted;
        work.scratch = scratch;
        context_.kernels.attend(work);
    }

    CacheRows rows(const KVSequence& sequence, int block, const Tile& tile, Type type,
                   size_t offset, int dim) const {
        const size_t head_bytes = cache_row_bytes(type, dim) * kSplitPositions;
        return {type, reinterpret_cast<const uint8_t*>(sequence.blocks[block]) + offset +
                          tile.kv_head * head_bytes};
    }

    void merge_all(const Tile& tile, const Partial& total, const Partial& part) const {
        for (int i = 0; i < tile.queries(); ++i) {
            merge(context_.kernels, total, part, i, shape_.value_dim);
        }
    }

    void finish(const Tile& tile, const Partial& total) const {
        for (int i = 0; i < tile.queries(); ++i) {
            const Query at = query(tile, i);
            float sum = total.sum[i], shrink = 1.0f;
            if (shape_.sinks != nullptr) {
                const float both[2] = {total.maximum[i], shape_.sinks[at.head]};
                float shares[2];
                context_.kernels.exponentials(both, 2, std::max(both[0], both[1]), shares);
                shrink = shares[0];
                sum = sum * shares[0] + shares[1];
            }
            float* out = out_ + row(tile, at) * shape_.value_dim;
            const float* weighted = total.weighted + static_cast<size_t>(i) * shape_.value_dim;
            for (int j = 0; j < shape_.value_dim; ++j) out[j] = weighted[j] * shrink / sum;
        }
    }

    Context& context_;
    const AttentionShape& shape_;
    const float* q_;
    bool has_values_;
    float* out_;
    std::vector<Tile> tiles_;
    int most_queries_ = 1, most_splits_ = 1;  // of a tile
};

}  // namespace

void attention(Context& context, const AttentionShape& shape, const KVPass& pass, const float* q,
               const float* k, const float* v, float* out) {
    const int rows = static_cast<int>(pass.sequence_of.size());
    context.pool.parallel_for(rows, [&](int row, int) {
        append_row(context.kernels, shape, pass, row, k, v);
    });
    Attention(context, shape, pass, q, v != nullptr, out).run();
}

}  // namespace moestream
