// What the bits of each block type mean, those of codebooks apart (decode_codebooks.h).
#pragma once

#include "core/decode_codebooks.h"

namespace moestream {
namespace {

inline void decode_nibbles(const uint8_t* qs, int8_t* q) {
    for (int i = 0; i < 16; ++i) {
        q[i] = static_cast<int8_t>(qs[i] & 15);
        q[i + 16] = static_cast<int8_t>(qs[i] >> 4);
    }
}

inline void decode_five_bits(const uint8_t* high, const uint8_t* qs, int8_t* q) {
    decode_nibbles(qs, q);
    const uint32_t bits = load_u32(high);
    for (int i = 0; i < 32; ++i) q[i] |= static_cast<int8_t>(((bits >> i) & 1) << 4);
}

// The 6-bit scales and minimums of Q4_K and Q5_K: eight of each in 12 bytes.
inline void decode_k4_scales(const uint8_t* p, uint8_t* scale, uint8_t* min) {
    for (int j = 0; j < 4; ++j) {
        scale[j] = p[j] & 63;
        min[j] = p[j + 4] & 63;
        scale[j + 4] = static_cast<uint8_t>((p[j + 8] & 15) | ((p[j] >> 6) << 4));
        min[j + 4] = static_cast<uint8_t>((p[j + 8] >> 4) | ((p[j + 4] >> 6) << 4));
    }
}

// The 6-bit scales of Q3_K: sixteen, offset by 32, in 12 bytes.
inline void decode_q3k_scales(const uint8_t* p, int8_t* scale) {
    for (int j = 0; j < 16; ++j) {
        const int low = j < 8 ? p[j] & 15 : p[j - 8] >> 4;
        const int high = (p[8 + j % 4] >> (2 * (j / 4))) & 3;
        scale[j] = static_cast<int8_t>((low | high << 4) - 32);
    }
}

// The 6-bit scales of IQ4_XS: eight, offset by 32, low halves in 4 bytes, high in a uint16.
inline void decode_iq4xs_scales(const uint8_t* p, int8_t* scale) {
    const uint32_t high = load_u16(p + 2);
    for (int j = 0; j < 8; ++j) {
        const int low = (p[4 + j / 2] >> (4 * (j % 2))) & 15;
        scale[j] = static_cast<int8_t>((low | static_cast<int>((high >> (2 * j)) & 3) << 4) - 32);
    }
}

[[gnu::noinline]] inline void decode_table(const uint8_t* qs, const int8_t* values, int8_t* q) {
    for (int i = 0; i < 16; ++i) q[i] = values[qs[i] & 15];
    for (int i = 0; i < 16; ++i) q[i + 16] = values[qs[i] >> 4];
}

// Of Q4_K, and of Q5_K with its fifth bits in `high`.
inline void decode_k4(const uint8_t* p, const uint8_t* high, const uint8_t* qs, Block* out) {
    uint8_t scale[8], min[8];
    decode_k4_scales(p + 4, scale, min);
    for (int j = 0; j < 16; ++j) {
        out->scale[j] = static_cast<int8_t>(scale[j / 2]);
        out->min[j] = min[j / 2];
    }
    for (int g = 0; g < 8; ++g) {
        for (int i = 0; i < 32; ++i) {
            int q = (qs[g / 2 * 32 + i] >> (g % 2 * 4)) & 15;
            if (high != nullptr) q |= ((high[i] >> g) & 1) << 4;
            out->q[g * 32 + i] = static_cast<int8_t>(q);
        }
    }
}

template <>
inline void decode_codes<Type::Q8_0>(const uint8_t* p, Block* out) {
    std::memcpy(out->q, p + 2, 32);
}

template <>
inline void decode_codes<Type::Q4_0>(const uint8_t* p, Block* out) {
    decode_nibbles(p + 2, out->q);
    for (int i = 0; i < 32; ++i) out->q[i] -= 8;
}

template <>
inline void decode_codes<Type::Q4_1>(const uint8_t* p, Block* out) {
    decode_nibbles(p + 4, out->q);
}

template <>
inline void decode_codes<Type::Q5_0>(const uint8_t* p, Block* out) {
    decode_five_bits(p + 2, p + 6, out->q);
    for (int i = 0; i < 32; ++i) out->q[i] -= 16;
}

template <>
inline void decode_codes<Type::Q5_1>(const uint8_t* p, Block* out) {
    decode_five_bits(p + 4, p + 8, out->q);
}

template <>
inline void decode_codes<Type::IQ4_NL>(const uint8_t* p, Block* out) {
    decode_table(p + 2, kIq4Values, out->q);
}

template <>
inline void decode_codes<Type::MXFP4>(const uint8_t* p, Block* out) {
    decode_table(p + 1, kMxfp4Values, out->q);
}

template <>
inline void decode_codes<Type::NVFP4>(const uint8_t* p, Block* out) {
    for (int i = 0; i < 64; ++i) {
        out->q[i] = kMxfp4Values[p[4 + i / 16 * 8 + i % 8] >> (i % 16 / 8 * 4) & 15];
    }
}

template <>
inline void decode_codes<Type::Q1_0>(const uint8_t* p, Block* out) {
    for (int i = 0; i < 128; ++i) {
        out->q[i] = static_cast<int8_t>((p[2 + i / 8] >> (i % 8) & 1) * 2 - 1);
    }
}

template <>
inline void decode_codes<Type::Q2_0>(const uint8_t* p, Block* out) {
    for (int i = 0; i < 64; ++i) {
        out->q[i] = static_cast<int8_t>((p[2 + i / 4] >> (i % 4 * 2) & 3) - 1);
    }
}

template <>
inline void decode_codes<Type::Q2_K>(const uint8_t* p, Block* out) {
    for (int j = 0; j < 16; ++j) {
        out->scale[j] = static_cast<int8_t>(p[j] & 15);
        out->min[j] = p[j] >> 4;
    }
    for (int i = 0; i < 256; ++i) {
        out->q[i] = static_cast<int8_t>((p[16 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2)) & 3);
    }
}

template <>
inline void decode_codes<Type::Q3_K>(const uint8_t* p, Block* out) {
    decode_q3k_scales(p + 96, out->scale);
    for (int i = 0; i < 256; ++i) {
        const int low = (p[32 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2)) & 3;
        const int high = (p[i % 32] >> (i / 32)) & 1;
        out->q[i] = static_cast<int8_t>((low | high << 2) - 4);
    }
}

template <>
inline void decode_codes<Type::Q4_K>(const uint8_t* p, Block* out) {
    decode_k4(p, nullptr, p + 16, out);
}

template <>
inline void decode_codes<Type::Q5_K>(const uint8_t* p, Block* out) {
    decode_k4(p, p + 16, p + 48, out);
}

template <>
inline void decode_codes<Type::Q6_K>(const uint8_t* p, Block* out) {
    std::memcpy(out->scale, p + 192, 16);
    for (int half = 0; half < 2; ++half) {
        const uint8_t *low = p + half * 64, *high = p + 128 + half * 32;
        int8_t* q = out->q + half * 128;
        for (int i = 0; i < 32; ++i) {
            q[i] = static_cast<int8_t>(((low[i] & 15) | (high[i] & 3) << 4) - 32);
            q[i + 32] = static_cast<int8_t>(((low[i + 32] & 15) | (high[i] >> 2 & 3) << 4) - 32);
            q[i + 64] = static_cast<int8_t>((low[i] >> 4 | (high[i] >> 4 & 3) << 4) - 32);
            q[i + 96] = static_cast<int8_t>((low[i + 32] >> 4 | (high[i] >> 6) << 4) - 32);
        }
    }
}

template <>
inline void decode_codes<Type::IQ4_XS>(const uint8_t* p, Block* out) {
    int8_t scale[8];
    decode_iq4xs_scales(p, scale);
    for (int j = 0; j < 16; ++j) out->scale[j] = scale[j / 2];
    for (int g = 0; g < 8; ++g) decode_table(p + 8 + g * 16, kIq4Values, out->q + g * 32);
}

// All of a block.
template <Type T>
inline void decode(const uint8_t* p, Block* out) {
    constexpr TypeLayout kLayout = layout_of(T);
    const uint8_t* d = p + kLayout.d_at;
    if constexpr (T == Type::NVFP4) {
        for (int i = 0; i < 4; ++i) out->d16[i] = ue4m3_half_to_float(d[i]);
    } else if constexpr (T == Type::MXFP4) {
        out->d = e8m0_half_to_float(*d);
    } else if constexpr (T == Type::IQ1_M) {
        out->d = half_to_float(iq1m_d(p)) * kLayout.d_times;
    } else {
        out->d = load_half(d) * kLayout.d_times;
    }
    out->m = kLayout.has_min ? load_half(d + 2) : 0.0f;
    if constexpr (kLayout.block_values == 256) std::memset(out->min, 0, sizeof out->min);
    decode_codes<T>(p, out);
}

}  // namespace
}  // namespace moestream
