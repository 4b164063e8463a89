// The Python face of the operations: checks every argument, lets go of the GIL, calls.
//
// Results are written into arrays that the caller made, which costs Python less than having them
// made here. This unit owns the module and the context; each bind_*.cpp, one kind of
// operation.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "bind/bind.h"
#include "bind/checks.h"
#include "io/mapping_guard.h"

namespace moestream {
namespace {

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

double call_bandwidth(Context& context, size_t bytes, int repeats) {
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
    m.def("watch_mapping", [](uintptr_t begin, size_t bytes) {
        return watch_mapping(reinterpret_cast<const void*>(begin), bytes);
    }, arg("begin"), arg("bytes"));
    m.def("missing_pages", &missing_pages, arg("mapping"));
    m.def("forget_mapping", &forget_mapping, arg("mapping"));
    auto context =
        nb::class_<Context>(m, "Context")
            .def(nb::new_(&make_context), arg("threads"), arg("isa") = nb::none())
            .def_prop_ro("threads", [](const Context& c) { return c.pool.threads(); })
            .def_prop_ro("isa", [](const Context& c) { return c.kernels.name; })
            .def("read_bandwidth", &call_bandwidth, arg("bytes"), arg("repeats") = 5);
    bind_matrix(m, context);
    bind_experts(m, context);
    bind_attention(m, context);
    bind_elementwise(context);
    bind_recurrent(context);
    bind_streams(context);
    bind_mlx(m);
    bind_gates(m);
    bind_reader(m);
}
