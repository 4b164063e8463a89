// What the units of the Python face share: each registers its part of the extension module.
#pragma once

#include <nanobind/nanobind.h>

#include <mutex>

#include "core/context.h"

namespace moestream {

// The context for one operation, with the GIL released while it is waited for and used.
class Running {
  public:
    explicit Running(Context& context) : lock_(context.mutex) {}

  private:
    nanobind::gil_scoped_release release_;
    std::lock_guard<std::mutex> lock_;
};

void bind_matrix(nanobind::module_& m, nanobind::class_<Context>& context);
void bind_experts(nanobind::module_& m, nanobind::class_<Context>& context);
void bind_attention(nanobind::module_& m, nanobind::class_<Context>& context);
void bind_elementwise(nanobind::class_<Context>& context);
void bind_recurrent(nanobind::class_<Context>& context);
void bind_streams(nanobind::class_<Context>& context);
void bind_mlx(nanobind::module_& m);
void bind_gates(nanobind::module_& m);
void bind_reader(nanobind::module_& m);

}  // namespace moestream
