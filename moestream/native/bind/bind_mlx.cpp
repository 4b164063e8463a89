// The Python face of the layouts for MLX.
#include <algorithm>

#include "bind/bind.h"
#include "bind/checks.h"
#include "core/mlx_encode.h"
#include "core/threads.h"

namespace moestream {
namespace {

using BytesOut = nb::ndarray<uint8_t, nb::c_contig, nb::device::cpu>;

// Rows that one task lays out: a few pages of them.
constexpr int kRows = 64;

void check_out(const char* name, const BytesOut& out, size_t expected) {
    if (out.size() != expected) {
        fail(std::string(name) + " has " + std::to_string(out.size()) + " bytes, expected " +
             std::to_string(expected));
    }
}

void call_mlx_encode(const Bytes& data, int type_number, int bits, const BytesOut& codes,
                     const BytesOut& scales, const BytesOut& biases, int threads) {
    const int type = checked_type(type_number);
    const TypeLayout& layout = kTypeLayouts[type];
    if (data.ndim() != 2 || data.stride(1) != 1 || data.stride(0) < 0) {
        fail("data must have shape (rows, row_bytes), the bytes of a row contiguous");
    }
    if (!mlx_encodes(layout.type, bits)) {
        fail(std::string(layout.name) + " has no layout for MLX in " + std::to_string(bits) +
             " bits");
    }
    if (threads < 1 || threads > 1024) fail("threads must lie in 1 to 1024");
    const int columns = checked_columns(type, data.shape(1));
    const int rows = checked_int("rows", data.shape(0));
    const bool copied = bits > 8;
    const bool mxfp4 = layout.type == Type::MXFP4, nvfp4 = layout.type == Type::NVFP4;
    if (!copied && columns % kMlxGroup != 0) {
        fail(std::to_string(columns) + " columns are no multiple of 32");
    }
    const size_t row_codes = static_cast<size_t>(columns) * bits / 8;
    const size_t group_bytes = mxfp4 ? 1 : nvfp4 ? 2 : sizeof(float);
    const size_t row_scales = copied ? 0 : columns / kMlxGroup * group_bytes;
    const size_t row_biases = mxfp4 || nvfp4 ? 0 : row_scales;
    check_out("codes", codes, rows * row_codes);
    check_out("scales", scales, rows * row_scales);
    check_out("biases", biases, rows * row_biases);
    nb::gil_scoped_release release;
    ThreadPool pool(threads);
    pool.parallel_for((rows + kRows - 1) / kRows, [&](int task, int) {
        const size_t begin = static_cast<size_t>(task) * kRows;
        mlx_encode(layout.type, bits, data.data() + begin * data.stride(0),
                   static_cast<size_t>(data.stride(0)), std::min(kRows, rows - task * kRows),
                   columns,
                   {codes.data() + begin * row_codes, scales.data() + begin * row_scales,
                    biases.data() + begin * row_biases});
    });
}

}  // namespace

void bind_mlx(nb::module_& m) {
    using nb::arg;
    m.def("mlx_encode", &call_mlx_encode, arg("data").noconvert(), arg("type"), arg("bits"),
          arg("codes").noconvert(), arg("scales").noconvert(), arg("biases").noconvert(),
          arg("threads"));
}

}  // namespace moestream
