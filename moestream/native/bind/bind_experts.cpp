// The Python face of routed experts: where they lie, and running those that were chosen.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "bind/bind.h"
#include "bind/checks.h"

namespace moestream {
namespace {

// Experts where they lie in the mapped file; the arrays keep the mapping alive.
struct MappedExperts {
    ExpertSet set;
    int count = 0;
    Bytes arrays[3];
    std::optional<Floats> biases[3];
    std::optional<Floats> scales[2];
    Addresses addresses;  // of streamed experts, which have no arrays
};

ExpertMatrices expert_matrices(const char* name, const Bytes& data, int type_number) {
    if (data.ndim() != 3 || data.shape(0) == 0 || data.shape(1) == 0) {
        fail(std::string(name) + " has shape " + shape_text(data) +
             ", expected (experts, rows, row_bytes)");
    }
    const auto bytes = static_cast<int64_t>(data.shape(2));
    if (data.stride(2) != 1 || data.stride(1) < bytes ||
        data.stride(0) < data.stride(1) * static_cast<int64_t>(data.shape(1) - 1) + bytes) {
        fail(std::string(name) + " has strides that are not those of experts after one another");
    }
    ExpertMatrices experts;
    experts.first.type = checked_type(type_number);
    experts.first.data = data.data();
    experts.first.rows = checked_int("rows", data.shape(1));
    experts.first.columns = checked_columns(experts.first.type, data.shape(2));
    experts.first.row_bytes = static_cast<size_t>(data.stride(1));
    experts.expert_bytes = static_cast<size_t>(data.stride(0));
    return experts;
}

// Biases (experts, rows) of the three matrices: all or none.
void set_biases(MappedExperts& experts, const std::optional<Floats>& gate,
                const std::optional<Floats>& up, const std::optional<Floats>& down) {
    if (gate.has_value() != up.has_value() || up.has_value() != down.has_value()) {
        fail("biases of gate, up and down go together: all or none");
    }
    if (!gate.has_value()) return;
    check_shape("gate_bias", *gate, {experts.count, experts.set.gate.first.rows});
    check_shape("up_bias", *up, {experts.count, experts.set.up.first.rows});
    check_shape("down_bias", *down, {experts.count, experts.set.down.first.rows});
    experts.biases[0] = gate, experts.biases[1] = up, experts.biases[2] = down;
    experts.set.gate_bias = gate->data();
    experts.set.up_bias = up->data();
    experts.set.down_bias = down->data();
}

// Scales (experts,) of gate and up: both or none.
void set_scales(MappedExperts& experts, const std::optional<Floats>& gate,
                const std::optional<Floats>& up) {
    if (gate.has_value() != up.has_value()) fail("scales of gate and up go together");
    if (!gate.has_value()) return;
    check_shape("gate_scale", *gate, {experts.count});
    check_shape("up_scale", *up, {experts.count});
    experts.scales[0] = gate, experts.scales[1] = up;
    experts.set.gate_scale = gate->data();
    experts.set.up_scale = up->data();
}

std::unique_ptr<MappedExperts> make_experts(const Bytes& gate, int gate_type, const Bytes& up,
                                            int up_type, const Bytes& down, int down_type) {
    auto experts = std::make_unique<MappedExperts>();
    experts->set.gate = expert_matrices("gate", gate, gate_type);
    experts->set.up = expert_matrices("up", up, up_type);
    experts->set.down = expert_matrices("down", down, down_type);
    const Matrix &g = experts->set.gate.first, &u = experts->set.up.first,
                 &d = experts->set.down.first;
    if (g.rows != u.rows || g.columns != u.columns || d.rows != g.columns || d.columns != g.rows ||
        gate.shape(0) != up.shape(0) || gate.shape(0) != down.shape(0)) {
        fail("gate " + shape_text(gate) + ", up " + shape_text(up) + " and down " +
             shape_text(down) + " do not make one network");
    }
    experts->count = checked_int("experts", gate.shape(0));
    experts->set.ungated = gate.data() == up.data();
    experts->arrays[0] = gate, experts->arrays[1] = up, experts->arrays[2] = down;
    return experts;
}

// The same experts, of which each lies at an address of its own, rows without gaps.
std::unique_ptr<MappedExperts> make_streamed(const MappedExperts& mapped,
                                             const Addresses& addresses) {
    check_shape("addresses", addresses, {mapped.count, 3});
    auto experts = std::make_unique<MappedExperts>();
    experts->set = mapped.set;
    experts->count = mapped.count;
    experts->addresses = addresses;
    std::copy_n(mapped.biases, 3, experts->biases);
    std::copy_n(mapped.scales, 2, experts->scales);
    ExpertMatrices* parts[] = {&experts->set.gate, &experts->set.up, &experts->set.down};
    for (int part = 0; part < 3; ++part) {
        Matrix& first = parts[part]->first;
        first.row_bytes = kTypeLayouts[first.type].row_bytes(first.columns);
        first.data = nullptr;
        parts[part]->addresses = addresses.data();
        parts[part]->part = part;
    }
    return experts;
}

void check_expert(int32_t id, const MappedExperts& experts) {
    if (id < 0 || id >= experts.count) {
        fail("expert id " + std::to_string(id) + " is outside 0 to " +
             std::to_string(experts.count - 1));
    }
}

// A streamed expert that is to be computed must be somewhere.
void check_present(int32_t id, const MappedExperts& experts) {
    const uint64_t* addresses = experts.set.gate.addresses;
    for (int part = 0; addresses != nullptr && part < 3; ++part) {
        if (addresses[static_cast<size_t>(id) * 3 + part] == 0) {
            fail("expert " + std::to_string(id) + " has no address: it is not in memory");
        }
    }
}

// The routing of `ids` (tokens, slots), every id an expert that is there.
Routing checked_routing(const Ints& ids, const MappedExperts& experts, int64_t tokens) {
    check_shape("ids", ids, {tokens, -1});
    if (ids.shape(1) == 0) fail("ids has no experts, expected at least one a token");
    checked_int("pairs of token and expert", ids.size());
    for (size_t i = 0; i < ids.size(); ++i) check_expert(ids.data()[i], experts);
    return {ids.data(), checked_int("tokens", ids.shape(0)),
            checked_int("experts a token", ids.shape(1))};
}

void call_moe_ffn(Context& context, const Floats& x, const MappedExperts& experts,
                  const Ints& ids, const Floats& weights, const FloatsOut& out) {
    const int columns = experts.set.gate.first.columns;
    check_shape("x", x, {-1, columns});
    const auto tokens = static_cast<int64_t>(x.shape(0));
    const Routing routing = checked_routing(ids, experts, tokens);
    check_shape("weights", weights, {tokens, routing.slots});
    check_shape("out", out, {tokens, columns});
    for (size_t i = 0; i < ids.size(); ++i) check_present(ids.data()[i], experts);
    if (tokens == 0) return;
    Running running(context);
    auto* outputs = context.slots.get<float>(ids.size() * columns);
    run_experts(context, x.data(), experts.set, routing, nullptr, outputs);
    sum_slots(context, outputs, weights.data(), routing.tokens, routing.slots, columns,
              out.data());
}

void call_run_experts(Context& context, const Floats& x, const MappedExperts& experts,
                      const Ints& ids, const std::vector<int32_t>& batch,
                      const FloatsOut& outputs) {
    const int columns = experts.set.gate.first.columns;
    check_shape("x", x, {-1, columns});
    const auto tokens = static_cast<int64_t>(x.shape(0));
    const Routing routing = checked_routing(ids, experts, tokens);
    check_shape("outputs", outputs, {tokens, routing.slots, columns});
    std::vector<int32_t> seen = batch;
    std::sort(seen.begin(), seen.end());
    if (std::adjacent_find(seen.begin(), seen.end()) != seen.end()) {
        fail("an expert is twice in one batch");
    }
    for (const int32_t id : batch) {
        check_expert(id, experts);
        check_present(id, experts);
    }
    if (tokens == 0 || batch.empty()) return;
    Running running(context);
    run_experts(context, x.data(), experts.set, routing, &batch, outputs.data());
}

void call_sum_slots(Context& context, const Floats& outputs, const Floats& weights,
                    const FloatsOut& out) {
    check_shape("outputs", outputs, {-1, -1, -1});
    const auto tokens = static_cast<int64_t>(outputs.shape(0)),
               slots = static_cast<int64_t>(outputs.shape(1)),
               columns = static_cast<int64_t>(outputs.shape(2));
    check_shape("weights", weights, {tokens, slots});
    check_shape("out", out, {tokens, columns});
    if (slots == 0) fail("outputs has no experts, expected at least one a token");
    const int t = checked_int("tokens", tokens), k = checked_int("experts a token", slots),
              e = checked_int("columns", columns);
    Running running(context);
    sum_slots(context, outputs.data(), weights.data(), t, k, e, out.data());
}

}  // namespace

void bind_experts(nb::module_& m, nb::class_<Context>& context) {
    using nb::arg;
    nb::class_<MappedExperts>(m, "Experts")
        .def("__init__",
             [](MappedExperts* self, const Bytes& gate, int gate_type, const Bytes& up,
                int up_type, const Bytes& down, int down_type, const std::string& activation,
                const std::optional<Floats>& gate_bias, const std::optional<Floats>& up_bias,
                const std::optional<Floats>& down_bias, const std::optional<Floats>& gate_scale,
                const std::optional<Floats>& up_scale, float limit, float up_limit) {
                 auto made = make_experts(gate, gate_type, up, up_type, down, down_type);
                 made->set.activation = checked_activation(activation, limit, up_limit);
                 set_biases(*made, gate_bias, up_bias, down_bias);
                 set_scales(*made, gate_scale, up_scale);
                 new (self) MappedExperts(std::move(*made));
             },
             arg("gate").noconvert(), arg("gate_type"), arg("up").noconvert(), arg("up_type"),
             arg("down").noconvert(), arg("down_type"), arg("activation") = "silu",
             arg("gate_bias").noconvert() = nb::none(), arg("up_bias").noconvert() = nb::none(),
             arg("down_bias").noconvert() = nb::none(),
             arg("gate_scale").noconvert() = nb::none(), arg("up_scale").noconvert() = nb::none(),
             arg("limit") = 0.0f, arg("up_limit") = 0.0f)
        .def("streamed", &make_streamed, arg("addresses").noconvert());
    context
        .def("moe_ffn", &call_moe_ffn, arg("x").noconvert(), arg("experts"),
             arg("ids").noconvert(), arg("weights").noconvert(), arg("out").noconvert())
        .def("run_experts", &call_run_experts, arg("x").noconvert(), arg("experts"),
             arg("ids").noconvert(), arg("batch"), arg("outputs").noconvert())
        .def("sum_slots", &call_sum_slots, arg("outputs").noconvert(),
             arg("weights").noconvert(), arg("out").noconvert());
}

}  // namespace moestream
