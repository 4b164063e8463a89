// Checks of what Python passes in: each throws nb::value_error that says what was expected.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <string>

#include "core/context.h"

namespace nb = nanobind;

namespace moestream {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using FloatsOut = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;
using IntsOut = nb::ndarray<int32_t, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::device::cpu>;
using Addresses = nb::ndarray<const uint64_t, nb::c_contig, nb::device::cpu>;
using AnyOut = nb::ndarray<nb::c_contig, nb::device::cpu>;

[[noreturn]] inline void fail(const std::string& message) {
    throw nb::value_error(message.c_str());
}

template <class Array>
std::string shape_text(const Array& array) {
    std::string text = "(";
    for (size_t i = 0; i < array.ndim(); ++i) {
        text += (i ? ", " : "") + std::to_string(array.shape(i));
    }
    return text + ")";
}

// An array of exactly this shape whose data lie aligned; -1 stands for any length.
template <class Array>
void check_shape(const char* name, const Array& array, std::initializer_list<int64_t> shape) {
    bool fits = array.ndim() == shape.size();
    size_t axis = 0;
    std::string expected;
    for (const int64_t length : shape) {
        fits = fits && (length < 0 || array.shape(axis) == static_cast<size_t>(length));
        expected += (axis ? ", " : "") + (length < 0 ? std::string("any") : std::to_string(length));
        ++axis;
    }
    if (!fits) {
        fail(std::string(name) + " has shape " + shape_text(array) + ", expected (" + expected +
             ")");
    }
    if (reinterpret_cast<uintptr_t>(array.data()) % array.itemsize() != 0) {
        fail(std::string(name) + " is not aligned to its items");
    }
}

// A dimension as int, refused where products of two could overflow.
inline int checked_int(const char* name, size_t value) {
    if (value > size_t{1} << 28) {
        fail(std::string(name) + " is too large: " + std::to_string(value));
    }
    return static_cast<int>(value);
}

template <class Array>
void check_same_shape(const char* name, const Array& array, const Floats& like) {
    bool same = array.ndim() == like.ndim();
    for (size_t i = 0; same && i < like.ndim(); ++i) same = array.shape(i) == like.shape(i);
    if (!same) {
        fail(std::string(name) + " has shape " + shape_text(array) + ", expected " +
             shape_text(like));
    }
    if (reinterpret_cast<uintptr_t>(array.data()) % sizeof(float) != 0) {
        fail(std::string(name) + " is not aligned to its items");
    }
}

// As named in moestream/backends/types.py.
inline Activation checked_activation(const std::string& name, float limit, float up_limit) {
    if (name == "silu") return {Kind::Silu, limit};
    if (name == "gelu") return {Kind::Gelu, limit};
    if (name == "swiglu_oai") return {Kind::SwigluOai, limit};
    if (name == "relu") return {Kind::Relu, limit};
    if (name == "silu_clamped") return {Kind::SiluClamped, limit};
    if (name == "silu_capped") return {Kind::SiluCapped, limit};
    if (name == "situ") return {Kind::Situ, limit, up_limit};
    fail("activation " + name +
         " is not known, expected silu, gelu, swiglu_oai, relu, silu_clamped, silu_capped or situ");
}

inline Gating checked_gating(const std::string& name) {
    if (name == "softmax") return Gating::Softmax;
    if (name == "sigmoid") return Gating::Sigmoid;
    if (name == "softmax_of_chosen") return Gating::SoftmaxOfChosen;
    if (name == "sqrt_softplus") return Gating::SqrtSoftplus;
    fail("gating " + name +
         " is not known, expected softmax, sigmoid, softmax_of_chosen or sqrt_softplus");
}

inline int checked_type(int number) {
    const int index = type_index(number);
    if (index < 0) fail("GGML type " + std::to_string(number) + " has no native kernel");
    return index;
}

// Columns that rows of `row_bytes` hold.
inline int checked_columns(int type, size_t row_bytes) {
    const TypeLayout& layout = kTypeLayouts[type];
    if (row_bytes == 0 || row_bytes % layout.block_bytes != 0) {
        fail("rows of " + std::to_string(row_bytes) + " bytes are not whole " + layout.name +
             " blocks of " + std::to_string(layout.block_bytes));
    }
    return checked_int("columns", row_bytes / layout.block_bytes * layout.block_values);
}

}  // namespace moestream
