// GGUF blocks in MLX's layouts: codes in one array, scales and biases of 32 columns in two others.
//
// Knows the bits of both sides; nothing of slots, files or of MLX itself. What is laid out how is
// decided in moestream/backends/mlx_weights.py.
//
// Affine: a value is scale * code + bias. Codes of 2, 4, 5, 6 or 8 bits follow one another without
// gaps, the first in the lowest bits of little-endian words. MXFP4 and NVFP4: codes are E2M1, a
// scale is one byte (NVFP4's of 16 columns) and there is no bias. Bits of 16 or 32 stand for floats, which are copied.
//
// Source: the documentation of mlx.core.quantize, checked against mlx.core.dequantize.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/types.h"

namespace moestream {

// Columns that share a scale.
inline constexpr int kMlxGroup = 32;

// Where the rows of a matrix go; scales and biases are null where there are none.
struct MlxRows {
    uint8_t* codes = nullptr;
    uint8_t* scales = nullptr;  // float32, or bytes in MXFP4 and NVFP4
    uint8_t* biases = nullptr;  // float32
};

// Bits in which values of this type stay as they are; 0: codes are rounded anew.
int mlx_bits(Type type);

// Whether blocks of this type can be laid out with codes of so many bits.
bool mlx_encodes(Type type, int bits);

// Lay rows of blocks out one after another. `mlx_encodes` must hold, and `columns` be a multiple
// of 32 unless the floats are only copied.
void mlx_encode(Type type, int bits, const uint8_t* rows, size_t row_bytes, int count, int columns,
                MlxRows out);

}  // namespace moestream
