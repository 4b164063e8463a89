// The Python face of what works on each token or number alone: norms, rotation, sums, routing.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <string>

#include "bind/bind.h"
#include "bind/checks.h"

namespace moestream {
namespace {

void call_rms_norm(Context& context, const Floats& x, const Floats& weight, float eps,
                   const FloatsOut& out) {
    check_shape("weight", weight, {-1});
    const int columns = checked_int("columns", weight.shape(0));
    check_same_shape("x", x, x);
    check_same_shape("out", out, x);
    if (x.ndim() == 0 || columns == 0 || x.shape(x.ndim() - 1) != weight.shape(0)) {
        fail("x has shape " + shape_text(x) + ", expected a last axis of " +
             std::to_string(columns));
    }
    const int rows = checked_int("rows", x.size() / columns);
    Running running(context);
    rms_norm(context, x.data(), rows, columns, weight.data(), eps, out.data());
}

void call_rope(Context& context, const Floats& x, const Floats& cos, const Floats& sin,
               bool interleaved, const FloatsOut& out) {
    check_shape("x", x, {-1, -1, -1});
    check_shape("cos", cos, {static_cast<int64_t>(x.shape(0)), -1});
    check_same_shape("sin", sin, cos);
    check_same_shape("out", out, x);
    if (2 * cos.shape(1) > x.shape(2)) {
        fail("cos turns " + std::to_string(2 * cos.shape(1)) + " coordinates of heads that have " +
             std::to_string(x.shape(2)));
    }
    const int tokens = checked_int("tokens", x.shape(0)), heads = checked_int("heads", x.shape(1)),
              dim = checked_int("head size", x.shape(2)), half = checked_int("cos", cos.shape(1));
    checked_int("heads * head size", x.shape(1) * x.shape(2));
    if (x.size() == 0) return;
    Running running(context);
    rope(context, x.data(), tokens, heads, dim, cos.data(), sin.data(), half, interleaved,
         out.data());
}

void call_add(Context& context, const Floats& a, const Floats& b, const FloatsOut& out) {
    check_same_shape("a", a, a);
    check_same_shape("b", b, a);
    check_same_shape("out", out, a);
    Running running(context);
    add(context, a.data(), b.data(), a.size(), out.data());
}

void call_glu(Context& context, const Floats& gate, const Floats& up,
              const std::string& activation, const FloatsOut& out, float limit,
              float up_limit) {
    check_same_shape("gate", gate, gate);
    check_same_shape("up", up, gate);
    check_same_shape("out", out, gate);
    const Activation kind = checked_activation(activation, limit, up_limit);
    Running running(context);
    glu(context, kind, gate.data(), up.data(), gate.size(), out.data());
}

void call_exponentials(Context& context, const Floats& x, const FloatsOut& out) {
    check_same_shape("x", x, x);
    check_same_shape("out", out, x);
    Running running(context);
    exponentials(context, x.data(), x.size(), out.data());
}

void call_softplus(Context& context, const Floats& x, const FloatsOut& out) {
    check_same_shape("x", x, x);
    check_same_shape("out", out, x);
    Running running(context);
    softplus(context, x.data(), x.size(), out.data());
}

void call_sigmoid_scale(Context& context, const Floats& x, const Floats& logits,
                        const FloatsOut& out) {
    check_same_shape("x", x, x);
    check_same_shape("out", out, x);
    check_same_shape("logits", logits, logits);
    if (x.size() == 0) return;
    if (logits.size() == 0 || x.size() % logits.size() != 0) {
        fail("logits has shape " + shape_text(logits) + ", of which x, " + shape_text(x) +
             ", is no multiple");
    }
    const int each = checked_int("numbers to a logit", x.size() / logits.size());
    Running running(context);
    sigmoid_scale(context, x.data(), logits.data(), x.size(), each, out.data());
}

void call_route(Context& context, const Floats& logits, bool normalise, const std::string& gating,
                float scale, int64_t groups, int64_t groups_used,
                const std::optional<Floats>& bias, const IntsOut& ids, const FloatsOut& weights) {
    check_shape("logits", logits, {-1, -1});
    const auto tokens = static_cast<int64_t>(logits.shape(0)),
               experts = static_cast<int64_t>(logits.shape(1));
    check_shape("ids", ids, {tokens, -1});
    const auto k = static_cast<int64_t>(ids.shape(1));
    check_shape("weights", weights, {tokens, k});
    if (bias.has_value()) check_shape("bias", *bias, {experts});
    if (groups < 1 || experts % groups != 0 || groups_used < 1 || groups_used > groups) {
        fail("cannot use " + std::to_string(groups_used) + " of " + std::to_string(groups) +
             " groups of " + std::to_string(experts) + " experts");
    }
    if (k == 0 || k > experts / groups * groups_used) {
        fail("cannot choose " + std::to_string(k) + " of " +
             std::to_string(experts / groups * groups_used) + " experts");
    }
    const RoutingRule rule{checked_int("experts", experts),
                           checked_int("experts a token", k),
                           normalise,
                           checked_gating(gating),
                           scale,
                           static_cast<int>(groups),
                           static_cast<int>(groups_used),
                           bias.has_value() ? bias->data() : nullptr};
    Running running(context);
    route(context, logits.data(), checked_int("tokens", tokens), rule, ids.data(),
          weights.data());
}

}  // namespace

void bind_elementwise(nb::class_<Context>& context) {
    using nb::arg;
    context
        .def("rms_norm", &call_rms_norm, arg("x").noconvert(), arg("weight").noconvert(),
             arg("eps"), arg("out").noconvert())
        .def("rope", &call_rope, arg("x").noconvert(), arg("cos").noconvert(),
             arg("sin").noconvert(), arg("interleaved"), arg("out").noconvert())
        .def("add", &call_add, arg("a").noconvert(), arg("b").noconvert(),
             arg("out").noconvert())
        .def("glu", &call_glu, arg("gate").noconvert(), arg("up").noconvert(), arg("activation"),
             arg("out").noconvert(), arg("limit") = 0.0f, arg("up_limit") = 0.0f)
        .def("exponentials", &call_exponentials, arg("x").noconvert(), arg("out").noconvert())
        .def("softplus", &call_softplus, arg("x").noconvert(), arg("out").noconvert())
        .def("sigmoid_scale", &call_sigmoid_scale, arg("x").noconvert(),
             arg("logits").noconvert(), arg("out").noconvert())
        .def("route", &call_route, arg("logits").noconvert(), arg("normalise"), arg("gating"),
             arg("scale"), arg("groups"), arg("groups_used"), arg("bias").noconvert().none(),
             arg("ids").noconvert(), arg("weights").noconvert());
}

}  // namespace moestream
