// The scalar kernels: every other instruction set must give the same bits.
#include <algorithm>
#include <cstring>
#include <limits>

#include "core/attention.h"
#include "core/block_decode.h"
#include "core/kernels.h"
#include "core/scalar_math.h"
#include "kernels/delta_step.h"
#include "kernels/loops.h"
#include "kernels/scan_step.h"

namespace moestream {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
// Below this the reciprocal of the scale overflows; the block is taken for zeros.
constexpr float kTiny = 1e-30f;

template <int Block>
void quantize(const float* x, int columns, const QuantizedRow& out) {
    for (int b = 0; b < columns / Block; ++b, x += Block) {
        uint32_t largest = 0;  // as bits: NaN above infinity above all numbers
        for (int i = 0; i < Block; ++i) {
            largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
        }
        const float amax = std::bit_cast<float>(largest);
        const bool usable = largest < 0x7f800000u && amax >= kTiny;
        const float inverse = usable ? 127.0f / amax : 0.0f;
        out.d[b] = largest >= 0x7f800000u ? kNaN : usable ? amax / 127.0f : 0.0f;
        int8_t* q = out.q + b * Block;
        for (int i = 0; i < Block; ++i) {
            q[i] = usable ? static_cast<int8_t>(std::nearbyint(x[i] * inverse)) : int8_t{0};
        }
        int total = 0;
        for (int g = 0; g < Block / 16; ++g) {
            int sum = 0;
            for (int i = 0; i < 16; ++i) sum += q[g * 16 + i];
            out.sums16[b * (Block / 16) + g] = static_cast<int16_t>(sum);
            total += sum;
            if (g % 2 == 1) {
                out.sums32[(b * Block + g * 16) / 32] = static_cast<int16_t>(total);
                if (Block == 32) out.s[b] = out.d[b] * static_cast<float>(total);
                total = 0;
            }
        }
    }
}

template <Type T>
float dot_float(const uint8_t* w, const float* x, int columns) {
    float lanes[8] = {};
    for (int i = 0; i < columns; ++i) {
        float value;
        if constexpr (T == Type::F32) {
            value = std::bit_cast<float>(load_u32(w + 4 * i));
        } else if constexpr (T == Type::F16) {
            value = load_half(w + 2 * i);
        } else {
            value = bf16_to_float(load_u16(w + 2 * i));
        }
        lanes[i % 8] = std::fma(value, x[i], lanes[i % 8]);
    }
    return sum_lanes(lanes);
}

// A token's input in blocks of so many columns.
struct TokenBlocks {
    TokenBlocks(const InputRows& in, size_t token, int size)
        : count(in.columns / size), q(in.q + token * in.columns), d(in.d + token * count) {}

    int count;
    const int8_t* q;
    const float* d;
};

template <Type T>
float dot_block32(const uint8_t* w, const InputRows& in, int token) {
    constexpr TypeLayout kLayout = layout_of(T);
    const TokenBlocks x(in, token, 32);
    const float* s = in.s + static_cast<size_t>(token) * x.count;
    float acc = 0.0f;
    Block block;
    constexpr int kParts = kLayout.block_values / 32, kGroup = kLayout.group;
    for (int b = 0; b < x.count; ++b) {
        const int part = b % kParts;
        if (part == 0) decode<T>(w + static_cast<size_t>(b / kParts) * kLayout.block_bytes, &block);
        for (int from = 0; from < 32; from += kGroup) {
            const int8_t* codes = block.q + part * 32 + from;
            int32_t sum = 0;
            for (int i = 0; i < kGroup; ++i) sum += codes[i] * x.q[b * 32 + from + i];
            const float own = T == Type::NVFP4 ? block.d16[(part * 32 + from) / 16] : block.d;
            acc = std::fma(own * x.d[b], static_cast<float>(sum), acc);
        }
        if (kLayout.has_min) acc = std::fma(block.m, s[b], acc);
    }
    return acc;
}

template <Type T>
float dot_block256(const uint8_t* w, const InputRows& in, int token) {
    constexpr TypeLayout kLayout = layout_of(T);
    const TokenBlocks x(in, token, 256);
    const int16_t* sums = in.sums16 + static_cast<size_t>(token) * (in.columns / 16);
    float acc = 0.0f;
    Block block;
    for (int b = 0; b < x.count; ++b) {
        decode<T>(w + static_cast<size_t>(b) * kLayout.block_bytes, &block);
        int32_t sum = 0, mins = 0;
        for (int g = 0; g < 16; ++g) {
            int32_t part = 0;
            for (int i = g * 16; i < g * 16 + 16; ++i) part += block.q[i] * x.q[b * 256 + i];
            sum += block.scale[g] * part;
            mins += block.min[g] * sums[b * 16 + g];
        }
        acc = std::fma(block.d * x.d[b], static_cast<float>(sum), acc);
        if (kLayout.has_min) acc = std::fma(-block.m * x.d[b], static_cast<float>(mins), acc);
    }
    return acc;
}

template <Type T>
void matmul(const Panel& panel) {
    constexpr Input kInput = layout_of(T).input();
    const InputRows& in = *panel.input;
    for (int t = 0; t < panel.tokens; ++t) {
        const int from = input_row(panel, t);
        float* out = output_row(panel, t);
        for (int r = 0; r < panel.rows; ++r) {
            const uint8_t* w = panel.weights + r * panel.row_bytes;
            if constexpr (kInput == Input::Float) {
                out[r] = dot_float<T>(w, in.x + static_cast<size_t>(from) * in.columns, in.columns);
            } else if constexpr (kInput == Input::Block32) {
                out[r] = dot_block32<T>(w, in, from);
            } else {
                out[r] = dot_block256<T>(w, in, from);
            }
        }
    }
}

float dot_lanes(const float* a, const float* b, int count) {
    float lanes[8] = {};
    for (int i = 0; i < count; ++i) lanes[i % 8] = std::fma(a[i], b[i], lanes[i % 8]);
    return sum_lanes(lanes);
}

void rms_norm(const float* x, const float* weight, int columns, float eps, float* out) {
    const float mean = dot_lanes(x, x, columns) / static_cast<float>(columns);
    const float scale = 1.0f / std::sqrt(mean + eps);
    for (int i = 0; i < columns; ++i) out[i] = x[i] * scale * weight[i];
}

void swiglu(const float* gate, const float* up, int count, float* out) {
    for (int i = 0; i < count; ++i) out[i] = gate[i] / (1.0f + exp_lane(-gate[i])) * up[i];
}

void half_to_floats(const uint16_t* from, int values, float* out) {
    for (int i = 0; i < values; ++i) out[i] = half_to_float(from[i]);
}

void q8_0_to_floats(const uint8_t* from, int blocks, float* out) {
    for (int i = 0; i < blocks * kCacheBlock; ++i) {
        const uint8_t* block = from + i / kCacheBlock * kQ8_0Bytes;
        const auto code = static_cast<int8_t>(block[2 + i % kCacheBlock]);
        out[i] = load_half(block) * static_cast<float>(code);
    }
}

void q4_0_to_floats(const uint8_t* from, int blocks, float* out) {
    for (int b = 0; b < blocks; ++b, from += kQ4_0Bytes, out += kCacheBlock) {
        int8_t codes[kCacheBlock];
        q4_0_codes(from, codes);
        for (int i = 0; i < kCacheBlock; ++i) {
            out[i] = load_half(from) * static_cast<float>(codes[i]);
        }
    }
}

const float* block_floats(const CacheRows& rows, int start, int count, int dim, float* scratch) {
    return cache_floats(rows, start, count, dim, scratch, half_to_floats, q8_0_to_floats,
                        q4_0_to_floats);
}

// One query against a split: its largest score and the sum, its weighted values in `weighted`.
void attend_split(const AttentionTile& tile, int query, float* largest, float* sum,
                  float* weighted) {
    const int dim = tile.dim, from = tile.seen_from(query), to = tile.seen_to(query);
    const bool in_keys = tile.values.data == nullptr;
    const CacheRows& rows = in_keys ? tile.keys : tile.values;
    const int stride = in_keys ? dim : tile.value_dim;
    float scores[kSplitPositions], lanes[kSumLanes] = {};
    *largest = -std::numeric_limits<float>::infinity();
    for (int j = from; j < to; ++j) {
        const float* key = block_floats(tile.keys, j, 1, dim, tile.scratch);
        float score = 0.0f;
        for (int c = 0; c < dim; ++c) score = std::fma(key[c], tile.q[query][c], score);
        score *= tile.scale;
        if (tile.cap > 0) {
            score = tile.cap - 2.0f * tile.cap / (1.0f + exp_lane(score * (2.0f / tile.cap)));
        }
        scores[j] = tile.hides(query, j) ? -std::numeric_limits<float>::infinity() : score;
        *largest = scores[j] > *largest ? scores[j] : *largest;
    }
    *largest += 0.0f;  // of two zeros the positive one
    for (int j = from; j < to; ++j) {
        const float weight = exp_lane(scores[j] - *largest);
        lanes[j % kSumLanes] += weight;
        const float* value = block_floats(rows, j, 1, stride, tile.scratch);
        for (int i = 0; i < tile.value_dim; ++i) {
            weighted[i] = std::fma(weight, value[i], weighted[i]);
        }
    }
    *sum = sum_of_lanes(lanes);
}

void attend_query(const AttentionTile& tile, int query) {
    if (tile.seen_from(query) == tile.seen_to(query)) return;
    const int dim = tile.value_dim;
    float* into = tile.weighted + static_cast<size_t>(query) * dim;
    float largest, sum;
    if (tile.nothing_yet(query)) {
        std::fill_n(into, dim, 0.0f);
        attend_split(tile, query, &tile.maximum[query], &tile.sum[query], into);
        return;
    }
    float* weighted = tile.scratch + std::max(tile.dim, dim);
    std::fill_n(weighted, dim, 0.0f);
    attend_split(tile, query, &largest, &sum, weighted);
    const float most = std::max(tile.maximum[query], largest);
    const float shrink[2] = {exp_lane(tile.maximum[query] - most), exp_lane(largest - most)};
    tile.maximum[query] = most;
    tile.sum[query] = tile.sum[query] * shrink[0] + sum * shrink[1];
    for (int i = 0; i < dim; ++i) into[i] = into[i] * shrink[0] + weighted[i] * shrink[1];
}

void attend(const AttentionTile& tile) {
    for (int query = 0; query < tile.queries; ++query) attend_query(tile, query);
}

void to_half(const float* x, int count, uint16_t* out) {
    for (int i = 0; i < count; ++i) out[i] = float_to_half(x[i]);
}

void exponentials(const float* x, int count, float shift, float* out) {
    for (int i = 0; i < count; ++i) out[i] = exp_lane(x[i] - shift);
}

}  // namespace

const Kernels kScalarKernels = {
    "scalar",
    for_all_types([]<Type T>() { return TypeKernels{matmul<T>, nullptr}; }),
    quantize<32>,
    quantize<256>,
    rms_norm,
    swiglu,
    attend,
    to_half,
    exponentials,
    delta_step,
    scan_step,
};

}  // namespace moestream
