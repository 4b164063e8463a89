#include "core/mlx_encode.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/block_decode.h"

namespace moestream {
namespace {

constexpr int kGroup = kMlxGroup;

// One group as MLX has it, codes not packed yet.
struct Group {
    uint8_t code[kGroup];
    float scale, bias;
};

// A type's integers are step * code + low, with codes of so many bits; no bits for types that are
// rounded to codes anew.
struct Codes {
    int bits, step, low;
};

constexpr Codes codes_of(Type type) {
    const TypeLayout& layout = layout_of(type);
    switch (type) {
        case Type::MXFP4: case Type::NVFP4: return {4, 1, 0};  // MLX has their table too
        case Type::IQ3_XXS: return {6, 2, -62};
        case Type::IQ3_S: return {4, 2, -15};
        case Type::IQ1_S: return {2, 8, 0};  // from a shift of each group's own
        case Type::Q1_0: return {2, 2, -1};
        default: break;
    }
    if (layout.group != kGroup) return {0, 0, 0};
    if (layout.signed_codes) return {8, 1, -128};
    const auto bits = std::bit_width(static_cast<unsigned>(layout.largest));
    return {bits == 2 ? 2 : std::max(static_cast<int>(bits), 4), 1, -layout.offset};
}

bool is_copied(Type type, int bits) {
    const TypeLayout& layout = layout_of(type);
    return layout.input() == Input::Float && bits == 8 * layout.block_bytes;
}

// Eight codes of a byte each moved together, by twos, by fours and all: `bits` whole bytes.
template <int bits>
void pack(const uint8_t* code, uint8_t* out) {
    if constexpr (bits == 8) {
        std::memcpy(out, code, kGroup);
        return;
    }
    constexpr uint64_t one = (1u << bits) - 1, two = (1u << 2 * bits) - 1;
    constexpr uint64_t low1 = one * 0x0001000100010001u, low2 = two * 0x0000000100000001u;
    constexpr uint64_t low4 = (uint64_t{1} << 4 * bits) - 1;
    for (int i = 0; i < kGroup; i += 8) {
        uint64_t x;
        std::memcpy(&x, code + i, 8);
        x = (x & low1) | (x >> (8 - bits) & low1 << bits);
        x = (x & low2) | (x >> (16 - 2 * bits) & low2 << 2 * bits);
        x = (x & low4) | (x >> (32 - 4 * bits) & low4 << 4 * bits);
        std::memcpy(out + i / 8 * bits, &x, bits);
    }
}

void pack_group(int bits, const uint8_t* code, uint8_t* out) {
    switch (bits) {
        case 2: return pack<2>(code, out);
        case 4: return pack<4>(code, out);
        case 5: return pack<5>(code, out);
        case 6: return pack<6>(code, out);
        default: return pack<8>(code, out);
    }
}

// Codes as they are: scale and bias are products of few bits, so nothing is rounded but the bias
// where a type adds its own.
void keep(const int8_t* q, Codes codes, float scale, float minimum, Group* group) {
    for (int i = 0; i < kGroup; ++i) {
        group->code[i] = static_cast<uint8_t>((q[i] - codes.low) / codes.step);
    }
    group->scale = static_cast<float>(codes.step) * scale;
    group->bias = minimum + static_cast<float>(codes.low) * scale;
}

// Of IQ1_S: eight times -1, 0 or 1, and a shift of 1 or -1 that all of a group have.
constexpr Codes iq1s_codes(const int8_t* q) { return {2, 8, (q[0] & 7) == 1 ? -7 : -9}; }

// Nearest codes between the group's least and largest value, which themselves are kept.
void round_group(const float* x, int bits, Group* group) {
    constexpr int lanes = 8;
    float low[lanes], high[lanes];
    for (int j = 0; j < lanes; ++j) low[j] = high[j] = x[j];
    for (int i = lanes; i < kGroup; i += lanes) {
        for (int j = 0; j < lanes; ++j) {
            low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
            high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
        }
    }
    const float least = *std::min_element(low, low + lanes);
    const float range = *std::max_element(high, high + lanes) - least;
    const auto most = static_cast<float>((1 << bits) - 1);
    group->scale = range / most;
    group->bias = least;
    const float inverse = range > 0 ? most / range : 0.0f;
    for (int i = 0; i < kGroup; ++i) {
        const float code = std::min((x[i] - least) * inverse + 0.5f, most);
        group->code[i] = static_cast<uint8_t>(static_cast<int>(code));
    }
}

class Writer {
  public:
    Writer(int bits, MlxRows out) : bits_(bits), out_(out) {}

    void put(const Group& group) {
        pack_group(bits_, group.code, out_.codes);
        std::memcpy(out_.scales, &group.scale, sizeof(float));
        std::memcpy(out_.biases, &group.bias, sizeof(float));
        out_.codes += bits_ * kGroup / 8;
        out_.scales += sizeof(float);
        out_.biases += sizeof(float);
    }

    void put_mxfp4(const uint8_t* block) {
        int8_t nibbles[kGroup];
        decode_nibbles(block + 1, nibbles);
        pack<4>(reinterpret_cast<const uint8_t*>(nibbles), out_.codes);
        *out_.scales++ = block[0];
        out_.codes += kGroup / 2;
    }

    void put_nvfp4(const uint8_t* block) {
        uint8_t code[64];
        for (int i = 0; i < 64; ++i) code[i] = block[4 + i / 16 * 8 + i % 8] >> (i % 16 / 8 * 4) & 15;
        for (int i = 0; i < 64; i += kGroup) pack<4>(code + i, out_.codes + i / 2);
        for (int i = 0; i < 4; ++i) {
            // 127 is 0 in GGUF and no number in MLX, whose scales have signs.
            const int scale = block[i] == 127 ? 0 : block[i] & 127;
            *out_.scales++ = static_cast<uint8_t>(std::min(scale, 126));
        }
        out_.codes += 32;
    }

  private:
    const int bits_;
    MlxRows out_;
};

// The float of each column of a super-block, as block_decode.h defines it.
void float_values(const Block& block, float* x) {
    for (int g = 0; g < 16; ++g) {
        const float scale = block.d * static_cast<float>(block.scale[g]);
        const float minimum = block.m * static_cast<float>(block.min[g]);
        for (int i = g * 16; i < g * 16 + 16; ++i) {
            x[i] = scale * static_cast<float>(block.q[i]) - minimum;
        }
    }
}

template <Type T>
void encode_block(int bits, const uint8_t* bytes, Writer* writer) {
    constexpr TypeLayout kLayout = layout_of(T);
    constexpr Codes kCodes = codes_of(T);
    if constexpr (T == Type::MXFP4) return writer->put_mxfp4(bytes);
    if constexpr (T == Type::NVFP4) return writer->put_nvfp4(bytes);
    Block block;
    Group group;
    decode<T>(bytes, &block);
    if constexpr (kLayout.input() == Input::Block32) {
        for (int i = 0; i < kLayout.block_values; i += kGroup) {
            keep(block.q + i, kCodes, block.d, block.m, &group);
            writer->put(group);
        }
        return;
    }
    float x[256];
    if constexpr (kCodes.bits == 0) float_values(block, x);
    for (int g = 0; g < kLayout.block_values / kGroup; ++g) {
        if constexpr (kCodes.bits == 0) {
            round_group(x + g * kGroup, bits, &group);
        } else {
            const float scale = block.d * static_cast<float>(block.scale[2 * g]);
            const float minimum = -(block.m * static_cast<float>(block.min[2 * g]));
            const int8_t* q = block.q + g * kGroup;
            keep(q, T == Type::IQ1_S ? iq1s_codes(q) : kCodes, scale, minimum, &group);
        }
        writer->put(group);
    }
}

void encode_floats(int bits, const uint8_t* row, int columns, Writer* writer) {
    Group group;
    for (int i = 0; i < columns; i += kGroup) {
        float x[kGroup];
        std::memcpy(x, row + i * sizeof(float), sizeof x);
        round_group(x, bits, &group);
        writer->put(group);
    }
}

}  // namespace

int mlx_bits(Type type) {
    const TypeLayout& layout = layout_of(type);
    return layout.input() == Input::Float ? 8 * layout.block_bytes : codes_of(type).bits;
}

bool mlx_encodes(Type type, int bits) {
    if (is_copied(type, bits)) return true;
    if (const Codes codes = codes_of(type); codes.bits != 0) return bits == codes.bits;
    return type != Type::F16 && type != Type::BF16 && (bits == 5 || bits == 6 || bits == 8);
}

void mlx_encode(Type type, int bits, const uint8_t* rows, size_t row_bytes, int count, int columns,
                MlxRows out) {
    const size_t bytes = layout_of(type).row_bytes(columns);
    const bool copied = is_copied(type, bits);
    Writer writer(bits, out);
    with_type(type, [&]<Type T>() {
        for (int row = 0; row < count; ++row) {
            const uint8_t* from = rows + row * row_bytes;
            if (copied) {
                std::memcpy(out.codes + row * bytes, from, bytes);
            } else if constexpr (T == Type::F32) {
                encode_floats(bits, from, columns, &writer);
            } else if constexpr (layout_of(T).input() != Input::Float) {
                for (size_t at = 0; at < bytes; at += layout_of(T).block_bytes) {
                    encode_block<T>(bits, from + at, &writer);
                }
            }
        }
    });
}

}  // namespace moestream
