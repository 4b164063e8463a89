// The Python face of layers whose memory does not grow.
#include <nanobind/stl/optional.h>

#include <optional>

#include "bind/bind.h"
#include "bind/checks.h"

namespace moestream {
namespace {

void call_causal_conv(Context& context, const Floats& x, const Floats& kernel,
                      const FloatsOut& past, bool silu, const FloatsOut& out,
                      const std::optional<Floats>& bias) {
    check_shape("x", x, {-1, -1});
    const auto channels = static_cast<int64_t>(x.shape(1));
    check_shape("kernel", kernel, {channels, -1});
    const auto width = static_cast<int64_t>(kernel.shape(1));
    if (width < 1 || width > kMostWidth) {
        fail("the kernel has " + std::to_string(width) + " weights a channel, expected 1 to " +
             std::to_string(kMostWidth));
    }
    check_shape("past", past, {width - 1, channels});
    check_same_shape("out", out, x);
    if (bias.has_value()) check_shape("bias", *bias, {channels});
    const Convolution shape{checked_int("tokens", x.shape(0)), checked_int("channels", channels),
                            static_cast<int>(width)};
    if (x.size() == 0) return;
    Running running(context);
    causal_conv(context, shape, x.data(), kernel.data(), bias.has_value() ? bias->data() : nullptr,
                silu, past.data(), out.data());
}

void call_delta_net(Context& context, const Floats& qkv, const Floats& write, const Floats& forget,
                    const Floats& rates, const Floats& time_bias, const Ints& key_heads,
                    int num_key_heads, float eps, const FloatsOut& state, const FloatsOut& out) {
    check_shape("state", state, {-1, -1, -1});
    const auto heads = static_cast<int64_t>(state.shape(0));
    const auto dim = static_cast<int64_t>(state.shape(1));
    check_shape("state", state, {heads, dim, dim});
    if (dim == 0 || dim % 8 != 0) {
        fail("heads of " + std::to_string(dim) + " are no multiple of 8");
    }
    const int keys = checked_int("key heads", num_key_heads < 0 ? 0 : num_key_heads);
    check_shape("qkv", qkv, {-1, (2 * keys + heads) * dim});
    const auto tokens = static_cast<int64_t>(qkv.shape(0));
    check_shape("write", write, {tokens, heads});
    check_shape("forget", forget, {tokens, heads});
    check_shape("rates", rates, {heads});
    check_shape("time_bias", time_bias, {heads});
    check_shape("key_heads", key_heads, {heads});
    check_shape("out", out, {tokens, heads * dim});
    for (int64_t i = 0; i < heads; ++i) {
        const int32_t key = key_heads.data()[i];
        if (key < 0 || key >= keys) {
            fail("value head " + std::to_string(i) + " goes with key head " + std::to_string(key) +
                 " of " + std::to_string(keys));
        }
    }
    const DeltaNet net{checked_int("tokens", tokens), checked_int("heads", heads), keys,
                       checked_int("head size", dim), eps, rates.data(), time_bias.data(),
                       key_heads.data()};
    if (tokens == 0 || heads == 0) return;
    Running running(context);
    delta_net(context, net, qkv.data(), write.data(), forget.data(), state.data(), out.data());
}

void call_kimi_delta(Context& context, const Floats& qkv, const Floats& write,
                     const Floats& decay, float eps, const FloatsOut& state,
                     const FloatsOut& out) {
    check_shape("state", state, {-1, -1, -1});
    const auto heads = static_cast<int64_t>(state.shape(0)),
               dim = static_cast<int64_t>(state.shape(1));
    check_shape("state", state, {heads, dim, dim});
    if (dim == 0 || dim % 8 != 0) {
        fail("heads of " + std::to_string(dim) + " are no multiple of 8");
    }
    check_shape("qkv", qkv, {-1, 3 * heads * dim});
    const auto tokens = static_cast<int64_t>(qkv.shape(0));
    check_shape("write", write, {tokens, heads});
    check_shape("decay", decay, {tokens, heads * dim});
    check_shape("out", out, {tokens, heads * dim});
    const KimiDelta net{checked_int("tokens", tokens), checked_int("heads", heads),
                        checked_int("head size", dim), eps};
    if (tokens == 0 || heads == 0) return;
    Running running(context);
    kimi_delta(context, net, qkv.data(), write.data(), decay.data(), state.data(), out.data());
}

void call_mamba(Context& context, const Floats& x, const Floats& steps, const Floats& b,
                const Floats& c, const Floats& rates, const Floats& time_bias,
                const Floats& skips, const FloatsOut& state, const FloatsOut& out) {
    check_shape("state", state, {-1, -1});
    const auto channels = static_cast<int64_t>(state.shape(0)),
               size = static_cast<int64_t>(state.shape(1));
    check_shape("x", x, {-1, channels});
    const auto tokens = static_cast<int64_t>(x.shape(0));
    check_same_shape("steps", steps, x);
    check_same_shape("out", out, x);
    check_shape("b", b, {tokens, size});
    check_shape("c", c, {tokens, size});
    check_shape("rates", rates, {channels, size});
    check_shape("time_bias", time_bias, {channels});
    check_shape("skips", skips, {channels});
    const ChannelScan scan{checked_int("tokens", tokens), checked_int("channels", channels),
                           checked_int("size", size),     rates.data(),
                           time_bias.data(),              skips.data()};
    if (tokens == 0 || channels == 0) return;
    Running running(context);
    mamba(context, scan, x.data(), steps.data(), b.data(), c.data(), state.data(), out.data());
}

void call_mamba2(Context& context, const Floats& xbc, const Floats& steps, const Floats& rates,
                 const Floats& time_bias, const Floats& skips, int num_groups,
                 const FloatsOut& state, const FloatsOut& out) {
    check_shape("state", state, {-1, -1, -1});
    const auto heads = static_cast<int64_t>(state.shape(0)),
               rows = static_cast<int64_t>(state.shape(1)),
               columns = static_cast<int64_t>(state.shape(2));
    if (rows == 0 || rows % 4 != 0 || columns == 0 || columns % 8 != 0) {
        fail("states of " + std::to_string(rows) + " by " + std::to_string(columns) +
             " are no multiples of 4 and 8");
    }
    if (num_groups < 1 || heads % num_groups != 0) {
        fail(std::to_string(heads) + " heads do not divide among " + std::to_string(num_groups) +
             " groups");
    }
    check_shape("xbc", xbc, {-1, heads * rows + 2 * num_groups * columns});
    const auto tokens = static_cast<int64_t>(xbc.shape(0));
    check_shape("steps", steps, {tokens, heads});
    check_shape("rates", rates, {heads});
    check_shape("time_bias", time_bias, {heads});
    check_shape("skips", skips, {heads});
    check_shape("out", out, {tokens, heads * rows});
    const Scan scan{checked_int("tokens", tokens), checked_int("heads", heads), num_groups,
                    checked_int("rows", rows),     checked_int("columns", columns),
                    rates.data(), time_bias.data(), skips.data()};
    if (tokens == 0 || heads == 0) return;
    Running running(context);
    mamba2(context, scan, xbc.data(), steps.data(), state.data(), out.data());
}

}  // namespace

void bind_recurrent(nb::class_<Context>& context) {
    using nb::arg;
    context
        .def("causal_conv", &call_causal_conv, arg("x").noconvert(), arg("kernel").noconvert(),
             arg("past").noconvert(), arg("silu"), arg("out").noconvert(),
             arg("bias").noconvert() = nb::none())
        .def("delta_net", &call_delta_net, arg("qkv").noconvert(), arg("write").noconvert(),
             arg("forget").noconvert(), arg("rates").noconvert(), arg("time_bias").noconvert(),
             arg("key_heads").noconvert(), arg("num_key_heads"), arg("eps"),
             arg("state").noconvert(), arg("out").noconvert())
        .def("kimi_delta", &call_kimi_delta, arg("qkv").noconvert(), arg("write").noconvert(),
             arg("decay").noconvert(), arg("eps"), arg("state").noconvert(),
             arg("out").noconvert())
        .def("mamba", &call_mamba, arg("x").noconvert(), arg("steps").noconvert(),
             arg("b").noconvert(), arg("c").noconvert(), arg("rates").noconvert(),
             arg("time_bias").noconvert(), arg("skips").noconvert(), arg("state").noconvert(),
             arg("out").noconvert())
        .def("mamba2", &call_mamba2, arg("xbc").noconvert(), arg("steps").noconvert(),
             arg("rates").noconvert(), arg("time_bias").noconvert(), arg("skips").noconvert(),
             arg("groups"), arg("state").noconvert(), arg("out").noconvert());
}

}  // namespace moestream
