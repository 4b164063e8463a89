// The GGML tensor types computed natively: one table, from which all else reads what a type is.
//
// What the bits of a block mean is in block_decode.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

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
    IQ2_XXS = 16,
    IQ2_XS = 17,
    IQ3_XXS = 18,
    IQ1_S = 19,
    IQ4_NL = 20,
    IQ3_S = 21,
    IQ2_S = 22,
    IQ4_XS = 23,
    IQ1_M = 29,
    BF16 = 30,
    TQ1_0 = 34,
    TQ2_0 = 35,
    MXFP4 = 39,
    NVFP4 = 40,
    Q1_0 = 41,
    Q2_0 = 42,
};

// How the input of a matmul is stored for a weight type: as it is, or as int8 with one float
// scale for 32 values (block types) or 256 (super-block types).
enum class Input : int { Float = 0, Block32 = 1, Block256 = 2 };

// All that is known of a type but what its bits mean. A quantised value is
//     32-value types:   d * (code - offset) + m, blocks of 64 and 128 values being several
//     256-value types:  d * scale * (code - offset) - dmin * min
// the integers scale and min being there for each group of values.
struct TypeLayout {
    Type type;
    const char* name;
    int block_values;
    int block_bytes;
    int d_at;          // byte of the block's d; two bytes further on is m or dmin
    bool has_min;      // whether there is an m or dmin
    int group;         // values that share a scale
    int offset;        // a power of two, or 0
    int largest;       // greatest magnitude of a code
    bool signed_codes;
    int packed_bits;   // of a code in the order of packing.h; 0: not kept in it
    float d_times = 1.0f;  // a power of two that codes are larger by, so that they are integers

    constexpr Input input() const {
        return block_values == 1 ? Input::Float : block_values == 256 ? Input::Block256
                                                                      : Input::Block32;
    }
    constexpr size_t row_bytes(int columns) const {
        return static_cast<size_t>(columns) / block_values * block_bytes;
    }
};

inline constexpr TypeLayout kTypeLayouts[] = {
    // type, name, block values and bytes, d_at, has_min, group, offset, largest, signed, packed,
    // d_times where it is not 1
    {Type::F32, "F32", 1, 4, 0, false, 0, 0, 0, false, 0},
    {Type::F16, "F16", 1, 2, 0, false, 0, 0, 0, false, 0},
    {Type::BF16, "BF16", 1, 2, 0, false, 0, 0, 0, false, 0},
    {Type::Q8_0, "Q8_0", 32, 34, 0, false, 32, 0, 128, true, 8},
    {Type::Q4_0, "Q4_0", 32, 18, 0, false, 32, 8, 15, false, 4},
    {Type::Q4_1, "Q4_1", 32, 20, 0, true, 32, 0, 15, false, 4},
    {Type::Q5_0, "Q5_0", 32, 22, 0, false, 32, 16, 31, false, 0},
    {Type::Q5_1, "Q5_1", 32, 24, 0, true, 32, 0, 31, false, 0},
    {Type::IQ4_NL, "IQ4_NL", 32, 18, 0, false, 32, 0, 127, true, 0},
    {Type::MXFP4, "MXFP4", 32, 17, 0, false, 32, 0, 12, true, 0},  // d is an exponent, a byte
    {Type::NVFP4, "NVFP4", 64, 36, 0, false, 16, 0, 12, true, 0},  // four d, bytes
    {Type::Q1_0, "Q1_0", 128, 18, 0, false, 32, 1, 2, false, 0},
    {Type::Q2_0, "Q2_0", 64, 18, 0, false, 32, 1, 3, false, 0},
    {Type::Q2_K, "Q2_K", 256, 84, 80, true, 16, 0, 3, false, 0},
    {Type::Q3_K, "Q3_K", 256, 110, 108, false, 16, 4, 7, false, 0},
    {Type::Q4_K, "Q4_K", 256, 144, 0, true, 32, 0, 15, false, 4},
    {Type::Q5_K, "Q5_K", 256, 176, 0, true, 32, 0, 31, false, 0},
    {Type::Q6_K, "Q6_K", 256, 210, 208, false, 16, 32, 63, false, 6},
    {Type::IQ4_XS, "IQ4_XS", 256, 136, 0, false, 32, 0, 127, true, 0},
    {Type::IQ2_XXS, "IQ2_XXS", 256, 66, 0, false, 32, 0, 43, true, 0, 0.125f},
    {Type::IQ2_XS, "IQ2_XS", 256, 74, 0, false, 16, 0, 43, true, 0, 0.125f},
    {Type::IQ2_S, "IQ2_S", 256, 82, 0, false, 16, 0, 43, true, 0, 0.125f},
    {Type::IQ3_XXS, "IQ3_XXS", 256, 98, 0, false, 32, 0, 62, true, 0, 0.25f},
    {Type::IQ3_S, "IQ3_S", 256, 110, 0, false, 32, 0, 15, true, 0},
    {Type::IQ1_S, "IQ1_S", 256, 50, 0, false, 32, 16, 25, false, 0, 0.125f},
    {Type::IQ1_M, "IQ1_M", 256, 56, 48, false, 16, 16, 25, false, 0, 0.125f},  // d in pieces
    {Type::TQ1_0, "TQ1_0", 256, 54, 52, false, 32, 1, 2, false, 0},
    {Type::TQ2_0, "TQ2_0", 256, 66, 64, false, 32, 1, 3, false, 0},
};
inline constexpr int kNumTypes = sizeof(kTypeLayouts) / sizeof(kTypeLayouts[0]);

// Row of kTypeLayouts, or -1 for a type that has no native kernel.
constexpr int type_index(int number) {
    for (int i = 0; i < kNumTypes; ++i) {
        if (static_cast<int>(kTypeLayouts[i].type) == number) return i;
    }
    return -1;
}

// By type_index: what `of.operator()<T>()` is for each type.
template <class Of>
constexpr auto for_all_types(const Of& of) {
    return [&]<size_t... I>(std::index_sequence<I...>) {
        return std::array{of.template operator()<kTypeLayouts[I].type>()...};
    }(std::make_index_sequence<kNumTypes>{});
}

// body.operator()<T>(), T being a type that is known only as the program runs.
template <class Body>
void with_type(Type type, const Body& body) {
    using Call = void (*)(const Body&);
    constexpr auto kCalls = for_all_types([]<Type T>() -> Call {
        return [](const Body& b) { b.template operator()<T>(); };
    });
    kCalls[type_index(static_cast<int>(type))](body);
}

constexpr const TypeLayout& layout_of(Type type) {
    for (const TypeLayout& layout : kTypeLayouts) {
        if (layout.type == type) return layout;
    }
    __builtin_unreachable();
}

// Signed code values of IQ4_NL and IQ4_XS, and twice those of MXFP4 and NVFP4 (whose scale is
// halved).
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr int8_t kMxfp4Values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace moestream
