// The Python face of gates ahead: one call for all layers that are guessed from one.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "bind/bind.h"
#include "bind/checks.h"
#include "bind/dense_matrix.h"
#include "core/gates.h"

namespace moestream {
namespace {

// One router; what it points to is kept by Python's objects, which the Gates keep in turn.
struct GateSource {
    Floats norm;
    float eps;
    nb::object router;
    std::optional<Floats> bias, selection;
    bool normalise;
    std::string gating;
    float scale;
    int groups, groups_used, k;
};

struct PythonGates {
    Context& context;  // which Python keeps as long
    std::vector<GateSource> sources;
    Gates gates;
};

Gate checked_gate(const Context& context, const GateSource& source) {
    const auto& matrix = nb::cast<const DenseMatrix&>(source.router);
    check_made_for(matrix, context);
    const Matrix& router = matrix.view;
    check_shape("norm", source.norm, {router.columns});
    if (source.bias) check_shape("bias", *source.bias, {router.rows});
    if (source.selection) check_shape("selection", *source.selection, {router.rows});
    const int groups = source.groups, used = source.groups_used;
    if (groups < 1 || router.rows % groups != 0 || used < 1 || used > groups || source.k < 1 ||
        source.k > router.rows / groups * used) {
        fail("a gate cannot choose " + std::to_string(source.k) + " of " +
             std::to_string(router.rows) + " experts in " + std::to_string(groups) + " groups");
    }
    const RoutingRule rule{router.rows, source.k, source.normalise, checked_gating(source.gating),
                           source.scale, groups, used,
                           source.selection ? source.selection->data() : nullptr};
    return {source.norm.data(), source.eps, &router, source.bias ? source.bias->data() : nullptr,
            rule};
}

void make_gates(PythonGates* self, Context& context, std::vector<GateSource> sources) {
    if (sources.empty()) fail("expected at least one gate");
    std::vector<Gate> gates;
    for (const GateSource& source : sources) {
        gates.push_back(checked_gate(context, source));
        if (gates.back().router->columns != gates[0].router->columns ||
            gates.back().rule.k != gates[0].rule.k) {
            fail("gates differ in their columns, or in how many experts they choose");
        }
    }
    const auto made = [&] {
        Running running(context);
        return Gates(context, std::move(gates));
    };
    new (self) PythonGates{context, std::move(sources), made()};
}

int checked_rows(const PythonGates& self, int place, const Floats& x) {
    if (place < 0 || place >= self.gates.count()) {
        fail("there is no gate " + std::to_string(place));
    }
    check_shape("x", x, {-1, self.gates.columns()});
    return checked_int("tokens", x.shape(0));
}

void call_note(PythonGates& self, int place, const Floats& x) {
    const int tokens = checked_rows(self, place, x);
    Running running(self.context);
    self.gates.note(place, x.data(), tokens);
}

std::vector<std::vector<int32_t>> call_choose(PythonGates& self, int place, const Floats& x,
                                              int ahead) {
    const int tokens = checked_rows(self, place, x);
    if (ahead < 0 || ahead >= self.gates.count() - place) {
        fail("gate " + std::to_string(place) + " has not " + std::to_string(ahead) + " after it");
    }
    Running running(self.context);
    self.gates.note(place, x.data(), tokens);
    return self.gates.choose(self.context, place, x.data(), tokens, ahead);
}

}  // namespace

void bind_gates(nb::module_& m) {
    using nb::arg;
    nb::class_<GateSource>(m, "Gate")
        .def("__init__",
             [](GateSource* self, const Floats& norm, float eps, nb::object router,
                std::optional<Floats> bias, std::optional<Floats> selection, bool normalise,
                std::string gating, float scale, int groups, int groups_used, int k) {
                 new (self) GateSource{norm, eps, std::move(router), std::move(bias),
                                       std::move(selection), normalise, std::move(gating),
                                       scale, groups, groups_used, k};
             },
             arg("norm").noconvert(), arg("eps"), arg("router"), arg("bias").noconvert().none(),
             arg("selection").noconvert().none(), arg("normalise"), arg("gating"), arg("scale"),
             arg("groups"), arg("groups_used"), arg("k"));
    nb::class_<PythonGates>(m, "Gates")
        .def("__init__", &make_gates, arg("context"), arg("gates"), nb::keep_alive<1, 2>())
        .def("note", &call_note, arg("place"), arg("x").noconvert())
        .def("choose", &call_choose, arg("place"), arg("x").noconvert(), arg("ahead"));
}

}  // namespace moestream
