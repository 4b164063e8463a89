#include "core/gates.h"

#include <algorithm>

#include "core/cache_append.h"
#include "core/cache_rows.h"

namespace moestream {
namespace {

// Tokens that the mean of a stream goes back to, each later one counting for less.
constexpr int kWindow = 32;
// Products of a gate that take less time than to share them out: some microseconds.
constexpr size_t kSmall = size_t{1} << 15;

bool is_float(const Matrix& matrix) {
    const Type type = kTypeLayouts[matrix.type].type;
    return type == Type::F32 || type == Type::F16 || type == Type::BF16;
}

// A matrix in Q8_0, in the order that the kernels want.
Matrix int8_copy(Context& context, const Matrix& matrix, Buffer& bytes) {
    Matrix copy = matrix;
    copy.type = type_index(static_cast<int>(Type::Q8_0));
    copy.packed = false;
    copy.row_bytes = kTypeLayouts[copy.type].row_bytes(copy.columns);
    std::vector<float> values(matrix.columns);
    std::vector<uint8_t> blocks(copy.row_bytes * copy.rows);
    for (int row = 0; row < matrix.rows; ++row) {
        embed(context, matrix, &row, 1, values.data());
        to_q8_0(context.kernels, values.data(), copy.columns, &blocks[row * copy.row_bytes]);
    }
    copy.data = blocks.data();
    return make_resident(context, copy, bytes.get<uint8_t>(resident_bytes(context, copy)));
}

}  // namespace

Gates::Gates(Context& context, std::vector<Gate> gates)
    : gates_(std::move(gates)),
      copies_(gates_.size()),
      means_(gates_.size() * static_cast<size_t>(gates_[0].router->columns)),
      noted_(gates_.size()) {
    for (size_t place = 0; place < gates_.size(); ++place) {
        const Matrix& router = *gates_[place].router;
        const bool copied = is_float(router) && router.columns % kCacheBlock == 0;
        routers_.push_back(copied ? int8_copy(context, router, copies_[place]) : router);
    }
}

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

std::vector<std::vector<int32_t>> Gates::choose(Context& context, int place, const float* x,
                                                int tokens, int ahead) {
    std::vector<std::vector<int32_t>> found;
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
        found.push_back(choose_one(context, later, moved_.data(), tokens));
    }
    return found;
}

std::vector<int32_t> Gates::choose_one(Context& context, int place, const float* x, int tokens) {
    const Gate& gate = gates_[place];
    const Matrix& router = routers_[place];
    const int n = columns();
    normed_.resize(static_cast<size_t>(tokens) * n);
    logits_.resize(static_cast<size_t>(tokens) * router.rows);
    weights_.resize(static_cast<size_t>(tokens) * k());
    ids_.resize(weights_.size());
    const bool small = static_cast<size_t>(tokens) * n * router.rows <= kSmall;
    const ThreadPool::Alone alone(context.pool, small);
    rms_norm(context, x, tokens, n, gate.norm, gate.eps, normed_.data());
    const Product product{&router, gate.bias, logits_.data()};
    linear(context, normed_.data(), tokens, &product, 1);
    route(context, logits_.data(), tokens, gate.rule, ids_.data(), weights_.data());
    std::vector<int32_t> chosen;
    for (int rank = 0; rank < k(); ++rank) {
        for (int t = 0; t < tokens; ++t) {
            const int32_t expert = ids_[static_cast<size_t>(t) * k() + rank];
            if (std::find(chosen.begin(), chosen.end(), expert) == chosen.end()) {
                chosen.push_back(expert);
            }
        }
    }
    return chosen;
}

}  // namespace moestream
