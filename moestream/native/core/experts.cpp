// The routed experts of a layer: grouped by expert, so that each one's weights are read once.
#include <algorithm>

#include "core/context.h"

namespace moestream {
namespace {

// The (token, slot) pairs of the experts to run, expert after expert.
struct Groups {
    std::vector<int32_t> experts;    // one a group
    std::vector<int32_t> starts;     // of each group's pairs, and the end
    std::vector<int32_t> pairs;      // token * slots + slot
    std::vector<int32_t> rows;       // of each pair: its token's place in `tokens`
    std::vector<int32_t> positions;  // 0, 1, 2, ...
    std::vector<int32_t> tokens;     // that any pair has
};

// All that are chosen, each once.
std::vector<int32_t> chosen_experts(const Routing& routing) {
    std::vector<int32_t> experts(routing.ids, routing.ids + routing.tokens * routing.slots);
    std::sort(experts.begin(), experts.end());
    experts.erase(std::unique(experts.begin(), experts.end()), experts.end());
    return experts;
}

Groups group_by_expert(const Routing& routing, const std::vector<int32_t>* batch) {
    const int count = routing.tokens * routing.slots;
    Groups groups;
    groups.experts = batch != nullptr ? *batch : chosen_experts(routing);
    const int largest = *std::max_element(routing.ids, routing.ids + count);
    std::vector<int32_t> group_of(static_cast<size_t>(largest) + 1, -1);
    for (size_t g = 0; g < groups.experts.size(); ++g) {
        if (groups.experts[g] <= largest) group_of[groups.experts[g]] = static_cast<int32_t>(g);
    }
    groups.starts.assign(groups.experts.size() + 1, 0);
    for (int i = 0; i < count; ++i) {
        if (const int g = group_of[routing.ids[i]]; g >= 0) ++groups.starts[g + 1];
    }
    for (size_t g = 1; g < groups.starts.size(); ++g) groups.starts[g] += groups.starts[g - 1];
    groups.pairs.resize(groups.starts.back());
    groups.rows.resize(groups.starts.back());
    groups.positions.resize(groups.starts.back());
    std::vector<int32_t> next(groups.starts.begin(), groups.starts.end() - 1);
    for (int i = 0; i < count; ++i) {
        const int g = group_of[routing.ids[i]];
        if (g < 0) continue;
        const int32_t token = i / routing.slots;
        if (groups.tokens.empty() || groups.tokens.back() != token) groups.tokens.push_back(token);
        groups.pairs[next[g]] = i;
        groups.rows[next[g]++] = static_cast<int32_t>(groups.tokens.size()) - 1;
    }
    for (size_t i = 0; i < groups.positions.size(); ++i) {
        groups.positions[i] = static_cast<int32_t>(i);
    }
    return groups;
}

// Rows of the matrices of one group's expert.
struct Place {
    int group;
    int row;
};

struct Scratch {
    uint8_t* panel;
    float* gate;  // (tokens, kPanelRows)
    float* up;
};

class ExpertRun {
  public:
    ExpertRun(Context& context, const ExpertSet& experts, const Groups& groups)
        : context_(context), experts_(experts), groups_(groups) {
        const int widest = std::max(experts.gate.first.columns, experts.down.first.columns);
        panel_bytes_ = panel_scratch_bytes(widest);
        for (size_t g = 0; g + 1 < groups.starts.size(); ++g) {
            most_ = std::max(most_, groups.starts[g + 1] - groups.starts[g]);
        }
        context.reserve_scratch(panel_bytes_ + 2 * sizeof(float) * most_ * kPanelRows);
    }

    // hidden (pairs in group order, F) = act(gate(x)) * up(x).
    void gate_and_up(const InputRows& gate_in, const InputRows& up_in, float* hidden) {
        const int width = experts_.gate.first.rows;
        each_panel(width, [&](Place at, Place next, int thread) {
            const Scratch scratch = scratch_of(thread);
            const int begin = groups_.starts[at.group];
            const int tokens = groups_.starts[at.group + 1] - begin;
            const int rows = std::min(kPanelRows, width - at.row);
            multiply(experts_.gate, at, next, gate_in, scratch.panel, scratch.gate);
            if (experts_.ungated) {
                std::copy_n(scratch.gate, static_cast<size_t>(tokens) * kPanelRows, scratch.up);
            } else {
                multiply(experts_.up, at, next, up_in, scratch.panel, scratch.up);
            }
            const int expert = groups_.experts[at.group];
            for (int t = 0; t < tokens; ++t) {
                float* gate = scratch.gate + t * kPanelRows;
                float* up = scratch.up + t * kPanelRows;
                scale_row(experts_.gate_scale, expert, rows, gate);
                scale_row(experts_.up_scale, expert, rows, up);
                add_bias(experts_.gate_bias, expert, width, at.row, rows, gate);
                add_bias(experts_.up_bias, expert, width, at.row, rows, up);
                glu_row(context_.kernels, experts_.activation, gate, up, rows,
                        hidden + static_cast<size_t>(begin + t) * width + at.row);
            }
        });
    }

    // outputs (tokens, slots, E) = down(hidden).
    void down(const InputRows& in, float* outputs) {
        const int width = experts_.down.first.rows;
        each_panel(width, [&](Place at, Place next, int thread) {
            Panel panel = make_panel(experts_.down, at, next, in, scratch_of(thread).panel);
            panel.in_rows = groups_.positions.data() + groups_.starts[at.group];
            panel.out_rows = groups_.pairs.data() + groups_.starts[at.group];
            panel.out = outputs + at.row;
            panel.out_stride = width;
            context_.kernels.of_type[experts_.down.first.type].matmul(panel);
            for (int t = 0; t < panel.tokens; ++t) {
                float* out = panel.out + static_cast<size_t>(panel.out_rows[t]) * width;
                add_bias(experts_.down_bias, groups_.experts[at.group], width, at.row, panel.rows,
                         out);
            }
        });
    }

  private:
    static void scale_row(const float* scales, int expert, int rows, float* out) {
        if (scales == nullptr) return;
        for (int i = 0; i < rows; ++i) out[i] *= scales[expert];
    }

    // To `rows` outputs of one token, from row `first` on of an expert's `width`.
    static void add_bias(const float* biases, int expert, int width, int first, int rows,
                         float* out) {
        if (biases == nullptr) return;
        const float* bias = biases + static_cast<size_t>(expert) * width + first;
        for (int i = 0; i < rows; ++i) out[i] += bias[i];
    }

    template <class Body>
    void each_panel(int rows, const Body& body) {
        const int groups = static_cast<int>(groups_.experts.size());
        const int panels = (rows + kPanelRows - 1) / kPanelRows;
        // Long runs of rows: where the next one starts is a guess (see below).
        const int step = std::clamp(groups * panels / (2 * context_.pool.threads()), 1, 32);
        const int tasks = (panels + step - 1) / step;
        context_.pool.parallel_for(groups * tasks, [&](int task, int thread) {
            // Threads take tasks in turn, so this one will probably be given that one next.
            const int later = task + context_.pool.threads();
            Place at{task / tasks, task % tasks * step};
            const int end = std::min(at.row + step, panels);
            while (at.row < end) {
                Place next{at.group, at.row + 1};
                if (next.row == end && later < groups * tasks) {
                    next = {later / tasks, later % tasks * step};
                }
                body({at.group, at.row * kPanelRows}, {next.group, next.row * kPanelRows}, thread);
                ++at.row;
            }
        });
    }

    void multiply(const ExpertMatrices& matrices, Place at, Place next, const InputRows& in,
                  uint8_t* scratch, float* out) {
        Panel panel = make_panel(matrices, at, next, in, scratch);
        panel.in_rows = groups_.rows.data() + groups_.starts[at.group];
        panel.out = out;
        panel.out_stride = kPanelRows;
        context_.kernels.of_type[matrices.first.type].matmul(panel);
    }

    Panel make_panel(const ExpertMatrices& matrices, Place at, Place next, const InputRows& in,
                     uint8_t* scratch) {
        const Matrix matrix = matrices.expert(groups_.experts[at.group]);
        Panel panel{};
        panel.weights = matrix.row(at.row);
        panel.row_bytes = matrix.row_bytes;
        panel.rows = std::min(kPanelRows, matrix.rows - at.row);
        panel.next = reinterpret_cast<uintptr_t>(
            matrices.expert(groups_.experts[next.group]).row(next.row));
        panel.input = &in;
        panel.tokens = groups_.starts[at.group + 1] - groups_.starts[at.group];
        panel.scratch = scratch;
        return panel;
    }

    Scratch scratch_of(int thread) {
        auto* base = context_.scratch[thread].get<uint8_t>(0);
        auto* gate = reinterpret_cast<float*>(base + panel_bytes_);
        return {base, gate, gate + static_cast<size_t>(most_) * kPanelRows};
    }

    Context& context_;
    const ExpertSet& experts_;
    const Groups& groups_;
    size_t panel_bytes_ = 0;
    int most_ = 0;
};

// The rows of x that any of the groups' pairs needs, one after another.
const float* gather(Context& context, const float* x, const Groups& groups, int tokens,
                    int columns) {
    if (static_cast<int>(groups.tokens.size()) == tokens) return x;
    auto* rows = context.gathered.get<float>(groups.tokens.size() * columns);
    for (size_t i = 0; i < groups.tokens.size(); ++i) {
        std::copy_n(x + static_cast<size_t>(groups.tokens[i]) * columns, columns,
                    rows + i * columns);
    }
    return rows;
}

}  // namespace

void run_experts(Context& context, const float* x, const ExpertSet& experts,
                 const Routing& routing, const std::vector<int32_t>* batch, float* outputs) {
    const Groups groups = group_by_expert(routing, batch);
    const int pairs = static_cast<int>(groups.pairs.size());
    if (pairs == 0) return;
    const int columns = experts.gate.first.columns, width = experts.gate.first.rows;
    float* hidden = context.hidden.get<float>(static_cast<size_t>(pairs) * width);
    ExpertRun run(context, experts, groups);
    context.input.set(gather(context, x, groups, routing.tokens, columns),
                      static_cast<int>(groups.tokens.size()), columns);
    const auto form = [&](InputForms& forms, const ExpertMatrices& matrices) -> const InputRows& {
        return forms.form(matrices.first.input(), context.pool, context.kernels);
    };
    const InputRows& gate_in = form(context.input, experts.gate);
    run.gate_and_up(gate_in, form(context.input, experts.up), hidden);
    context.inner.set(hidden, pairs, width);
    run.down(form(context.inner, experts.down), outputs);
}

void sum_slots(Context& context, const float* outputs, const float* weights, int tokens, int slots,
               int columns, float* out) {
    constexpr int kTokens = 8;  // a task's; one token is not worth another thread
    context.pool.parallel_for((tokens + kTokens - 1) / kTokens, [&](int task, int) {
        for (int t = task * kTokens; t < std::min(tokens, (task + 1) * kTokens); ++t) {
            float* sum = out + static_cast<size_t>(t) * columns;
            for (int slot = 0; slot < slots; ++slot) {
                const size_t pair = static_cast<size_t>(t) * slots + slot;
                const float* value = outputs + pair * columns;
                const float weight = weights[pair];
                for (int i = 0; i < columns; ++i) {
                    sum[i] = slot == 0 ? value[i] * weight : sum[i] + value[i] * weight;
                }
            }
        }
    });
}

}  // namespace moestream
