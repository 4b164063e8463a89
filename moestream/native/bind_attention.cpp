// The Python face of attention over the KV cache.
#include "bind.h"
#include "checks.h"

namespace moestream {
namespace {

bool checked_half(const char* name, const AnyOut& buffer) {
    if (buffer.dtype() == nb::dtype<float>()) return false;
    const auto type = buffer.dtype();
    if (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) && type.bits == 16) {
        return true;
    }
    throw nb::type_error((std::string(name) + " must hold float16 or float32").c_str());
}

void call_attention(Context& context, const Floats& q, const Floats& k, const Floats& v,
                    const AnyOut& keys, const AnyOut& values, int64_t start, float scale,
                    const FloatsOut& out) {
    check_shape("q", q, {-1, -1, -1});
    check_shape("keys", keys, {-1, -1, static_cast<int64_t>(q.shape(2))});
    const auto tokens = static_cast<int64_t>(q.shape(0)), heads = static_cast<int64_t>(q.shape(1)),
               dim = static_cast<int64_t>(q.shape(2)),
               kv_heads = static_cast<int64_t>(keys.shape(0)),
               positions = static_cast<int64_t>(keys.shape(1));
    check_shape("values", values, {kv_heads, positions, dim});
    check_shape("k", k, {tokens, kv_heads, dim});
    check_shape("v", v, {tokens, kv_heads, dim});
    check_shape("out", out, {tokens, heads * dim});
    if (kv_heads == 0 || heads % kv_heads != 0 || dim == 0) {
        fail(std::to_string(heads) + " query heads of " + std::to_string(dim) +
             " do not divide among " + std::to_string(kv_heads) + " key/value heads");
    }
    if (start < 0 || start + tokens > positions) {
        fail("positions " + std::to_string(start) + " to " + std::to_string(start + tokens) +
             " do not fit in a cache of " + std::to_string(positions));
    }
    const bool half = checked_half("keys", keys);
    if (checked_half("values", values) != half) fail("keys and values differ in type");
    if (tokens == 0 || heads == 0) return;
    const AttentionShape shape{checked_int("tokens", tokens),
                               checked_int("heads", heads),
                               checked_int("key/value heads", kv_heads),
                               checked_int("head size", dim),
                               checked_int("positions", positions),
                               static_cast<int>(start),
                               scale,
                               half};
    Running running(context);
    attention(context, shape, q.data(), k.data(), v.data(), keys.data(), values.data(),
              out.data());
}

}  // namespace

void bind_attention(nb::class_<Context>& context) {
    using nb::arg;
    context
        .def("attention", &call_attention, arg("q").noconvert(), arg("k").noconvert(),
             arg("v").noconvert(), arg("keys").noconvert(), arg("values").noconvert(),
             arg("start"), arg("scale"), arg("out").noconvert());
}

}  // namespace moestream
