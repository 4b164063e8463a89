// Registers the reader in the extension module.
#pragma once

#include <nanobind/nanobind.h>

namespace moestream {

void bind_reader(nanobind::module_& m);

}  // namespace moestream
