// The GGML tensor types computed natively: numbers, block sizes and what their products need.
//
// Knows layouts only; what the bits of a block mean is in block_decode.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moestream {

// Values are GGML's own type numbers, as found in GGUF files.
enum class Type : int {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ4_NL = 20,
    IQ4_XS = 23,
    BF16 = 30,
    MXFP4 = 39,
};

// How the input of a matmul is stored for a weight type: as it is, or as int8 with one float
// scale for 32 values (block types) or 256 (super-block types).
enum class Input : int { Float = 0, Block32 = 1, Block256 = 2 };

struct TypeLayout {
    Type type;
    int block_values;
    int block_bytes;
    Input input;
    const char* name;
};

inline constexpr TypeLayout kTypeLayouts[] = {
    {Type::F32, 1, 4, Input::Float, "F32"},
    {Type::F16, 1, 2, Input::Float, "F16"},
    {Type::BF16, 1, 2, Input::Float, "BF16"},
    {Type::Q8_0, 32, 34, Input::Block32, "Q8_0"},
    {Type::Q4_0, 32, 18, Input::Block32, "Q4_0"},
    {Type::Q4_1, 32, 20, Input::Block32, "Q4_1"},
    {Type::Q5_0, 32, 22, Input::Block32, "Q5_0"},
    {Type::Q5_1, 32, 24, Input::Block32, "Q5_1"},
    {Type::IQ4_NL, 32, 18, Input::Block32, "IQ4_NL"},
    {Type::MXFP4, 32, 17, Input::Block32, "MXFP4"},
    {Type::Q2_K, 256, 84, Input::Block256, "Q2_K"},
    {Type::Q3_K, 256, 110, Input::Block256, "Q3_K"},
    {Type::Q4_K, 256, 144, Input::Block256, "Q4_K"},
    {Type::Q5_K, 256, 176, Input::Block256, "Q5_K"},
    {Type::Q6_K, 256, 210, Input::Block256, "Q6_K"},
    {Type::IQ4_XS, 256, 136, Input::Block256, "IQ4_XS"},
};
inline constexpr int kNumTypes = sizeof(kTypeLayouts) / sizeof(kTypeLayouts[0]);

// Row of kTypeLayouts, or -1 for a type that has no native kernel.
constexpr int type_index(int number) {
    for (int i = 0; i < kNumTypes; ++i) {
        if (static_cast<int>(kTypeLayouts[i].type) == number) return i;
    }
    return -1;
}

// Signed code values of IQ4_NL and IQ4_XS, and twice those of MXFP4 (whose scale is halved).
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr int8_t kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace moestream
