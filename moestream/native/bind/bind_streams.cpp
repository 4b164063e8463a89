// The Python face of several residual streams.
#include <nanobind/stl/optional.h>

#include "bind/bind.h"
#include "bind/checks.h"
#include "bind/dense_matrix.h"

namespace moestream {
namespace {

void check_gate(const char* name, const DenseMatrix& matrix, const Context& context, int64_t rows,
                int64_t columns) {
    check_made_for(matrix, context);
    if (matrix.view.rows != rows || matrix.view.columns != columns) {
        fail(std::string(name) + " is of " + std::to_string(matrix.view.rows) + " by " +
             std::to_string(matrix.view.columns) + ", expected " + std::to_string(rows) + " by " +
             std::to_string(columns));
    }
}

void call_read_streams(Context& context, const Floats& x, const Floats& norm, float eps,
                       const DenseMatrix& down, const DenseMatrix& up, const DenseMatrix* inject,
                       const FloatsOut& out, const FloatsOut& scales) {
    check_shape("x", x, {-1, -1, -1});
    const auto tokens = static_cast<int64_t>(x.shape(0)), count = static_cast<int64_t>(x.shape(1)),
               columns = static_cast<int64_t>(x.shape(2));
    const int wide = checked_int("streams", x.shape(1) * x.shape(2));
    check_shape("norm", norm, {count, columns});
    check_shape("out", out, {tokens, columns});
    check_shape("scales", scales, {inject == nullptr ? 0 : tokens, count});
    check_gate("down", down, context, down.view.rows, wide);
    check_gate("up", up, context, wide, down.view.rows);
    if (inject != nullptr) check_gate("inject", *inject, context, count, wide);
    if (x.size() == 0) return;
    const StreamGates by{norm.data(),     eps,      &down.view, &up.view,
                         inject == nullptr ? nullptr : &inject->view,
                         static_cast<int>(count), static_cast<int>(columns)};
    Running running(context);
    read_streams(context, x.data(), checked_int("tokens", tokens), by, out.data(), scales.data());
}

void call_write_streams(Context& context, const Floats& x, const Floats& added,
                        const Floats& scales, const FloatsOut& out) {
    check_shape("x", x, {-1, -1, -1});
    const auto tokens = static_cast<int64_t>(x.shape(0)), count = static_cast<int64_t>(x.shape(1)),
               columns = static_cast<int64_t>(x.shape(2));
    check_shape("added", added, {tokens, columns});
    check_shape("scales", scales, {tokens, count});
    check_same_shape("out", out, x);
    if (x.size() == 0) return;
    checked_int("rows", x.shape(0) * x.shape(1));
    Running running(context);
    write_streams(context, x.data(), added.data(), scales.data(), checked_int("tokens", tokens),
                  checked_int("streams", count), checked_int("columns", columns), out.data());
}

}  // namespace

void bind_streams(nb::class_<Context>& context) {
    using nb::arg;
    context
        .def("read_streams", &call_read_streams, arg("x").noconvert(), arg("norm").noconvert(),
             arg("eps"), arg("down"), arg("up"), arg("inject").none(), arg("out").noconvert(),
             arg("scales").noconvert())
        .def("write_streams", &call_write_streams, arg("x").noconvert(),
             arg("added").noconvert(), arg("scales").noconvert(), arg("out").noconvert());
}

}  // namespace moestream
