// The one driver of products with quantised weights, whatever the registers: V is an instruction
// set's vectors. A lane is a row; integer sums are exact, so only what is done to floats needs an
// order, and that is here.
//
// V has registers of kLanes rows (Float, Int) and their arithmetic. Beyond that it has
//     dot_block32, dot_block256: a block of kLanes rows and up to kFewTokens tokens, taken apart as
//     it comes;
//     packed_block32, packed_pair: the same of eight packed rows (packing.h), up to kFewPacked;
//     unpack, unpack_packed: kTileRegisters * kLanes rows, taken apart for all tokens, with codes
//     that are kTileOffset too large;
//     sum_block32, sum_block256, weigh, rows_of: a block of those, and up to kTileTokens tokens.
// V::Few is V, or the vectors that take few tokens.
#pragma once

#include "core/packing.h"
#include "kernels/loops.h"

namespace moestream {
namespace {

// Tokens from which on taking a packed panel apart first pays: it costs about three tokens'
// products. Others are taken apart for more tokens than kFewTokens.
inline constexpr int kGemmTokens = 4;

// From a block's integer sum, of codes that are Offset too large, to the result, for the rows of a
// register and one token.
template <class V, class T, int Offset, int NT>
inline typename V::Float add_block32(typename V::Float acc, typename V::Int sum,
                                     typename V::Float d, typename V::Float m,
                                     const TokenRows<T, NT>& x, int token, int block) {
    if constexpr (Offset != 0) sum = V::sub(sum, V::set_int(Offset * *x.sums(token, block)));
    acc = V::fma(V::mul(d, V::set(x.d(token, block))), V::to_float(sum), acc);
    if constexpr (T::kHasMin) acc = V::fma(m, V::set(x.s(token, block)), acc);
    return acc;
}

// A super-block's sum, given that of weights (minimums, or scales for an offset) times input sums.
template <class V, int Offset>
inline typename V::Int without_offset(typename V::Int sum, typename V::Int weighed) {
    if constexpr (Offset == 0) {
        return sum;
    } else {
        return V::sub(sum, V::shift_left(weighed, shift_of(Offset)));
    }
}

template <class V, class T>
inline typename V::Float add_block256(typename V::Float acc, typename V::Int sum,
                                      typename V::Int mins, typename V::Float d,
                                      typename V::Float dmin, float input) {
    const typename V::Float scale = V::set(input);
    acc = V::fma(V::mul(d, scale), V::to_float(sum), acc);
    if constexpr (T::kHasMin) acc = V::fnma(V::mul(dmin, scale), V::to_float(mins), acc);
    return acc;
}

// The panel's rows from `first` on against NT tokens from `token` on: body(x, acc) adds up, `acc`
// having Registers registers a token.
template <class V, class T, int NT, int Registers, class Body>
inline void run_tokens(const Panel& panel, int first, int token, const Body& body) {
    const TokenRows<T, NT> x(panel, token);
    typename V::Float acc[NT * Registers];
    fill<NT * Registers>(acc, V::zero());
    body(x, acc);
    unroll<NT>([&](auto t) {
        float* out = output_row(panel, token + t);
        unroll<Registers>([&](auto r) {
            const int row = first + r * V::kLanes;
            V::store_some(out + row, acc[t * Registers + r], panel.rows - row);
        });
    });
}

template <class V, class T>
inline void gemv(const Panel& panel) {
    const int blocks = panel.input->columns / (T::kUnit * T::kParts);
    for (int first = 0; first < panel.rows; first += V::kLanes) {
        const uint8_t* rows[V::kLanes];
        row_pointers<V::kLanes>(panel, first, rows);
        const uintptr_t ahead =
            first + V::kLanes < panel.rows
                ? reinterpret_cast<uintptr_t>(rows[0]) + V::kLanes * panel.row_bytes
                : panel.next;
        in_runs<V::kFewTokens>(panel.tokens, [&](auto nt, int token) {
            run_tokens<V, T, nt, 1>(panel, first, token, [&](const auto& x, auto* acc) {
                if constexpr (T::kSuper) {
                    V::template dot_block256<T, nt>(rows, ahead, blocks, x, acc);
                } else {
                    V::template dot_block32<T, nt>(rows, ahead, blocks, x, acc);
                }
            });
        });
    }
}

// Floats of register `r` of a packed block's eight rows, d and m.
template <class V>
inline typename V::Float packed_d(const uint8_t* p, int r) {
    return V::load_halves(p + r * V::kLanes * 2);
}

template <class V, class T>
inline typename V::Float packed_m(const uint8_t* p, int r) {
    return T::kHasMin ? V::load_halves(p + 16 + r * V::kLanes * 2) : V::zero();
}

template <class V, class T, int NT>
inline void packed_block32(const uint8_t* p, int block, const TokenRows<T, NT>& x,
                           typename V::Float* acc) {
    constexpr int kRegisters = kPackedRows / V::kLanes;
    typename V::Int sums[NT * kRegisters];
    V::template packed_block32<T, NT>(p + packing_of(T::kType).codes_at(), x.q, block * 32, sums);
    unroll<NT * kRegisters>([&](auto i) {
        constexpr int kToken = i / kRegisters, kRegister = i % kRegisters;
        acc[i] = add_block32<V, T, T::kOffset>(acc[i], sums[i], packed_d<V>(p, kRegister),
                                   packed_m<V, T>(p, kRegister), x, kToken, block);
    });
}

template <class V, class T, int NT>
inline void packed_block256(const uint8_t* p, int block, const TokenRows<T, NT>& x,
                            typename V::Float* acc) {
    constexpr int kRegisters = kPackedRows / V::kLanes;
    typename V::Int sums[NT * kRegisters], weighed[NT * kRegisters];
    fill<NT * kRegisters>(sums, V::zero_int());
    fill<NT * kRegisters>(weighed, V::zero_int());
    for (int n = 0; n < packing_of(T::kType).pairs; ++n) {
        V::template packed_pair<T, NT>(p, block, n, x, sums, weighed);
    }
    unroll<NT * kRegisters>([&](auto i) {
        constexpr int kToken = i / kRegisters, kRegister = i % kRegisters;
        const auto sum = without_offset<V, T::kOffset>(sums[i], weighed[i]);
        acc[i] = add_block256<V, T>(acc[i], sum, weighed[i], packed_d<V>(p, kRegister),
                                    packed_m<V, T>(p, kRegister), x.d(kToken, block));
    });
}

template <class V, class T, int NT>
[[gnu::flatten]] inline void packed_tokens(const Panel& panel, int first, int token) {
    constexpr int kBytes = packing_of(T::kType).block_bytes;
    const uint8_t* p = panel.weights + first / kPackedRows * panel.row_bytes;
    const int blocks = panel.input->columns / T::kBlock;
    run_tokens<V, T, NT, kPackedRows / V::kLanes>(panel, first, token, [&](const auto& x,
                                                                           auto* acc) {
        for (int b = 0; b < blocks; ++b, p += kBytes) {
            V::template prefetch_stream<kBytes>(p);
            if constexpr (T::kSuper) {
                packed_block256<V, T, NT>(p, b, x, acc);
            } else {
                packed_block32<V, T, NT>(p, b, x, acc);
            }
        }
    });
}

template <class V, class T>
inline void packed_gemv(const Panel& panel) {
    for (int first = 0; first < panel.rows; first += kPackedRows) {
        in_runs<V::kFewPacked>(panel.tokens, [&](auto nt, int token) {
            packed_tokens<V, T, nt>(panel, first, token);
        });
    }
}

template <class V, class T, int NT>
inline void tile_block32(const typename V::Unpacked& w, int block, const TokenRows<T, NT>& x,
                         typename V::Float* acc) {
    constexpr int kRegisters = V::kTileRegisters;
    typename V::template Sums<NT> sums;
    V::template sum_block32<T, NT>(w, block, x.q, sums);
    unroll<NT * kRegisters>([&](auto i) {
        constexpr int kToken = i / kRegisters, kRegister = i % kRegisters;
        const size_t at = static_cast<size_t>(block * kRegisters + kRegister) * V::kLanes;
        acc[i] = add_block32<V, T, V::template kTileOffset<T>>(
            acc[i], V::template rows_of<kToken, kRegister>(sums), V::load(w.d + at),
            V::load(w.m + at), x, kToken, block);
    });
}

template <class V, class T, int NT>
inline void tile_block256(const typename V::Unpacked& w, int block, const TokenRows<T, NT>& x,
                          typename V::Float* acc) {
    constexpr int kRegisters = V::kTileRegisters;
    typename V::template Sums<NT> sums;
    typename V::Int weighed[NT * kRegisters];
    V::template sum_block256<T, NT>(w, block, x.q, sums);
    fill<NT * kRegisters>(weighed, V::zero_int());
    if constexpr (T::kHasMin || V::template kTileOffset<T> != 0) {
        V::template weigh<T, NT>(w, block, x, weighed);
    }
    unroll<NT * kRegisters>([&](auto i) {
        constexpr int kToken = i / kRegisters, kRegister = i % kRegisters;
        const size_t at = static_cast<size_t>(block * kRegisters + kRegister) * V::kLanes;
        const auto sum = without_offset<V, V::template kTileOffset<T>>(
            V::template rows_of<kToken, kRegister>(sums), weighed[i]);
        acc[i] = add_block256<V, T>(acc[i], sum, weighed[i], V::load(w.d + at), V::load(w.m + at),
                                    x.d(kToken, block));
    });
}

// Not inlined: each number of tokens has the registers to itself.
template <class V, class T, int NT>
[[gnu::flatten, gnu::noinline]] void tile(const Panel& panel, const typename V::Unpacked& w,
                                          int first, int token) {
    const int blocks = panel.input->columns / T::kBlock;
    run_tokens<V, T, NT, V::kTileRegisters>(panel, first, token, [&](const auto& x, auto* acc) {
        for (int b = 0; b < blocks; ++b) {
            if constexpr (T::kSuper) {
                tile_block256<V, T, NT>(w, b, x, acc);
            } else {
                tile_block32<V, T, NT>(w, b, x, acc);
            }
        }
    });
}

template <class V, class T, bool Packed>
void matmul(const Panel& panel) {
    using Few = typename V::Few;
    if constexpr (Packed) {
        if (panel.tokens < kGemmTokens) return packed_gemv<Few, T>(panel);
    } else {
        if (panel.tokens <= Few::kFewTokens) return gemv<Few, T>(panel);
    }
    const typename V::Unpacked w(panel.scratch, panel.input->columns, T::kBlock);
    for (int first = 0; first < panel.rows; first += V::kTileRegisters * V::kLanes) {
        if constexpr (Packed) {
            V::template unpack_packed<T>(panel, first, w);
        } else {
            V::template unpack<T>(panel, first, w);
        }
        in_runs<V::kTileTokens>(panel.tokens, [&](auto nt, int token) {
            tile<V, T, nt>(panel, w, first, token);
        });
    }
}

}  // namespace
}  // namespace moestream
