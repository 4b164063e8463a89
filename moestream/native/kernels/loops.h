// How the vector kernels walk over rows, tokens and registers, whatever the registers are.
//
// Everything is in an unnamed namespace, here and in all that lies beside this: each instruction
// set's unit is made of these headers, and none may be linked to another's code.
#pragma once

#include <utility>

#include "core/kernels.h"

namespace moestream {
namespace {

// body(0), ..., body(N - 1), each number a constant: lane numbers must be, and a loop that is left
// standing would keep arrays of registers in memory.
// What uses it is marked gnu::flatten: left to itself, GCC makes calls of the bodies, with the same
// result (18 stack accesses for 8 products in the innermost loop, instead of none for 64).
template <int N, class Body>
inline void unroll(const Body& body) {
    [&]<int... I>(std::integer_sequence<int, I...>) {
        (body(std::integral_constant<int, I>{}), ...);
    }(std::make_integer_sequence<int, N>{});
}

template <int N, class Register>
inline void fill(Register* registers, Register value) {
    unroll<N>([&](auto i) { registers[i] = value; });
}

// body(NT, first) for runs of at most Most tokens, NT being a constant.
template <int Most, class Body>
inline void in_runs(int tokens, const Body& body, int first = 0) {
    for (; first + Most <= tokens; first += Most) {
        body(std::integral_constant<int, Most>{}, first);
    }
    if constexpr (Most > 1) in_runs<(Most > 4 ? Most / 2 : Most - 1)>(tokens, body, first);
}

// Rows from `first` on; those beyond the panel's last repeat its first: computed, never stored.
template <int Rows>
inline void row_pointers(const Panel& panel, int first, const uint8_t** rows) {
    for (int r = 0; r < Rows; ++r) {
        const int row = first + r < panel.rows ? first + r : 0;
        rows[r] = panel.weights + row * panel.row_bytes;
    }
}

// Where the input of the panel's token lies, and where its result goes.
inline int input_row(const Panel& panel, int token) {
    return panel.in_rows ? panel.in_rows[token] : token;
}

inline float* output_row(const Panel& panel, int token) {
    const int row = panel.out_rows ? panel.out_rows[token] : token;
    return panel.out + static_cast<size_t>(row) * panel.out_stride;
}

// Rows of NT tokens in the input that a type reads. One number says where all of a token's floats
// lie: a pointer to each would not fit in the registers.
template <class T, int NT>
class TokenRows {
  public:
    const int8_t* q[NT];

    // Those of the panel's tokens from `first` on.
    TokenRows(const Panel& panel, int first) : in_(*panel.input) {
        const size_t blocks = in_.columns / T::kUnit;
        unroll<NT>([&](auto t) {
            first_[t] = input_row(panel, first + t) * blocks;
            q[t] = in_.q + first_[t] * T::kUnit;
        });
    }

    // Of the input that meets a block of kBlock columns.
    float d(int token, int block) const {
        return in_.d[first_[token] + block * T::kBlock / T::kUnit];
    }
    float s(int token, int block) const { return in_.s[first_[token] + block]; }
    // Sums of the inputs of groups, from `group` on.
    const int16_t* sums(int token, int group) const {
        const int16_t* all = T::kGroup == 16 ? in_.sums16 : in_.sums32;
        return all + first_[token] * T::kGroups + group;
    }

  private:
    const InputRows& in_;
    size_t first_[NT];
};

}  // namespace
}  // namespace moestream
