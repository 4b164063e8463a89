// What AVX2 and AVX-512 do alike lane by lane, written once for vectors of either width.
#pragma once

#include "core/scalar_math.h"

namespace moestream {
namespace {

// exp_lane of all lanes.
template <class V>
inline auto exp_lanes(typename V::Float x) {
    using Float = typename V::Float;
    const Float low = V::set(kExpLow);
    // The second operand comes back when either is NaN, so NaN passes through.
    const Float clamped = V::min(V::set(kExpHigh), V::max(low, x));
    const Float n = V::nearest(V::mul(clamped, V::set(kLog2e)));
    const Float r = V::fma(n, V::set(-kLn2Low), V::fma(n, V::set(-kLn2High), clamped));
    Float p = V::set(kExpP[0]);
    for (int i = 1; i < 6; ++i) p = V::fma(p, r, V::set(kExpP[i]));
    const Float value = V::add(V::fma(p, V::mul(r, r), r), V::set(1.0f));
    return V::bounded_by(x, low, V::mul(value, V::power_of_two(n)));
}

// In each 128 bits, four rows of four values become four columns.
template <class V>
inline void transpose_quarters(const typename V::Float* rows, typename V::Float* to) {
    const auto a = V::low_singles(rows[0], rows[1]), b = V::high_singles(rows[0], rows[1]);
    const auto c = V::low_singles(rows[2], rows[3]), d = V::high_singles(rows[2], rows[3]);
    to[0] = V::low_pairs(a, c);
    to[1] = V::high_pairs(a, c);
    to[2] = V::low_pairs(b, d);
    to[3] = V::high_pairs(b, d);
}

}  // namespace
}  // namespace moestream
