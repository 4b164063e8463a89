// Attention: writes the new keys and values, shares out tiles, merges splits in order.
#include "core/attention.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/context.h"

namespace moestream {
namespace {

// Running result of one tile's queries.
struct Partial {
    float* maximum;   // (kTileQueries,)
    float* sum;       // (kTileQueries,)
    float* weighted;  // (kTileQueries, value_dim)

    static size_t floats(int value_dim) {
        return static_cast<size_t>(kTileQueries) * (value_dim + 2);
    }
    static Partial at(float* base) {
        return {base, base + kTileQueries, base + 2 * kTileQueries};
    }
};

// Add one split's result to that of the splits before it.
void merge(const Kernels& kernels, const Partial& into, const Partial& from, int query, int dim) {
    if (from.maximum[query] == -std::numeric_limits<float>::infinity() &&
        from.sum[query] == 0.0f) {
        return;  // it sees nothing there
    }
    const float largest = std::max(into.maximum[query], from.maximum[query]);
    const float both[2] = {into.maximum[query], from.maximum[query]};
    float shrink[2];
    kernels.exponentials(both, 2, largest, shrink);
    into.maximum[query] = largest;
    into.sum[query] = into.sum[query] * shrink[0] + from.sum[query] * shrink[1];
    float* a = into.weighted + static_cast<size_t>(query) * dim;
    const float* b = from.weighted + static_cast<size_t>(query) * dim;
    for (int i = 0; i < dim; ++i) a[i] = a[i] * shrink[0] + b[i] * shrink[1];
}

class Attention {
  public:
    Attention(Context& context, const AttentionShape& shape, const float* q, const uint8_t* keys,
              const uint8_t* values, float* out)
        : context_(context), shape_(shape), q_(q), keys_(keys), values_(values), out_(out) {
        group_ = shape.heads / shape.kv_heads;
        // Heads of a group beyond a tile's size share it out among several tiles.
        tile_heads_ = std::min(group_, kTileQueries);
        head_tiles_ = (group_ + tile_heads_ - 1) / tile_heads_;
        tile_tokens_ = std::min(kTileQueries / tile_heads_, shape.tokens);
        token_tiles_ = (shape.tokens + tile_tokens_ - 1) / tile_tokens_;
    }

    void run() {
        const int tiles = shape_.kv_heads * head_tiles_ * token_tiles_;
        const int last = shape_.start + shape_.tokens;
        // What has left the window of the first token is not looked at.
        const int before = first_seen(0) / kSplitPositions;
        const int splits = (last + kSplitPositions - 1) / kSplitPositions - before;
        const size_t one = Partial::floats(shape_.value_dim);
        context_.reserve_scratch(
            (attention_scratch_floats(std::max(shape_.dim, shape_.value_dim)) + 2 * one) *
            sizeof(float));
        if (tiles >= 4 * context_.pool.threads() || splits == 1) {
            share_tiles(tiles, before, splits, one);
        } else {
            share_splits(tiles, before, splits, one);
        }
    }

  private:
    struct Query {
        int token, head;
    };

    // A task is a tile; `one` is a Partial's floats.
    void share_tiles(int tiles, int before, int splits, size_t one) const {
        context_.pool.parallel_for(tiles, [&](int tile, int thread) {
            float* scratch = context_.scratch[thread].get<float>(0);
            const Partial total = Partial::at(scratch);
            const Partial part = Partial::at(scratch + one);
            for (int s = 0; s < splits; ++s) {
                attend(tile, before + s, s == 0 ? total : part, scratch + 2 * one);
                if (s > 0) merge_all(tile, total, part);
            }
            finish(tile, total);
        });
    }

    // One query at a time over a long context: the splits are what there is to share out.
    void share_splits(int tiles, int before, int splits, size_t one) const {
        float* partials = context_.partials.get<float>(one * tiles * splits);
        context_.pool.parallel_for(tiles * splits, [&](int task, int thread) {
            const Partial part = Partial::at(partials + one * task);
            attend(task / splits, before + task % splits, part,
                   context_.scratch[thread].get<float>(0));
        });
        context_.pool.parallel_for(tiles, [&](int tile, int) {
            float* base = partials + one * tile * splits;
            const Partial total = Partial::at(base);
            for (int s = 1; s < splits; ++s) {
                merge_all(tile, total, Partial::at(base + one * s));
            }
            finish(tile, total);
        });
    }

    int first_seen(int token) const {
        return shape_.window > 0 ? std::max(0, shape_.start + token + 1 - shape_.window) : 0;
    }
    int queries(int tile) const { return heads_of(tile) * tokens_of(tile); }
    int token_tile(int tile) const { return token_tiles_ - 1 - tile % token_tiles_; }
    int head_tile(int tile) const { return tile / token_tiles_ % head_tiles_; }
    int kv_head(int tile) const { return tile / token_tiles_ / head_tiles_; }
    int heads_of(int tile) const {
        return std::min(tile_heads_, group_ - head_tile(tile) * tile_heads_);
    }
    int tokens_of(int tile) const {
        return std::min(tile_tokens_, shape_.tokens - token_tile(tile) * tile_tokens_);
    }
    Query query(int tile, int i) const {
        const int heads = heads_of(tile);
        return {token_tile(tile) * tile_tokens_ + i / heads,
                kv_head(tile) * group_ + head_tile(tile) * tile_heads_ + i % heads};
    }
    size_t row(const Query& q) const {
        return static_cast<size_t>(q.token) * shape_.heads + q.head;
    }

    void attend(int tile, int split, const Partial& part, float* scratch) const {
        AttentionTile work{};
        work.queries = queries(tile);
        for (int i = 0; i < work.queries; ++i) {
            const Query at = query(tile, i);
            work.q[i] = q_ + row(at) * shape_.dim;
            work.first[i] = first_seen(at.token);
            work.visible[i] = shape_.start + at.token + 1;
        }
        work.dim = shape_.dim;
        work.value_dim = shape_.value_dim;
        work.scale = shape_.scale;
        work.keys = rows(shape_.key_type, keys_, shape_.dim, tile);
        if (values_ != nullptr) {
            work.values = rows(shape_.value_type, values_, shape_.value_dim, tile);
        }
        work.begin = split * kSplitPositions;
        work.end = std::min(work.begin + kSplitPositions, shape_.start + shape_.tokens);
        work.maximum = part.maximum;
        work.sum = part.sum;
        work.weighted = part.weighted;
        work.scratch = scratch;
        context_.kernels.attend(work);
    }

    CacheRows rows(Type type, const uint8_t* buffer, int dim, int tile) const {
        const size_t head_bytes = cache_row_bytes(type, dim) * shape_.positions;
        return {type, buffer + kv_head(tile) * head_bytes};
    }

    void merge_all(int tile, const Partial& total, const Partial& part) const {
        for (int i = 0; i < queries(tile); ++i) {
            merge(context_.kernels, total, part, i, shape_.value_dim);
        }
    }

    void finish(int tile, const Partial& total) const {
        for (int i = 0; i < queries(tile); ++i) {
            const Query at = query(tile, i);
            float sum = total.sum[i], shrink = 1.0f;
            if (shape_.sinks != nullptr) {
                const float both[2] = {total.maximum[i], shape_.sinks[at.head]};
                float shares[2];
                context_.kernels.exponentials(both, 2, std::max(both[0], both[1]), shares);
                shrink = shares[0];
                sum = sum * shares[0] + shares[1];
            }
            float* out = out_ + row(at) * shape_.value_dim;
            const float* weighted = total.weighted + static_cast<size_t>(i) * shape_.value_dim;
            for (int j = 0; j < shape_.value_dim; ++j) out[j] = weighted[j] * shrink / sum;
        }
    }

    Context& context_;
    const AttentionShape& shape_;
    const float* q_;
    const uint8_t* keys_;
    const uint8_t* values_;
    float* out_;
    int group_, tile_heads_, head_tiles_, tile_tokens_, token_tiles_;
};

// As in llama.cpp: the codes are rounded with the float32 scale, which is then stored as F16.
void to_q8_0(const Kernels& kernels, const float* x, int count, uint8_t* out) {
    for (int i = 0; i < count; i += 32, out += 34) {
        alignas(32) int8_t q[32];
        int16_t sums16[2], sums32[1];
        float d, s;
        kernels.quantize32(x + i, 32, {q, &d, &s, sums16, sums32});
        const uint16_t half = float_to_half(d);
        std::memcpy(out, &half, sizeof half);
        std::memcpy(out + 2, q, sizeof q);
    }
}

// New rows (tokens, kv_heads, dim) into the buffer (kv_heads, positions, dim).
void append(const Kernels& kernels, const AttentionShape& shape, const float* rows, int dim,
            Type type, uint8_t* buffer, int token) {
    const size_t bytes = cache_row_bytes(type, dim);
    for (int head = 0; head < shape.kv_heads; ++head) {
        const float* from = rows + (static_cast<size_t>(token) * shape.kv_heads + head) * dim;
        uint8_t* to =
            buffer + (static_cast<size_t>(head) * shape.positions + shape.start + token) * bytes;
        if (type == Type::F32) {
            std::memcpy(to, from, bytes);
        } else if (type == Type::F16) {
            kernels.to_half(from, dim, reinterpret_cast<uint16_t*>(to));
        } else {
            to_q8_0(kernels, from, dim, to);
        }
    }
}

}  // namespace

void attention(Context& context, const AttentionShape& shape, const float* q, const float* k,
               const float* v, uint8_t* keys, uint8_t* values, float* out) {
    context.pool.parallel_for(shape.tokens, [&](int token, int) {
        append(context.kernels, shape, k, shape.dim, shape.key_type, keys, token);
        if (v == nullptr) return;
        append(context.kernels, shape, v, shape.value_dim, shape.value_type, values, token);
    });
    Attention(context, shape, q, keys, values, out).run();
}

}  // namespace moestream
