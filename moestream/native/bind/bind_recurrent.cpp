// The Python face of layers whose memory does not grow.
#include "bind/bind.h"
#include "bind/checks.h"

namespace moestream {
namespace {

void call_causal_conv(Context& context, const Floats& x, const Floats& kernel,
                      const FloatsOut& past, bool silu, const FloatsOut& out) {
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
    const Convolution shape{checked_int("tokens", x.shape(0)), checked_int("channels", channels),
                            static_cast<int>(width)};
    if (x.size() == 0) return;
    Running running(context);
    causal_conv(context, shape, x.data(), kernel.data(), silu, past.data(), out.data());
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

}  // namespace

void bind_recurrent(nb::class_<Context>& context) {
    using nb::arg;
    context
        .def("causal_conv", &call_causal_conv, arg("x").noconvert(), arg("kernel").noconvert(),
             arg("past").noconvert(), arg("silu"), arg("out").noconvert())
        .def("delta_net", &call_delta_net, arg("qkv").noconvert(), arg("write").noconvert(),
             arg("forget").noconvert(), arg("rates").noconvert(), arg("time_bias").noconvert(),
             arg("key_heads").noconvert(), arg("num_key_heads"), arg("eps"),
             arg("state").noconvert(), arg("out").noconvert());
}

}  // namespace moestream
