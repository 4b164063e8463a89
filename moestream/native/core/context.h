// What the operations share: threads, kernels, scratch memory. And the operations themselves.
//
// Arguments have been checked by bind_*.cpp; nothing here throws but std::bad_alloc, and that
// only before any task runs. Shapes as in moestream/layers/__init__.py.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "core/buffer.h"
#include "core/kernels.h"
#include "core/packing.h"
#include "core/threads.h"

namespace moestream {

// Rows of blocks, wherever they lie.
struct Matrix {
    const uint8_t* data = nullptr;
    size_t row_bytes = 0;  // from one row to the next, or, packed, from eight to the next eight
    int rows = 0;
    int columns = 0;
    int type = 0;         // type_index
    bool packed = false;  // in the order of packing.h
    float scale = 1.0f;   // of all products, as NVFP4's files have it in a tensor of its own

    Input input() const { return kTypeLayouts[type].input(); }
    // First byte of a row; packed, of a row that is a multiple of eight.
    const uint8_t* row(int index) const {
        return data + static_cast<size_t>(packed ? index / kPackedRows : index) * row_bytes;
    }
};

// One matrix an expert: evenly spaced in the file, or each at an address of its own.
struct ExpertMatrices {
    Matrix first;
    size_t expert_bytes = 0;
    const uint64_t* addresses = nullptr;  // (experts, 3): gate, up, down
    int part = 0;                         // which of the three this is

    Matrix expert(int index) const {
        const auto i = static_cast<size_t>(index);
        Matrix matrix = first;
        if (addresses != nullptr) {
            matrix.data = reinterpret_cast<const uint8_t*>(addresses[i * 3 + part]);
        } else {
            matrix.data += i * expert_bytes;
        }
        return matrix;
    }
};

// What a gate passes through before it scales `up`: silu(g) * u, gelu(g) * u (by tanh),
// g * sigmoid(1.702 g) * (u + 1) with g at most 7 and u within -7 to 7, or max(g, 0) * u.
enum class Kind { Silu, Gelu, SwigluOai, Relu, SiluClamped, SiluCapped, Situ };

// Two are silu(g) * u with u within -limit to limit, and at most `limit` the gate before it passes,
// or what has passed. The last is l * tanh(g / l) * sigmoid(g) * m * tanh(u / m), where l is `limit`
// and m `up_limit`, without which u is as it is.
struct Activation {
    Kind kind = Kind::Silu;
    float limit = 0.0f;
    float up_limit = 0.0f;
};

// A layer's routed experts.
struct ExpertSet {
    ExpertMatrices gate, up, down;
    Activation activation;
    bool ungated = false;  // gate and up are the same matrix
    // (experts, F) twice and (experts, E), or all null.
    const float* gate_bias = nullptr;
    const float* up_bias = nullptr;
    const float* down_bias = nullptr;
    // (experts,), what products are multiplied by before there is a bias; or both null.
    const float* gate_scale = nullptr;
    const float* up_scale = nullptr;
};

// Which experts each token goes to.
struct Routing {
    const int32_t* ids;  // (tokens, slots)
    int tokens;
    int slots;
};

enum class Gating { Softmax, Sigmoid, SoftmaxOfChosen, SqrtSoftplus };

// How experts are chosen and weighed; see Routing in backends/types.py.
struct RoutingRule {
    int experts, k;
    bool normalise;
    Gating gating;
    float scale;
    int groups, groups_used;
    const float* bias;  // (experts,), added to what is chosen by; or null
};

// An input in the forms that different weight types read, each made when first asked for.
class InputForms {
  public:
    // Start over with new rows, which must outlive their use.
    void set(const float* x, int tokens, int columns);
    const InputRows& form(Input kind, ThreadPool& pool, const Kernels& kernels);

  private:
    InputRows rows_[3];
    bool made_[3];
    Buffer buffers_[3];
};

struct Context {
    Context(int threads, const Kernels& kernels);

    ThreadPool pool;
    const Kernels& kernels;
    std::mutex mutex;  // held by each operation: they share the pool and the buffers
    InputForms input, inner;
    Buffer hidden, slots, partials, gathered, streams;
    std::vector<Buffer> scratch;  // one a thread

    // Make every thread's scratch at least this big, before a parallel loop reads it.
    void reserve_scratch(size_t bytes);
};

struct Product {
    const Matrix* weight;
    const float* bias;  // or null
    float* out;         // (tokens, rows)
};

inline constexpr int kMaxProducts = 8;

// out = e^x.
void exponentials(Context&, const float* x, size_t count, float* out);

// out = log(1 + e^x).
void softplus(Context&, const float* x, size_t count, float* out);

// out = x * sigmoid(logits), a logit for `each` numbers.
void sigmoid_scale(Context&, const float* x, const float* logits, size_t count, int each,
                   float* out);

// Several residual streams of a token, and the gates of low rank by which a branch reads them.
struct StreamGates {
    const float* norm;  // (streams, columns)
    float eps;
    const Matrix* down;
    const Matrix* up;
    const Matrix* inject;  // or null, if nothing is written back
    int streams, columns;
};

// The mean of the normed streams, each number by its gate, and what a result is scaled by for each
// stream: (tokens, streams, columns) -> (tokens, columns), (tokens, streams).
void read_streams(Context&, const float* x, int tokens, const StreamGates&, float* out,
                  float* scales);

// The streams, and to each what was added, scaled.
void write_streams(Context&, const float* x, const float* added, const float* scales, int tokens,
                   int count, int columns, float* out);

// Several products of one input: (tokens, columns) -> (tokens, rows) each.
void linear(Context&, const float* x, int tokens, const Product* products, int count);

// Each head's coordinates times its own matrix, all matrices being of one shape and type:
// (tokens, heads, columns) -> (tokens, heads, rows).
void heads_linear(Context&, const float* x, int tokens, const std::vector<const Matrix*>& heads,
                  float* out);

// Outputs of experts for the (token, slot) pairs that go to them: into outputs (tokens, slots, E).
// `batch` has the experts to run, each once; null for all that are chosen.
void run_experts(Context&, const float* x, const ExpertSet&, const Routing&,
                 const std::vector<int32_t>* batch, float* outputs);

// Weighted sum of each token's outputs in slot order: (tokens, slots, E) -> (tokens, E).
void sum_slots(Context&, const float* outputs, const float* weights, int tokens, int slots,
               int columns, float* out);

// One sequence's part of a pass: its rows follow those of the sequence before it.
struct KVSequence {
    const uint64_t* blocks;  // where each kSplitPositions positions of its cache begin
    int start;               // position of its first row
    int tokens;              // rows
    int row;                 // the first of them in the pass
};

// All sequences of a pass, none of them empty.
struct KVPass {
    std::vector<KVSequence> sequences;
    std::vector<int> sequence_of;  // (rows,)
};

struct AttentionShape {
    int heads, kv_heads, dim, value_dim;
    size_t key_offset, value_offset;  // of the layer's keys and values (kv_heads, kSplitPositions)
                                      // in a block
    float scale;
    int window;                 // positions that a token sees; 0: all
    const float* sinks;         // (heads,), scores of a position without a value; or null
    Type key_type, value_type;  // F32, F16 or Q8_0; see cache_rows.h
    const uint8_t* chosen;      // (rows, 1 or kv_heads, chosen_stride), positions that rows see;
                                // or null
    size_t chosen_stride;       // at least the longest sequence
    size_t chosen_heads;        // 1: all heads see the same
    float cap;                  // what scores stay within, by a tanh; 0 for no bound
};

// `v` is null where a position's values are the first value_dim of its keys.
void attention(Context&, const AttentionShape&, const KVPass&, const float* q, const float* k,
               const float* v, float* out);

inline constexpr int kMostWidth = 16;

struct Convolution {
    int tokens, channels, width;  // width at most kMostWidth
};

// Weighted sum of each channel's last values, `past` (width - 1, channels) before the first token,
// and its bias if there are any; brings `past` up to the last.
void causal_conv(Context&, const Convolution&, const float* x, const float* kernel,
                 const float* bias, bool silu, float* past, float* out);

struct DeltaNet {
    int tokens, heads, key_heads, dim;
    float eps;
    const float* rates;      // (heads)
    const float* time_bias;  // (heads)
    const int32_t* key_of;   // (heads): the key head of each
};

// The gated delta rule; see Backend.delta_net.
void delta_net(Context&, const DeltaNet&, const float* qkv, const float* write,
               const float* forget, float* state, float* out);

struct KimiDelta {
    int tokens, heads, dim;
    float eps;
};

// The same with a decay a coordinate of the keys; see Backend.kimi_delta.
void kimi_delta(Context&, const KimiDelta&, const float* qkv, const float* write,
                const float* decay, float* state, float* out);

struct ChannelScan {
    int tokens, channels, size;
    const float* rates;      // (channels, size)
    const float* time_bias;  // (channels)
    const float* skips;      // (channels)
};

// Mamba's recurrence; see Backend.mamba.
void mamba(Context&, const ChannelScan&, const float* x, const float* steps, const float* b,
           const float* c, float* state, float* out);

struct Scan {
    int tokens, heads, groups, rows, columns;
    const float* rates;      // (heads)
    const float* time_bias;  // (heads)
    const float* skips;      // (heads)
};

// Mamba-2's recurrence; see Backend.mamba2.
void mamba2(Context&, const Scan&, const float* xbc, const float* steps, float* state, float* out);

// Bytes of a resident copy of `matrix`, in the order that the kernels want, and the copy.
size_t resident_bytes(const Context&, const Matrix& matrix);
Matrix make_resident(Context&, const Matrix& matrix, uint8_t* bytes);

void embed(Context&, const Matrix& table, const int32_t* tokens, int count, float* out);
void rms_norm(Context&, const float* x, int rows, int columns, const float* weight, float eps,
              float* out);
void rope(Context&, const float* x, int tokens, int heads, int dim, const float* cos,
          const float* sin, int half, bool interleaved, float* out);
void add(Context&, const float* a, const float* b, size_t count, float* out);
void glu(Context&, Activation, const float* gate, const float* up, size_t count, float* out);
// The same on this thread.
void glu_row(const Kernels&, Activation, const float* gate, const float* up, int count, float* out);
void route(Context&, const float* logits, int tokens, const RoutingRule& rule, int32_t* ids,
           float* weights);

// Bytes a second that all threads together read from memory.
double read_bandwidth(Context&, size_t bytes, int repeats);

// The kernels to use: `name`, or the best of this machine if null. Null, with the names of those
// that run here in `available`, if there are none of that name.
const Kernels* choose_kernels(const char* name, std::vector<const char*>* available);

}  // namespace moestream
