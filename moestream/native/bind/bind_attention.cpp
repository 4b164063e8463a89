// The Python face of attention over the KV cache.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <optional>

#include "bind/bind.h"
#include "bind/checks.h"
#include "core/cache_rows.h"

namespace moestream {
namespace {

// The type of a cache buffer (kv_heads, positions, row): float16, float32, or bytes of Q8_0.
Type checked_cache(const char* name, const AnyOut& buffer, int64_t kv_heads, int64_t positions,
                   int64_t dim) {
    const auto number = buffer.dtype();
    const bool is_float = number.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float);
    Type type = Type::Q8_0;
    if (number == nb::dtype<float>()) {
        type = Type::F32;
    } else if (is_float && number.bits == 16) {
        type = Type::F16;
    } else if (number != nb::dtype<uint8_t>()) {
        throw nb::type_error(
            (std::string(name) + " must hold float16, float32, or Q8_0 as uint8").c_str());
    }
    if (type == Type::Q8_0 && dim % 32 != 0) {
        fail("heads of " + std::to_string(dim) + " are not whole Q8_0 blocks of 32");
    }
    const auto row = static_cast<int64_t>(cache_row_bytes(type, checked_int("head size", dim)));
    check_shape(name, buffer, {kv_heads, positions, row / static_cast<int64_t>(buffer.itemsize())});
    return type;
}

void call_attention(Context& context, const Floats& q, const Floats& k,
                    const std::optional<Floats>& v, const AnyOut& keys,
                    const std::optional<AnyOut>& values, int64_t start, float scale,
                    int64_t window, const std::optional<Floats>& sinks, const FloatsOut& out) {
    check_shape("q", q, {-1, -1, -1});
    check_shape("keys", keys, {-1, -1, -1});
    const auto tokens = static_cast<int64_t>(q.shape(0)), heads = static_cast<int64_t>(q.shape(1)),
               dim = static_cast<int64_t>(q.shape(2)),
               kv_heads = static_cast<int64_t>(keys.shape(0)),
               positions = static_cast<int64_t>(keys.shape(1));
    check_shape("k", k, {tokens, kv_heads, dim});
    if (kv_heads == 0 || heads % kv_heads != 0 || dim == 0) {
        fail(std::to_string(heads) + " query heads of " + std::to_string(dim) +
             " do not divide among " + std::to_string(kv_heads) + " key/value heads");
    }
    check_shape("out", out, {tokens, -1});
    const auto value_dim = heads == 0 ? dim : static_cast<int64_t>(out.shape(1)) / heads;
    check_shape("out", out, {tokens, heads * value_dim});
    const Type key_type = checked_cache("keys", keys, kv_heads, positions, dim);
    Type value_type = key_type;
    if (v.has_value() != values.has_value()) fail("v and values go together: both or neither");
    if (v.has_value()) {
        value_type = checked_cache("values", *values, kv_heads, positions, value_dim);
        check_shape("v", *v, {tokens, kv_heads, value_dim});
    } else if (value_dim > dim) {
        fail("values of " + std::to_string(value_dim) + " are no part of keys of " +
             std::to_string(dim));
    }
    if (sinks.has_value()) check_shape("sinks", *sinks, {heads});
    if (window < 0) fail("window is " + std::to_string(window) + ", expected 0 or more");
    if (start < 0 || start + tokens > positions) {
        fail("positions " + std::to_string(start) + " to " + std::to_string(start + tokens) +
             " do not fit in a cache of " + std::to_string(positions));
    }
    if (tokens == 0 || heads == 0 || value_dim == 0) return;
    const AttentionShape shape{checked_int("tokens", tokens),
                               checked_int("heads", heads),
                               checked_int("key/value heads", kv_heads),
                               checked_int("head size", dim),
                               checked_int("value size", value_dim),
                               checked_int("positions", positions),
                               static_cast<int>(start),
                               scale,
                               checked_int("window", std::min(window, positions)),
                               sinks.has_value() ? sinks->data() : nullptr,
                               key_type,
                               value_type};
    Running running(context);
    attention(context, shape, q.data(), k.data(), v.has_value() ? v->data() : nullptr,
              static_cast<uint8_t*>(keys.data()),
              values.has_value() ? static_cast<uint8_t*>(values->data()) : nullptr, out.data());
}

}  // namespace

void bind_attention(nb::class_<Context>& context) {
    using nb::arg;
    context
        .def("attention", &call_attention, arg("q").noconvert(), arg("k").noconvert(),
             arg("v").noconvert().none(), arg("keys").noconvert(),
             arg("values").noconvert().none(), arg("start"), arg("scale"), arg("window"),
             arg("sinks").noconvert().none(), arg("out").noconvert());
}

}  // namespace moestream
