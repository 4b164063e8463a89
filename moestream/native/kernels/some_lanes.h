// Less than a register's floats, for registers that have no masks.
#pragma once

#include <cstring>

namespace moestream {
namespace {

// V, which inherits this, has load, store and kLanes.
template <class V>
struct SomeLanes {
    // The first `count` floats, less than a register's, the rest zero.
    static auto load_some(const float* p, int count) {
        float v[V::kLanes] = {};
        std::memcpy(v, p, count * sizeof(float));
        return V::load(v);
    }
    template <class Float>
    static void store_some(float* p, Float v, int count) {
        if (count >= V::kLanes) return V::store(p, v);
        if (count <= 0) return;
        float all[V::kLanes];
        V::store(all, v);
        std::memcpy(p, all, count * sizeof(float));
    }
};

}  // namespace
}  // namespace moestream
