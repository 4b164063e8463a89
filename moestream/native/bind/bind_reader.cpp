// The Python face of the reader; used through moestream.streaming.reader alone.
#include <nanobind/stl/vector.h>

#include <cstring>

#include "bind/bind.h"
#include "bind/checks.h"
#include "io/reader.h"

namespace moestream {
namespace {

using Ranges = nb::ndarray<const int64_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using States = nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>;

constexpr size_t kRangeFields = sizeof(ReadRange) / sizeof(int64_t);
// How long a wait goes on before it looks whether Ctrl-C was pressed.
constexpr std::chrono::milliseconds kSlice{50};

uint32_t checked_key(const Reader& reader, int64_t key) {
    if (key < 0 || static_cast<size_t>(key) >= reader.keys()) {
        throw nb::index_error(("there is no key " + std::to_string(key)).c_str());
    }
    if (reader.closed()) fail("the reader is closed");
    return static_cast<uint32_t>(key);
}

void make_reader(Reader* self, const Ranges& ranges, int threads, size_t piece_bytes,
                 bool mapped) {
    if (ranges.shape(2) != kRangeFields) {
        fail("ranges must have shape (keys, ranges a key, 5)");
    }
    if (ranges.shape(1) == 0) fail("a key needs at least one range");
    if (threads < 1 || threads > 64) fail("threads must lie in 1 to 64");
    if (piece_bytes < 4096 || piece_bytes % 4096 != 0) {
        fail("piece_bytes must be a multiple of 4096");
    }
    std::vector<ReadRange> table(ranges.shape(0) * ranges.shape(1));
    if (!table.empty()) std::memcpy(table.data(), ranges.data(), table.size() * sizeof(ReadRange));
    new (self) Reader(std::move(table), ranges.shape(0), {threads, piece_bytes, mapped});
}

void encode(Reader& reader, const Ranges& matrices, size_t staging_bytes) {
    if (matrices.shape(0) != reader.keys() || matrices.shape(1) != kSlotMatrices ||
        matrices.shape(2) != sizeof(SlotMatrix) / sizeof(int64_t)) {
        fail("matrices must have shape (keys, 3, 11)");
    }
    std::vector<SlotMatrix> table(matrices.shape(0) * kSlotMatrices);
    if (!table.empty()) {
        std::memcpy(table.data(), matrices.data(), table.size() * sizeof(SlotMatrix));
    }
    for (const SlotMatrix& matrix : table) {
        if (matrix.rows == 0) continue;  // of a layer without experts
        const int type = checked_type(static_cast<int>(matrix.type));
        if (!mlx_encodes(kTypeLayouts[type].type, static_cast<int>(matrix.bits))) {
            fail(std::string(kTypeLayouts[type].name) + " cannot be laid out for MLX so");
        }
    }
    reader.encode(std::move(table), staging_bytes);
}

std::vector<uint32_t> wait_any(Reader& reader, const std::vector<int64_t>& keys) {
    std::vector<uint32_t> waiting, done;
    for (const int64_t key : keys) {
        waiting.push_back(checked_key(reader, key));
        if (reader.state(waiting.back()) == ReadState::Absent) {
            fail("a key was waited for that is not being read");
        }
    }
    if (waiting.empty()) return done;
    for (bool any = false; !any;) {
        {
            nb::gil_scoped_release release;
            any = reader.wait_any(waiting, kSlice);
        }
        if (!any && PyErr_CheckSignals() != 0) throw nb::python_error();
    }
    if (reader.closed()) fail("the reader was closed");
    for (const uint32_t key : waiting) {
        const ReadState state = reader.state(key);
        if (state == ReadState::Ready || state == ReadState::Failed) done.push_back(key);
    }
    return done;
}

nb::dict counters(Reader& reader) {
    const ReadCounters now = reader.counters();
    nb::dict result;
    result["demand_bytes"] = now.demand_bytes;
    result["speculative_bytes"] = now.speculative_bytes;
    result["pieces"] = now.pieces;
    result["cancelled"] = now.cancelled;
    result["busy_ns"] = now.busy_ns;
    result["deepest"] = now.deepest;
    return result;
}

void submit(Reader& reader, int64_t key, uintptr_t destination, bool speculative,
            uint64_t generation) {
    reader.submit(checked_key(reader, key), reinterpret_cast<uint8_t*>(destination), speculative,
                  generation);
}

void inject(Reader& reader, int error, double delay_s) {
    reader.inject(error, std::chrono::nanoseconds(static_cast<int64_t>(delay_s * 1e9)));
}

}  // namespace

void bind_reader(nb::module_& m) {
    using nb::arg;
    nb::class_<Reader>(m, "Reader")
        .def("__init__", &make_reader, arg("ranges").noconvert(), arg("threads"),
             arg("piece_bytes"), arg("mapped"))
        .def_prop_ro("states",
                     [](Reader& reader) {
                         return States(reader.states(), {reader.keys()}, nb::find(&reader));
                     })
        .def("encode", &encode, arg("matrices").noconvert(), arg("staging_bytes"))
        .def("submit", &submit, arg("key"), arg("destination"), arg("speculative"),
             arg("generation"))
        .def("cancel_before", &Reader::cancel_before, arg("generation"))
        .def("forget",
             [](Reader& reader, int64_t key) { reader.forget(checked_key(reader, key)); },
             arg("key"))
        .def("wait_any", &wait_any, arg("keys"))
        .def("error",
             [](Reader& reader, int64_t key) { return reader.error(checked_key(reader, key)); },
             arg("key"))
        .def("resident",
             [](const Reader& reader, int64_t key) {
                 return reader.resident(checked_key(reader, key));
             },
             arg("key"))
        .def("lock",
             [](Reader& reader, int64_t key, bool on) {
                 return reader.lock(checked_key(reader, key), on);
             },
             arg("key"), arg("on"))
        .def("counters", &counters)
        .def("inject", &inject, arg("error") = 0, arg("delay_s") = 0.0)
        .def("close", &Reader::close, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace moestream
