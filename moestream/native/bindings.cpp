// The Python face of the operations: checks every argument, lets go of the GIL, calls.
//
// Results are written into arrays that the caller made, which costs Python less than having them
// made here.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include "bind_reader.h"
#include "checks.h"

namespace moestream {
namespace {

// A resident copy of a weight matrix, 64-byte aligned, in the order that `kernels` want.
struct ResidentMatrix {
    const Kernels* kernels = nullptr;
    Matrix view;
    Buffer bytes;
};

// Experts where they lie in the mapped file; the arrays keep the mapping alive.
struct MappedExperts {
    ExpertSet set;
    int count = 0;
    Bytes arrays[3];
    Addresses addresses;  // of streamed experts, which have no arrays
};

int checked_type(int number) {
    const int index = type_index(number);
    if (index < 0) fail("GGML type " + std::to_string(number) + " has no native kernel");
    return index;
}

// Columns that rows of `row_bytes` hold.
int checked_columns(int type, size_t row_bytes) {
    const TypeLayout& layout = kTypeLayouts[type];
    if (row_bytes == 0 || row_bytes % layout.block_bytes != 0) {
        fail("rows of " + std::to_string(row_bytes) + " bytes are not whole " + layout.name +
             " blocks of " + std::to_string(layout.block_bytes));
    }
    return checked_int("columns", row_bytes / layout.block_bytes * layout.block_values);
}

// The context for one operation, with the GIL released while it is waited for and used.
class Running {
  public:
    explicit Running(Context& context) : lock_(context.mutex) {}

  private:
    nb::gil_scoped_release release_;
    std::lock_guard<std::mutex> lock_;
};

std::unique_ptr<ResidentMatrix> make_matrix(Context& context, const Bytes& data,
                                            int type_number) {
    const int type = checked_type(type_number);
    if (data.ndim() != 2 || data.shape(0) == 0) {
        fail("matrix bytes have shape " + shape_text(data) + ", expected (rows, row_bytes)");
    }
    Matrix mapped;
    mapped.data = data.data();
    mapped.type = type;
    mapped.rows = checked_int("rows", data.shape(0));
    mapped.columns = checked_columns(type, data.shape(1));
    if (data.stride(1) != 1 || data.stride(0) < 0) {
        fail("the bytes of a matrix row must be contiguous");
    }
    mapped.row_bytes = static_cast<size_t>(data.stride(0));
    auto matrix = std::make_unique<ResidentMatrix>();
    auto* bytes = matrix->bytes.get<uint8_t>(resident_bytes(context, mapped));
    Running running(context);
    matrix->view = make_resident(context, mapped, bytes);
    matrix->kernels = &context.kernels;
    return matrix;
}

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
    ExpertMatrices* parts[] = {&experts->set.gate, &experts->set.up, &experts->set.down};
    for (int part = 0; part < 3; ++part) {
        Matrix& first = parts[part]->first;
        const TypeLayout& layout = kTypeLayouts[first.type];
        first.row_bytes =
            static_cast<size_t>(first.columns) / layout.block_values * layout.block_bytes;
        first.data = nullptr;
        parts[part]->addresses = addresses.data();
        parts[part]->part = part;
    }
    return experts;
}

std::unique_ptr<Context> make_context(int threads, const std::optional<std::string>& isa) {
    if (threads < 1 || threads > 1024) {
        fail("threads is " + std::to_string(threads) + ", expected 1 to 1024");
    }
    std::vector<const char*> available;
    const Kernels* kernels = choose_kernels(isa ? isa->c_str() : nullptr, &available);
    if (kernels == nullptr) {
        std::string names;
        for (const char* name : available) names += (names.empty() ? "" : ", ") + std::string(name);
        fail("instruction set '" + *isa + "' does not run here; available are: " + names);
    }
    return std::make_unique<Context>(threads, *kernels);
}

void check_made_for(const ResidentMatrix& matrix, const Context& context) {
    if (matrix.kernels != &context.kernels) {
        fail("the matrix was made for another instruction set than this context's");
    }
}

// Any number of products of one input; weights, outs and biases go together.
void bind_linear(Context& context, const Floats& x,
                 const std::vector<const ResidentMatrix*>& weights,
                 const std::vector<FloatsOut>& outs,
                 const std::vector<std::optional<Floats>>& biases) {
    const size_t count = weights.size();
    if (count == 0 || count > kMaxProducts || outs.size() != count || biases.size() != count) {
        fail("expected 1 to " + std::to_string(kMaxProducts) +
             " weights, and as many outs and biases");
    }
    Product products[kMaxProducts];
    for (size_t i = 0; i < count; ++i) {
        if (weights[i] == nullptr) fail("a weight is None");
        check_made_for(*weights[i], context);
        const Matrix& weight = weights[i]->view;
        check_shape("x", x, {-1, weight.columns});
        check_shape("out", outs[i], {static_cast<int64_t>(x.shape(0)), weight.rows});
        if (biases[i]) check_shape("bias", *biases[i], {weight.rows});
        products[i] = {&weight, biases[i] ? biases[i]->data() : nullptr, outs[i].data()};
    }
    const int tokens = checked_int("tokens", x.shape(0));
    if (tokens == 0) return;
    Running running(context);
    linear(context, x.data(), tokens, products, static_cast<int>(count));
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

void bind_moe_ffn(Context& context, const Floats& x, const MappedExperts& experts,
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

void bind_run_experts(Context& context, const Floats& x, const MappedExperts& experts,
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

void bind_sum_slots(Context& context, const Floats& outputs, const Floats& weights,
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

bool checked_half(const char* name, const AnyOut& buffer) {
    if (buffer.dtype() == nb::dtype<float>()) return false;
    const auto type = buffer.dtype();
    if (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) && type.bits == 16) {
        return true;
    }
    throw nb::type_error((std::string(name) + " must hold float16 or float32").c_str());
}

void bind_attention(Context& context, const Floats& q, const Floats& k, const Floats& v,
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

void bind_embed(Context& context, const ResidentMatrix& table, const Ints& tokens,
                const FloatsOut& out) {
    check_made_for(table, context);
    check_shape("tokens", tokens, {-1});
    check_shape("out", out, {static_cast<int64_t>(tokens.shape(0)), table.view.columns});
    for (size_t i = 0; i < tokens.size(); ++i) {
        const int32_t id = tokens.data()[i];
        if (id < 0 || id >= table.view.rows) {
            fail("token id " + std::to_string(id) + " is outside 0 to " +
                 std::to_string(table.view.rows - 1));
        }
    }
    const int count = checked_int("tokens", tokens.size());
    Running running(context);
    embed(context, table.view, tokens.data(), count, out.data());
}

template <class Array>
void check_same_shape(const char* name, const Array& array, const Floats& like) {
    bool same = array.ndim() == like.ndim();
    for (size_t i = 0; same && i < like.ndim(); ++i) same = array.shape(i) == like.shape(i);
    if (!same) {
        fail(std::string(name) + " has shape " + shape_text(array) + ", expected " +
             shape_text(like));
    }
    if (reinterpret_cast<uintptr_t>(array.data()) % sizeof(float) != 0) {
        fail(std::string(name) + " is not aligned to its items");
    }
}

void bind_rms_norm(Context& context, const Floats& x, const Floats& weight, float eps,
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

void bind_rope(Context& context, const Floats& x, const Floats& cos, const Floats& sin,
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

void bind_add(Context& context, const Floats& a, const Floats& b, const FloatsOut& out) {
    check_same_shape("a", a, a);
    check_same_shape("b", b, a);
    check_same_shape("out", out, a);
    Running running(context);
    add(context, a.data(), b.data(), a.size(), out.data());
}

void bind_swiglu(Context& context, const Floats& gate, const Floats& up, const FloatsOut& out) {
    check_same_shape("gate", gate, gate);
    check_same_shape("up", up, gate);
    check_same_shape("out", out, gate);
    Running running(context);
    swiglu(context, gate.data(), up.data(), gate.size(), out.data());
}

void bind_route(Context& context, const Floats& logits, bool normalise, float scale,
                const IntsOut& ids, const FloatsOut& weights) {
    check_shape("logits", logits, {-1, -1});
    const auto tokens = static_cast<int64_t>(logits.shape(0));
    check_shape("ids", ids, {tokens, -1});
    check_shape("weights", weights, {tokens, static_cast<int64_t>(ids.shape(1))});
    if (ids.shape(1) == 0 || ids.shape(1) > logits.shape(1)) {
        fail("cannot choose " + std::to_string(ids.shape(1)) + " of " +
             std::to_string(logits.shape(1)) + " experts");
    }
    const int count = checked_int("tokens", logits.shape(0)),
              experts = checked_int("experts", logits.shape(1)),
              k = checked_int("experts a token", ids.shape(1));
    Running running(context);
    route(context, logits.data(), count, experts, k, normalise, scale, ids.data(),
          weights.data());
}

double bind_bandwidth(Context& context, size_t bytes, int repeats) {
    if (bytes < (size_t{1} << 20) || repeats < 1) {
        fail("read_bandwidth needs at least 1 MiB and 1 repeat");
    }
    Running running(context);
    return read_bandwidth(context, bytes, repeats);
}

}  // namespace
}  // namespace moestream

NB_MODULE(_native, m) {
    using namespace moestream;
    using nb::arg;
    m.doc() = "Native kernels of moestream; used through moestream.backends.cpu alone.";
    m.def("physical_cores", &physical_cores);
    m.def("available_isas", [] {
        std::vector<const char*> names;
        choose_kernels(nullptr, &names);
        return std::vector<std::string>(names.begin(), names.end());
    });
    m.def("supports", [](int type) { return type_index(type) >= 0; }, arg("type"));
    nb::class_<ResidentMatrix>(m, "Matrix")
        .def_prop_ro("rows", [](const ResidentMatrix& m) { return m.view.rows; })
        .def_prop_ro("columns", [](const ResidentMatrix& m) { return m.view.columns; });
    nb::class_<MappedExperts>(m, "Experts")
        .def("__init__",
             [](MappedExperts* self, const Bytes& gate, int gate_type, const Bytes& up,
                int up_type, const Bytes& down, int down_type) {
                 new (self) MappedExperts(
                     std::move(*make_experts(gate, gate_type, up, up_type, down, down_type)));
             },
             arg("gate").noconvert(), arg("gate_type"), arg("up").noconvert(), arg("up_type"),
             arg("down").noconvert(), arg("down_type"))
        .def("streamed", &make_streamed, arg("addresses").noconvert());
    nb::class_<Context>(m, "Context")
        .def(nb::new_(&make_context), arg("threads"), arg("isa") = nb::none())
        .def_prop_ro("threads", [](const Context& c) { return c.pool.threads(); })
        .def("matrix", &make_matrix, arg("data").noconvert(), arg("type"))
        .def_prop_ro("isa", [](const Context& c) { return c.kernels.name; })
        .def("linear", &bind_linear, arg("x").noconvert(), arg("weights"),
             arg("outs").noconvert(), arg("biases").noconvert())
        .def("moe_ffn", &bind_moe_ffn, arg("x").noconvert(), arg("experts"),
             arg("ids").noconvert(), arg("weights").noconvert(), arg("out").noconvert())
        .def("run_experts", &bind_run_experts, arg("x").noconvert(), arg("experts"),
             arg("ids").noconvert(), arg("batch"), arg("outputs").noconvert())
        .def("sum_slots", &bind_sum_slots, arg("outputs").noconvert(),
             arg("weights").noconvert(), arg("out").noconvert())
        .def("attention", &bind_attention, arg("q").noconvert(), arg("k").noconvert(),
             arg("v").noconvert(), arg("keys").noconvert(), arg("values").noconvert(),
             arg("start"), arg("scale"), arg("out").noconvert())
        .def("embed", &bind_embed, arg("table"), arg("tokens").noconvert(),
             arg("out").noconvert())
        .def("rms_norm", &bind_rms_norm, arg("x").noconvert(), arg("weight").noconvert(),
             arg("eps"), arg("out").noconvert())
        .def("rope", &bind_rope, arg("x").noconvert(), arg("cos").noconvert(),
             arg("sin").noconvert(), arg("interleaved"), arg("out").noconvert())
        .def("add", &bind_add, arg("a").noconvert(), arg("b").noconvert(),
             arg("out").noconvert())
        .def("swiglu", &bind_swiglu, arg("gate").noconvert(), arg("up").noconvert(),
             arg("out").noconvert())
        .def("route", &bind_route, arg("logits").noconvert(), arg("normalise"), arg("scale"),
             arg("ids").noconvert(), arg("weights").noconvert())
        .def("read_bandwidth", &bind_bandwidth, arg("bytes"), arg("repeats") = 5);
    bind_reader(m);
}
