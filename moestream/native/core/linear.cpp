// Products with resident matrices: input forms, and sharing out panels of rows.
#include <algorithm>

#include "core/context.h"

namespace moestream {

void InputForms::set(const float* x, int tokens, int columns) {
    for (int kind = 0; kind < 3; ++kind) {
        rows_[kind] = InputRows{};
        rows_[kind].kind = static_cast<Input>(kind);
        rows_[kind].x = x;
        rows_[kind].tokens = tokens;
        rows_[kind].columns = columns;
        made_[kind] = false;
    }
}

const InputRows& InputForms::form(Input kind, ThreadPool& pool, const Kernels& kernels) {
    const int index = static_cast<int>(kind);
    InputRows& rows = rows_[index];
    if (kind == Input::Float || made_[index]) return rows;
    made_[index] = true;
    const int block = kind == Input::Block32 ? 32 : 256;
    const size_t tokens = rows.tokens, columns = rows.columns, blocks = columns / block;
    // One allocation: scales, their sums, integer sums, values; widest first, so all are aligned.
    const size_t scales = tokens * blocks;
    const size_t sums16 = tokens * (columns / 16), sums32 = tokens * (columns / 32);
    auto* base = buffers_[index].get<uint8_t>(2 * scales * sizeof(float) +
                                              (sums16 + sums32) * sizeof(int16_t) +
                                              tokens * columns);
    auto* d = reinterpret_cast<float*>(base);
    auto* s = d + scales;
    auto* s16 = reinterpret_cast<int16_t*>(s + scales);
    auto* s32 = s16 + sums16;
    auto* q = reinterpret_cast<int8_t*>(s32 + sums32);
    rows.d = d, rows.s = s, rows.sums16 = s16, rows.sums32 = s32, rows.q = q;
    const auto quantize = kind == Input::Block32 ? kernels.quantize32 : kernels.quantize256;
    pool.parallel_for(static_cast<int>(tokens), [&](int token, int) {
        const size_t t = token;
        quantize(rows.x + t * columns, static_cast<int>(columns),
                 QuantizedRow{q + t * columns, d + t * blocks, s + t * blocks,
                              s16 + t * (columns / 16), s32 + t * (columns / 32)});
    });
    return rows;
}

Context::Context(int threads, const Kernels& chosen)
    : pool(threads), kernels(chosen), scratch(threads) {}

void Context::reserve_scratch(size_t bytes) {
    for (Buffer& buffer : scratch) buffer.get<uint8_t>(bytes);
}

namespace {

// Tokens of an input: those at `rows`, or the first of all if null.
struct Tokens {
    const InputRows* input;
    const int32_t* rows;
    int count;
};

// Rows [first, last) of one product.
void multiply_rows(Context& context, const Product& product, const Tokens& tokens, int first,
                   int last, int thread) {
    const Matrix& weight = *product.weight;
    for (int row = first; row < last; row += kPanelRows) {
        Panel panel{};
        panel.weights = weight.row(row);
        panel.row_bytes = weight.row_bytes;
        panel.next = reinterpret_cast<uintptr_t>(weight.row(row + kPanelRows));
        panel.rows = std::min(kPanelRows, last - row);
        panel.input = tokens.input;
        panel.in_rows = panel.out_rows = tokens.rows;
        panel.tokens = tokens.count;
        panel.out = product.out + row;
        panel.out_stride = weight.rows;
        panel.scratch = context.scratch[thread].get<uint8_t>(0);
        const TypeKernels& kernels = context.kernels.of_type[weight.type];
        (weight.packed ? kernels.matmul_packed : kernels.matmul)(panel);
        if (product.bias == nullptr && weight.scale == 1.0f) continue;
        for (int t = 0; t < tokens.count; ++t) {
            float* out = panel.out + (tokens.rows ? tokens.rows[t] : t) * panel.out_stride;
            for (int r = 0; r < panel.rows; ++r) out[r] *= weight.scale;
            if (product.bias == nullptr) continue;
            for (int r = 0; r < panel.rows; ++r) out[r] += product.bias[row + r];
        }
    }
}

// How many panels go to a thread at a time, of `total`: long runs, which prefetching likes, but
// enough of them to even out slow threads.
int panels_at_once(const Context& context, int total) {
    return std::clamp(total / (6 * context.pool.threads()), 1, 32);
}

int panel_count(const Matrix& matrix) { return (matrix.rows + kPanelRows - 1) / kPanelRows; }

}  // namespace

size_t resident_bytes(const Context& context, const Matrix& matrix) {
    const TypeLayout& layout = kTypeLayouts[matrix.type];
    if (context.kernels.of_type[matrix.type].matmul_packed == nullptr) {
        return layout.row_bytes(matrix.columns) * matrix.rows;
    }
    const size_t eights = (static_cast<size_t>(matrix.rows) + kPackedRows - 1) / kPackedRows;
    return eights * packed_rows_bytes(layout.type, matrix.columns);
}

Matrix make_resident(Context& context, const Matrix& matrix, uint8_t* bytes) {
    const TypeLayout& layout = kTypeLayouts[matrix.type];
    Matrix copy = matrix;
    copy.data = bytes;
    copy.packed = context.kernels.of_type[matrix.type].matmul_packed != nullptr;
    copy.row_bytes = copy.packed ? packed_rows_bytes(layout.type, matrix.columns)
                                 : layout.row_bytes(matrix.columns);
    const int eights = (matrix.rows + kPackedRows - 1) / kPackedRows;
    context.pool.parallel_for(eights, [&](int eight, int) {
        const int first = eight * kPackedRows;
        const int count = std::min(kPackedRows, matrix.rows - first);
        if (copy.packed) {
            pack_rows(layout.type, matrix.row(first), matrix.row_bytes, count, matrix.columns,
                      bytes + eight * copy.row_bytes);
            return;
        }
        for (int row = first; row < first + count; ++row) {
            std::copy_n(matrix.row(row), copy.row_bytes, bytes + row * copy.row_bytes);
        }
    });
    return copy;
}

void linear(Context& context, const float* x, int tokens, const Product* products, int count) {
    const int columns = products[0].weight->columns;
    context.input.set(x, tokens, columns);
    context.reserve_scratch(panel_scratch_bytes(columns));
    const InputRows* inputs[3] = {};
    int total = 0;
    for (int i = 0; i < count; ++i) {
        const int kind = static_cast<int>(products[i].weight->input());
        inputs[kind] = &context.input.form(products[i].weight->input(), context.pool,
                                           context.kernels);
        total += panel_count(*products[i].weight);
    }
    const int step = panels_at_once(context, total) * kPanelRows;
    int tasks = 0;
    int first_task[kMaxProducts] = {};
    for (int i = 0; i < count; ++i) {
        first_task[i] = tasks;
        tasks += (products[i].weight->rows + step - 1) / step;
    }
    context.pool.parallel_for(tasks, [&](int task, int thread) {
        int i = count - 1;
        while (first_task[i] > task) --i;
        const Product& product = products[i];
        const Tokens all{inputs[static_cast<int>(product.weight->input())], nullptr, tokens};
        const int first = (task - first_task[i]) * step;
        multiply_rows(context, product, all, first, std::min(first + step, product.weight->rows),
                      thread);
    });
}

void heads_linear(Context& context, const float* x, int tokens,
                  const std::vector<const Matrix*>& heads, float* out) {
    const Matrix& shape = *heads[0];
    const int count = static_cast<int>(heads.size());
    context.input.set(x, tokens * count, shape.columns);
    context.reserve_scratch(panel_scratch_bytes(shape.columns));
    const InputRows& input =
        context.input.form(shape.input(), context.pool, context.kernels);
    // Tokens lie one after the other, the heads of each together.
    auto* rows = context.gathered.get<int32_t>(static_cast<size_t>(tokens) * count);
    for (int head = 0; head < count; ++head) {
        for (int t = 0; t < tokens; ++t) rows[head * tokens + t] = t * count + head;
    }
    const int step = panels_at_once(context, count * panel_count(shape)) * kPanelRows;
    const int parts = (shape.rows + step - 1) / step;
    context.pool.parallel_for(count * parts, [&](int task, int thread) {
        const int head = task / parts, first = task % parts * step;
        multiply_rows(context, {heads[head], nullptr, out}, {&input, rows + head * tokens, tokens},
                      first, std::min(first + step, shape.rows), thread);
    });
}

}  // namespace moestream
