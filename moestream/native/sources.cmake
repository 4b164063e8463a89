# The sources apart from the Python face, and each instruction set's flags for its own unit alone:
# one binary runs on every machine of its architecture, so there is no -march=native here.
set(MOESTREAM_SOURCES
    core/activation.cpp
    core/attention.cpp
    core/cache_append.cpp
    core/dispatch.cpp
    core/elementwise.cpp
    core/experts.cpp
    core/gates.cpp
    core/linear.cpp
    core/mlx_encode.cpp
    core/packing.cpp
    core/recurrent.cpp
    core/routing.cpp
    core/smooth.cpp
    core/streams.cpp
    core/threads.cpp
    io/io.cpp
    io/mapping_guard.cpp
    io/reader.cpp
    io/reader_threads.cpp
    kernels/scalar/scalar.cpp)
set(MOESTREAM_DEFINITIONS)
# No fused multiply-adds but those that are written: all instruction sets give the same bits.
# No errno and no trapping: square roots and rounding become instructions.
set(MOESTREAM_OPTIONS -O3 -Wall -Wextra -ffp-contract=off -fno-math-errno -fno-trapping-math)

if(CMAKE_OSX_ARCHITECTURES)
  set(MOESTREAM_PROCESSOR "${CMAKE_OSX_ARCHITECTURES}")
else()
  set(MOESTREAM_PROCESSOR "${CMAKE_SYSTEM_PROCESSOR}")
endif()

if(MOESTREAM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  list(APPEND MOESTREAM_SOURCES kernels/avx2/avx2.cpp kernels/avx2/avxvnni.cpp
       kernels/avx512/avx512.cpp)
  list(APPEND MOESTREAM_DEFINITIONS MOESTREAM_X86)
  set(avx2 -mavx2 -mfma -mf16c)
  set_source_files_properties(kernels/avx2/avx2.cpp PROPERTIES COMPILE_OPTIONS "${avx2}")
  set_source_files_properties(kernels/avx2/avxvnni.cpp PROPERTIES COMPILE_OPTIONS "${avx2};-mavxvnni")
  # GCC 12's own header uses registers that it leaves undefined, and warns of it.
  set_source_files_properties(kernels/avx512/avx512.cpp PROPERTIES COMPILE_OPTIONS
    "${avx2};-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-Wno-maybe-uninitialized;-Wno-uninitialized")
elseif(MOESTREAM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  # Float16 is converted only, which all of ARMv8 does: +fp16 is not needed.
  list(APPEND MOESTREAM_SOURCES kernels/neon/neon.cpp kernels/neon/neon_i8mm.cpp)
  list(APPEND MOESTREAM_DEFINITIONS MOESTREAM_NEON)
  set_source_files_properties(kernels/neon/neon.cpp PROPERTIES
                              COMPILE_OPTIONS "-march=armv8.2-a+dotprod")
  set_source_files_properties(kernels/neon/neon_i8mm.cpp PROPERTIES
                              COMPILE_OPTIONS "-march=armv8.2-a+dotprod+i8mm")
endif()
