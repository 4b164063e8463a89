// The Python face of dense matrices: made from blocks, multiplied, looked up.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "bind/bind.h"
#include "bind/checks.h"
#include "bind/dense_matrix.h"

namespace moestream {
namespace {

Matrix checked_matrix(const Bytes& data, int type_number) {
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
    return mapped;
}

std::unique_ptr<DenseMatrix> make_matrix(Context& context, const Bytes& data, int type,
                                         float scale) {
    Matrix mapped = checked_matrix(data, type);
    mapped.scale = scale;
    auto matrix = std::make_unique<DenseMatrix>();
    auto* bytes = matrix->bytes.get<uint8_t>(resident_bytes(context, mapped));
    Running running(context);
    matrix->view = make_resident(context, mapped, bytes);
    matrix->kernels = &context.kernels;
    return matrix;
}

std::unique_ptr<DenseMatrix> make_mapped_matrix(Context& context, const Bytes& data, int type) {
    auto matrix = std::make_unique<DenseMatrix>();
    matrix->view = checked_matrix(data, type);
    matrix->kernels = &context.kernels;
    matrix->mapped = data;
    return matrix;
}

// Any number of products of one input; weights, outs and biases go together.
void call_linear(Context& context, const Floats& x,
                 const std::vector<const DenseMatrix*>& weights,
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

void call_heads_linear(Context& context, const Floats& x,
                       const std::vector<const DenseMatrix*>& weights, const FloatsOut& out) {
    if (weights.empty()) fail("expected a weight a head");
    std::vector<const Matrix*> heads;
    for (const DenseMatrix* weight : weights) {
        if (weight == nullptr) fail("a weight is None");
        check_made_for(*weight, context);
        const Matrix &one = weight->view, &first = weights[0]->view;
        if (one.rows != first.rows || one.columns != first.columns || one.type != first.type) {
            fail("the heads' weights are not of one shape and type");
        }
        heads.push_back(&one);
    }
    const auto count = static_cast<int64_t>(heads.size());
    check_shape("x", x, {-1, count, heads[0]->columns});
    check_shape("out", out, {static_cast<int64_t>(x.shape(0)), count, heads[0]->rows});
    const int tokens = checked_int("tokens", x.shape(0));
    checked_int("tokens times heads", x.shape(0) * weights.size());
    if (tokens == 0) return;
    Running running(context);
    heads_linear(context, x.data(), tokens, heads, out.data());
}

void call_embed(Context& context, const DenseMatrix& table, const Ints& tokens,
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

}  // namespace

void bind_matrix(nb::module_& m, nb::class_<Context>& context) {
    using nb::arg;
    nb::class_<DenseMatrix>(m, "Matrix")
        .def_prop_ro("rows", [](const DenseMatrix& m) { return m.view.rows; })
        .def_prop_ro("columns", [](const DenseMatrix& m) { return m.view.columns; });
    context
        .def("matrix", &make_matrix, arg("data").noconvert(), arg("type"), arg("scale") = 1.0f)
        .def("mapped_matrix", &make_mapped_matrix, arg("data").noconvert(), arg("type"))
        .def("linear", &call_linear, arg("x").noconvert(), arg("weights"),
             arg("outs").noconvert(), arg("biases").noconvert())
        .def("heads_linear", &call_heads_linear, arg("x").noconvert(), arg("weights"),
             arg("out").noconvert())
        .def("embed", &call_embed, arg("table"), arg("tokens").noconvert(),
             arg("out").noconvert());
}

}  // namespace moestream
