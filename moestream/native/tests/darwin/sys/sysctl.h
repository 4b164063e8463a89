// Stands in for macOS's header of this name, where check_darwin.cpp is compiled for another system.
#pragma once

#include <cstddef>

int sysctlbyname(const char* name, void* value, size_t* size, void* set, size_t set_size);
