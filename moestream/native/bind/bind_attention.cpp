// The Python face of attention over the KV cache.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "bind/bind.h"
#include "bind/checks.h"
#include "core/attention.h"
#include "core/cache_rows.h"

namespace moestream {
namespace {

// The sequences of a pass with the addresses of their blocks, all of one size.
struct Sequences {
    std::vector<Addresses> blocks;
    KVPass pass;
    int64_t block_bytes;
};

// Where a layer's keys and values lie in a block: offsets, and GGML numbers of their types.
struct KVPlace {
    int64_t key_offset, value_offset;
    int key_type, value_type;
};

void add_sequence(Sequences& to, const Addresses& blocks, int64_t start, int64_t tokens) {
    check_shape("blocks", blocks, {-1});
    const auto positions = static_cast<int64_t>(blocks.shape(0)) * kSplitPositions;
    if (start < 0 || tokens < 1 || start > positions - tokens) {
        fail("positions " + std::to_string(start) + " and " + std::to_string(tokens) +
             " more do not fit in a cache of " + std::to_string(positions));
    }
    const int row = static_cast<int>(to.pass.sequence_of.size());
    const int index = static_cast<int>(to.pass.sequences.size());
    to.blocks.push_back(blocks);
    to.pass.sequences.push_back(
        {blocks.data(), checked_int("start", start), checked_int("tokens", tokens), row});
    to.pass.sequence_of.insert(to.pass.sequence_of.end(), tokens, index);
}

Type checked_cache(int number, int64_t offset, int64_t kv_heads, int64_t dim,
                   const Sequences& in) {
    const auto type = static_cast<Type>(number);
    const bool in_blocks = type == Type::Q8_0 || type == Type::Q4_0;
    if (type != Type::F32 && type != Type::F16 && !in_blocks) {
        fail("keys and values must be F32, F16, Q8_0 or Q4_0, not type " +
             std::to_string(number));
    }
    if (in_blocks && dim % kCacheBlock != 0) {
        fail("heads of " + std::to_string(dim) + " are not whole blocks of " +
             std::to_string(kCacheBlock));
    }
    const auto row = static_cast<int64_t>(cache_row_bytes(type, checked_int("head size", dim)));
    if (offset < 0 || offset > in.block_bytes - row * kv_heads * kSplitPositions) {
        fail(std::to_string(kv_heads) + " heads of " + std::to_string(row) + " bytes at " +
             std::to_string(offset) + " do not fit in blocks of " +
             std::to_string(in.block_bytes) + " bytes");
    }
    return type;
}

// A byte a row and position, up to the end of the longest sequence; each key/value head may have
// its own.
void check_chosen(const Bytes& chosen, const Sequences& in, int64_t tokens, int64_t kv_heads) {
    check_shape("seen", chosen, {tokens, kv_heads, -1});
    for (const KVSequence& sequence : in.pass.sequences) {
        if (static_cast<int64_t>(chosen.shape(2)) < sequence.start + sequence.tokens) {
            fail("seen has shape " + shape_text(chosen) + ", expected all of " +
                 std::to_string(sequence.start + sequence.tokens) + " positions");
        }
    }
    const auto positions = static_cast<int64_t>(chosen.shape(2));
    if (chosen.stride(2) != 1 || chosen.stride(1) != positions ||
        chosen.stride(0) != kv_heads * positions) {
        fail("seen has gaps between its rows");
    }
}

void call_attention(Context& context, const Floats& q, const Floats& k,
                    const std::optional<Floats>& v, const Sequences& in, const KVPlace& place,
                    float scale, int64_t window, const std::optional<Floats>& sinks,
                    const FloatsOut& out, const std::optional<Bytes>& chosen, float cap) {
    check_shape("q", q, {static_cast<int64_t>(in.pass.sequence_of.size()), -1, -1});
    const auto tokens = static_cast<int64_t>(q.shape(0)), heads = static_cast<int64_t>(q.shape(1)),
               dim = static_cast<int64_t>(q.shape(2));
    check_shape("k", k, {tokens, -1, dim});
    const auto kv_heads = static_cast<int64_t>(k.shape(1));
    if (kv_heads == 0 || heads % kv_heads != 0 || dim == 0) {
        fail(std::to_string(heads) + " query heads of " + std::to_string(dim) +
             " do not divide among " + std::to_string(kv_heads) + " key/value heads");
    }
    check_shape("out", out, {tokens, -1});
    const auto value_dim = heads == 0 ? dim : static_cast<int64_t>(out.shape(1)) / heads;
    check_shape("out", out, {tokens, heads * value_dim});
    const Type key_type = checked_cache(place.key_type, place.key_offset, kv_heads, dim, in);
    Type value_type = key_type;
    if (v.has_value()) {
        check_shape("v", *v, {tokens, kv_heads, value_dim});
        value_type =
            checked_cache(place.value_type, place.value_offset, kv_heads, value_dim, in);
    } else if (value_dim > dim) {
        fail("values of " + std::to_string(value_dim) + " are no part of keys of " +
             std::to_string(dim));
    }
    if (sinks.has_value()) check_shape("sinks", *sinks, {heads});
    if (!(cap >= 0)) fail("cap is " + std::to_string(cap) + ", expected 0 or more");
    if (window < 0) fail("window is " + std::to_string(window) + ", expected 0 or more");
    if (tokens == 0 || heads == 0 || value_dim == 0) return;
    const bool alike = chosen.has_value() && chosen->ndim() == 3 && chosen->shape(1) == 1;
    if (chosen.has_value()) check_chosen(*chosen, in, tokens, alike ? 1 : kv_heads);
    const AttentionShape shape{checked_int("heads", heads),
                               checked_int("key/value heads", kv_heads),
                               checked_int("head size", dim),
                               checked_int("value size", value_dim),
                               static_cast<size_t>(place.key_offset),
                               static_cast<size_t>(place.value_offset),
                               scale,
                               checked_int("window", std::min<int64_t>(window, 1 << 28)),
                               sinks.has_value() ? sinks->data() : nullptr,
                               key_type,
                               value_type,
                               chosen.has_value() ? chosen->data() : nullptr,
                               chosen.has_value() ? chosen->shape(2) : 0,
                               alike ? 1 : static_cast<size_t>(kv_heads),
                               cap};
    Running running(context);
    attention(context, shape, in.pass, q.data(), k.data(), v.has_value() ? v->data() : nullptr,
              out.data());
}

}  // namespace

void bind_attention(nb::module_& m, nb::class_<Context>& context) {
    using nb::arg;
    m.attr("BLOCK_POSITIONS") = kSplitPositions;
    nb::class_<Sequences>(m, "KVPass")
        .def("__init__",
             [](Sequences* self, const std::vector<std::tuple<Addresses, int64_t, int64_t>>& all,
                int64_t block_bytes) {
                 new (self) Sequences{{}, {}, block_bytes};
                 for (const auto& [blocks, start, tokens] : all) {
                     add_sequence(*self, blocks, start, tokens);
                 }
             },
             arg("sequences"), arg("block_bytes"));
    nb::class_<KVPlace>(m, "KVPlace")
        .def(nb::init<int64_t, int64_t, int, int>(), arg("key_offset"), arg("value_offset"),
             arg("key_type"), arg("value_type"));
    context
        .def("attention", &call_attention, arg("q").noconvert(), arg("k").noconvert(),
             arg("v").noconvert().none(), arg("kv_pass"), arg("place"), arg("scale"),
             arg("window"), arg("sinks").noconvert().none(), arg("out").noconvert(),
             arg("seen").noconvert() = nb::none(), arg("cap") = 0.0f);
}

}  // namespace moestream
