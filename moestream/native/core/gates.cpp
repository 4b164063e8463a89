#include "core/gates.h"

#include <algorithm>

namespace moestream {
namespace {

// Tokens that the mean of a stream goes back to, each later one counting for less.
constexpr int kWindow = 32;
// Products of a gate that take less time than to share them out: some microseconds.
constexpr size_t kSmall = size_t{1} << 15;

}  // namespace

Gates::Gates(std::vector<Gate> gates)
    : gates_(std::move(gates)),
      means_(gates_.size() * static_cast<size_t>(gates_[0].router->columns)),
      noted_(gates_.size()) {}

void Gates::note(int place, const float* x, int tokens) {
    const int n = columns();
    float* mean = &means_[static_cast<size_t>(place) * n];
    for (int t = std::max(0, tokens - kWindow); t < tokens; ++t) {
        noted_[place] = std::min(noted_[place] + 1, kWindow);
        const float share = 1.0f / static_cast<float>(noted_[place]);
        const float* row = x + static_cast<size_t>(t) * n;
        for (int i = 0; i < n; ++i) mean[i] += (row[i] - mean[i]) * share;
    }
}

void Gates::choose(Context& context, int place, const float* x, int tokens, int ahead,
                   int32_t* ids) {
    const int n = columns();
    const size_t size = static_cast<size_t>(tokens) * n;
    moved_.resize(size);
    for (int later = place + 1; later <= place + ahead; ++later) {
        const float* here = &means_[static_cast<size_t>(place) * n];
        const float* there = &means_[static_cast<size_t>(later) * n];
        const bool known = noted_[place] > 0 && noted_[later] > 0;
        for (size_t at = 0; at < size; at += n) {
            for (int i = 0; i < n; ++i) {
                moved_[at + i] = known ? x[at + i] + (there[i] - here[i]) : x[at + i];
            }
        }
        choose_one(context, gates_[later], moved_.data(), tokens, ids);
        ids += static_cast<size_t>(tokens) * k();
    }
}

void Gates::choose_one(Context& context, const Gate& gate, const float* x, int tokens,
                       int32_t* ids) {
    const int n = columns();
    normed_.resize(static_cast<size_t>(tokens) * n);
    logits_.resize(static_cast<size_t>(tokens) * gate.router->rows);
    weights_.resize(static_cast<size_t>(tokens) * k());
    const bool small = static_cast<size_t>(tokens) * n * gate.router->rows <= kSmall;
    const ThreadPool::Alone alone(context.pool, small);
    rms_norm(context, x, tokens, n, gate.norm, gate.eps, normed_.data());
    const Product product{gate.router, gate.bias, logits_.data()};
    linear(context, normed_.data(), tokens, &product, 1);
    route(context, logits_.data(), tokens, gate.rule, ids, weights_.data());
}

}  // namespace moestream
