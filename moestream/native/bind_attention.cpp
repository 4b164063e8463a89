// The Python face of attention over the KV cache.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <optional>

#include "bind.h"
#include "cache_rows.h"
#include "checks.h"

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

// The length of values, whose type goes into `shape`: rows of their own, or the beginnings of keys.
int64_t checked_values(const std::optional<Floats>& v, const std::optional<AnyOut>& values,
                       const FloatsOut& out, int64_t tokens, AttentionShape& shape) {
    if (v.has_value() != values.has_value()) {
        throw nb::type_error("v and values go together: both, or neither");
    }
    const int64_t each = std::max<int64_t>(shape.heads, 1);
    check_shape("out", out, {tokens, -1});
    const auto columns = static_cast<int64_t>(out.shape(1));
    const int64_t dim = v.has_value() && v->ndim() == 3 ? static_cast<int64_t>(v->shape(2))
                                                        : columns / each;
    check_shape("out", out, {tokens, shape.heads * dim});
    if (!v.has_value()) {
        if (dim > shape.dim) {
            fail("values of " + std::to_string(dim) + " are no part of keys of " +
                 std::to_string(shape.dim));
        }
        shape.value_type = shape.key_type;
        return dim;
    }
    check_shape("v", *v, {tokens, shape.kv_heads, dim});
    shape.value_type = checked_cache("values", *values, shape.kv_heads, shape.positions, dim);
    return dim;
}

void check_attention(const AttentionShape& shape) {
    if (shape.kv_heads == 0 || shape.heads % shape.kv_heads != 0 || shape.dim == 0) {
        fail(std::to_string(shape.heads) + " query heads of " + std::to_string(shape.dim) +
             " do not divide among " + std::to_string(shape.kv_heads) + " key/value heads");
    }
}

void call_attention(Context& context, const Floats& q, const Floats& k,
                    const std::optional<Floats>& v, const AnyOut& keys,
                    const std::optional<AnyOut>& values, int64_t start, float scale,
                    const FloatsOut& out, int64_t window, const std::optional<Floats>& sinks) {
    check_shape("q", q, {-1, -1, -1});
    check_shape("keys", keys, {-1, -1, -1});
    const auto tokens = static_cast<int64_t>(q.shape(0)), heads = static_cast<int64_t>(q.shape(1)),
               dim = static_cast<int64_t>(q.shape(2)),
               kv_heads = static_cast<int64_t>(keys.shape(0)),
               positions = static_cast<int64_t>(keys.shape(1));
    AttentionShape shape{};
    shape.tokens = checked_int("tokens", tokens);
    shape.heads = checked_int("heads", heads);
    shape.kv_heads = checked_int("key/value heads", kv_heads);
    shape.dim = checked_int("head size", dim);
    shape.positions = checked_int("positions", positions);
    shape.scale = scale;
    shape.key_type = checked_cache("keys", keys, kv_heads, positions, dim);
    check_shape("k", k, {tokens, kv_heads, dim});
    shape.value_dim = checked_int("value size", checked_values(v, values, out, tokens, shape));
    check_attention(shape);
    if (start < 0 || start + tokens > positions) {
        fail("positions " + std::to_string(start) + " to " + std::to_string(start + tokens) +
             " do not fit in a cache of " + std::to_string(positions));
    }
    if (window < 0) fail("a window of " + std::to_string(window) + " positions cannot be");
    if (sinks.has_value()) check_shape("sinks", *sinks, {heads});
    if (tokens == 0 || heads == 0 || shape.value_dim == 0) return;
    shape.start = static_cast<int>(start);
    shape.window = window >= start + tokens ? 0 : static_cast<int>(window);  // it hides nothing
    Running running(context);
    attention(context, shape, q.data(), k.data(), v.has_value() ? v->data() : nullptr,
              static_cast<uint8_t*>(keys.data()),
              values.has_value() ? static_cast<uint8_t*>(values->data()) : nullptr,
              sinks.has_value() ? sinks->data() : nullptr, out.data());
}

}  // namespace

void bind_attention(nb::class_<Context>& context) {
    using nb::arg;
    context
        .def("attention", &call_attention, arg("q").noconvert(), arg("k").noconvert(),
             arg("v").noconvert().none(), arg("keys").noconvert(),
             arg("values").noconvert().none(), arg("start"), arg("scale"),
             arg("out").noconvert(), arg("window") = 0,
             arg("sinks").noconvert().none() = nb::none());
}

}  // namespace moestream
