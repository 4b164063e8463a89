// What is done to rows of floats: int8 blocks, norms, activations, exponentials, float16.
#include <algorithm>
#include <cmath>

#include "core/half.h"
#include "tests/support.h"

namespace moestream::check {
namespace {

struct Quantised {
    Guarded<int8_t> q;
    Guarded<float> d, s;
    Guarded<int16_t> sums16, sums32;

    // Each array no longer than this form of input needs it.
    Quantised(int columns, int block)
        : q(columns),
          d(columns / block),
          s(block == 32 ? columns / 32 : 0),
          sums16(columns / 16),
          sums32(columns / 32) {}

    QuantizedRow row() const {
        return {q.data(), d.data(), s.data(), sums16.data(), sums32.data()};
    }
};

void check_blocks(const Kernels& kernels, int block, const Guarded<float>& x, const char* what) {
    const int columns = static_cast<int>(x.size());
    begin_case("%s: quantize%d of %d, %s", kernels.name, block, columns, what);
    const Quantised got(columns, block), expected(columns, block);
    const auto run = [&](const Kernels& table, const Quantised& out) {
        (block == 32 ? table.quantize32 : table.quantize256)(x.data(), columns, out.row());
    };
    run(kernels, got);
    run(kScalarKernels, expected);
    compare("q", got.q, expected.q);
    compare("d", got.d, expected.d);
    compare("s", got.s, expected.s);
    compare("sums16", got.sums16, expected.sums16);
    compare("sums32", got.sums32, expected.sums32);
}

// Blocks with a scale of 1 and values halfway between integers.
Guarded<float> halfway(Random& random, int columns) {
    Guarded<float> x(columns);
    for (int i = 0; i < columns; ++i) {
        x[i] = i % 32 == 5 ? 127.0f : static_cast<float>(random.below(253) - 126) + 0.5f;
    }
    return x;
}

// Where exponentials turn, round and end, among values of every size.
Guarded<float> exponents(Random& random, int count) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    constexpr float kEdges[] = {0.0f,      -0.0f,  -87.3f,  -87.29999f, -87.30001f, 88.3f,
                                88.29999f, 88.31f, -104.0f, 104.0f,     kInfinity,  -kInfinity,
                                0.34657f,  1e-40f, 1e30f,   -1e30f};
    Guarded<float> x(count);
    for (int i = 0; i < count; ++i) {
        const int which = random.below(100);
        x[i] = which < 16    ? kEdges[which]
               : which < 60  ? random.uniform() * 100.0f
               : which < 98  ? random.normal()
               : which == 98 ? std::numeric_limits<float>::quiet_NaN()
                             : std::bit_cast<float>(random.bits());
    }
    return x;
}

// Around the middle between two whole powers of two, where exponentials round the other way.
Guarded<float> between_powers() {
    constexpr int kBeside = 8;
    Guarded<float> x(256 * 2 * kBeside);
    for (int n = -128; n < 128; ++n) {
        float value = (static_cast<float>(n) + 0.5f) / 1.44269504f;
        for (int i = 0; i < kBeside; ++i) value = std::nextafter(value, -1e30f);
        for (int i = 0; i < 2 * kBeside; ++i) {
            x[(n + 128) * 2 * kBeside + i] = value;
            value = std::nextafter(value, 1e30f);
        }
    }
    return x;
}

void check_exponentials(const Kernels& kernels, const Guarded<float>& x, float shift) {
    const int count = static_cast<int>(x.size());
    const Guarded<float> got(x.size()), expected(x.size());
    begin_case("%s: exponentials of %d, shift %g", kernels.name, count, double{shift});
    kernels.exponentials(x.data(), count, shift, got.data());
    kScalarKernels.exponentials(x.data(), count, shift, expected.data());
    compare("out", got, expected);
}

void check_lengths(const Kernels& kernels, int count, Random& random) {
    const Guarded<float> a = exponents(random, count), b = floats(random, Style::Normal, count);
    const Guarded<float> got(count), expected(count);
    begin_case("%s: swiglu of %d", kernels.name, count);
    kernels.swiglu(a.data(), b.data(), count, got.data());
    kScalarKernels.swiglu(a.data(), b.data(), count, expected.data());
    compare("out", got, expected);
    for (const float shift : {0.0f, 17.25f, -3.0f, std::numeric_limits<float>::infinity()}) {
        check_exponentials(kernels, a, shift);
    }
    for (const Style style : kStyles) {
        begin_case("%s: rms_norm of %d, %s", kernels.name, count,
                   kStyleNames[static_cast<int>(style)]);
        const Guarded<float> x = floats(random, style, count);
        kernels.rms_norm(x.data(), b.data(), count, 1e-5f, got.data());
        kScalarKernels.rms_norm(x.data(), b.data(), count, 1e-5f, expected.data());
        compare("out", got, expected);
    }
}

void check_delta_step(const Kernels& kernels, int dim, Random& random, Style style) {
    begin_case("%s: delta_step of %d, %s", kernels.name, dim, kStyleNames[static_cast<int>(style)]);
    const size_t size = static_cast<size_t>(dim) * dim;
    const Guarded<float> got = floats(random, style, static_cast<int>(size)), expected(size);
    std::copy(got.data(), got.data() + size, expected.data());
    const Guarded<float> q = floats(random, style, dim), k = floats(random, style, dim),
                         v = floats(random, style, dim), out(dim), wanted(dim);
    const float* const by_column = q.data();
    for (const float* keeps : {static_cast<const float*>(nullptr), by_column}) {
        kernels.delta_step(
            {got.data(), q.data(), k.data(), v.data(), 0.7f, 0.3f, dim, out.data(), keeps});
        kScalarKernels.delta_step(
            {expected.data(), q.data(), k.data(), v.data(), 0.7f, 0.3f, dim, wanted.data(), keeps});
        compare("state", got, expected);
        compare("out", out, wanted);
    }
}

void check_scan_step(const Kernels& kernels, int rows, int columns, Random& random, Style style) {
    begin_case("%s: scan_step of %d by %d, %s", kernels.name, rows, columns,
               kStyleNames[static_cast<int>(style)]);
    const size_t size = static_cast<size_t>(rows) * columns;
    const Guarded<float> got = floats(random, style, static_cast<int>(size)), expected(size);
    std::copy(got.data(), got.data() + size, expected.data());
    const Guarded<float> x = floats(random, style, rows), b = floats(random, style, columns),
                         c = floats(random, style, columns), out(rows), wanted(rows);
    kernels.scan_step({got.data(), x.data(), b.data(), c.data(), 0.7f, 0.3f, 0.2f, rows, columns,
                       out.data()});
    kScalarKernels.scan_step({expected.data(), x.data(), b.data(), c.data(), 0.7f, 0.3f, 0.2f,
                              rows, columns, wanted.data()});
    compare("state", got, expected);
    compare("out", out, wanted);
}

void check_halves(const Kernels& kernels, const Guarded<float>& x, const char* what) {
    begin_case("%s: to_half of %zu, %s", kernels.name, x.size(), what);
    const Guarded<uint16_t> got(x.size()), expected(x.size());
    kernels.to_half(x.data(), static_cast<int>(x.size()), got.data());
    kScalarKernels.to_half(x.data(), static_cast<int>(x.size()), expected.data());
    compare("out", got, expected);
}

// Every float16, the floats beside it, and the middle between it and the next.
Guarded<float> around_halves() {
    Guarded<float> x(size_t{65536} * 4);
    for (uint32_t h = 0; h < 65536; ++h) {
        const auto bits = std::bit_cast<uint32_t>(half_to_float(static_cast<uint16_t>(h)));
        x[h * 4] = std::bit_cast<float>(bits);
        x[h * 4 + 1] = std::bit_cast<float>(bits + 1);
        x[h * 4 + 2] = std::bit_cast<float>(bits - 1);
        const float next = half_to_float(static_cast<uint16_t>(h + 1));
        x[h * 4 + 3] = std::bit_cast<float>(bits) + (next - std::bit_cast<float>(bits)) / 2;
    }
    return x;
}

}  // namespace

void check_quantisation(const Kernels& kernels) {
    Random random(1);
    for (const int block : {32, 256}) {
        for (const int blocks : {1, 2, 3, 5, 40}) {
            for (const Style style : kStyles) {
                check_blocks(kernels, block, floats(random, style, blocks * block),
                             kStyleNames[static_cast<int>(style)]);
            }
            check_blocks(kernels, block, halfway(random, blocks * block), "halfway");
        }
    }
}

void check_elementwise(const Kernels& kernels) {
    Random random(2);
    for (int count = 1; count <= 70; ++count) check_lengths(kernels, count, random);
    for (const int count : {576, 1001, 20000}) check_lengths(kernels, count, random);
    for (const int dim : {8, 16, 40, 128}) {
        for (const Style style : kStyles) {
            check_delta_step(kernels, dim, random, style);
            check_scan_step(kernels, dim / 2, dim, random, style);
        }
    }
    check_exponentials(kernels, between_powers(), 0.0f);
    for (int count = 1; count <= 40; ++count) {
        check_halves(kernels, floats(random, Style::Any, count), "any");
        check_halves(kernels, floats(random, Style::Normal, count), "normal");
    }
    check_halves(kernels, around_halves(), "around all of float16");
}

}  // namespace moestream::check
