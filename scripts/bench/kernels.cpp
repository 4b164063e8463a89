// Products of one type of weights on one core, beside ggml's dot product of the same type.
//
// 256 rows of 2,048 columns lie in the cache, so this measures arithmetic, not memory; each figure
// is the best of many short runs, which another program on the machine hardly changes.
//
//     scripts/bench/kernels build/bin IQ2_XXS TQ2_0      # the folder of libggml-cpu.so, and types
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "core/context.h"

namespace {

using namespace moestream;

constexpr int kRows = 256, kColumns = 2048, kTokens = 32;

// As ggml-cpu.h declares it.
struct GgmlTraits {
    void (*from_float)(const float*, void*, int64_t);
    void (*dot)(int, float*, size_t, const void*, size_t, const void*, size_t, int);
    int input_type;
    int64_t rows;
};
using GetTraits = const GgmlTraits* (*)(int);

GetTraits load_ggml(const std::string& folder) {
    dlopen((folder + "/libggml-base.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
    void* library = dlopen((folder + "/libggml-cpu.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) {
        std::fprintf(stderr, "%s\n", dlerror());
        std::exit(1);
    }
    reinterpret_cast<void (*)()>(dlsym(library, "ggml_cpu_init"))();
    return reinterpret_cast<GetTraits>(dlsym(library, "ggml_get_type_traits_cpu"));
}

template <class Run>
double best_seconds(int repeats, const Run& run) {
    double best = 1e9;
    for (int i = 0; i < repeats; ++i) {
        const auto start = std::chrono::steady_clock::now();
        run();
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        best = std::min(best, took.count());
    }
    return best;
}

// Random blocks, scales that are no numbers among them: no kernel's speed depends on those. It does
// on NVFP4's smallest scales, which x86 is slow with and no model has.
std::vector<uint8_t> random_weights(const TypeLayout& layout, size_t bytes) {
    std::mt19937 random(1);
    std::vector<uint8_t> weights(bytes);
    for (uint8_t& byte : weights) byte = static_cast<uint8_t>(random());
    for (size_t at = 0; layout.type == Type::NVFP4 && at < bytes; at += layout.block_bytes) {
        std::fill_n(weights.begin() + static_cast<std::ptrdiff_t>(at),
                    std::min<size_t>(4, bytes - at), uint8_t{40});
    }
    return weights;
}

void measure(const Kernels& kernels, const TypeLayout& layout, GetTraits get) {
    const size_t row_bytes = layout.row_bytes(kColumns);
    const std::vector<uint8_t> weights = random_weights(layout, row_bytes * kRows + 64);
    std::vector<float> x(kTokens * kColumns), d(x.size() / 32), s(d.size()), out(kTokens * kRows);
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (float& value : x) value = normal(random);
    std::vector<int8_t> q(x.size());
    std::vector<int16_t> sums16(x.size() / 16), sums32(x.size() / 32);
    (layout.input() == Input::Block256 ? kernels.quantize256 : kernels.quantize32)(
        x.data(), static_cast<int>(x.size()),
        {q.data(), d.data(), s.data(), sums16.data(), sums32.data()});
    const InputRows input{layout.input(), kColumns,   kTokens,       x.data(),     q.data(),
                          d.data(),       s.data(),   sums16.data(), sums32.data()};
    auto* scratch = static_cast<uint8_t*>(
        std::aligned_alloc(64, (panel_scratch_bytes(kColumns) + 63) / 64 * 64));
    const Matmul matmul = kernels.of_type[&layout - kTypeLayouts].matmul;
    const auto product = [&](int tokens) {
        for (int row = 0; row < kRows; row += kPanelRows) {
            Panel panel{};
            panel.weights = weights.data() + row * row_bytes;
            panel.row_bytes = row_bytes;
            panel.rows = kPanelRows;
            panel.input = &input;
            panel.tokens = tokens;
            panel.out = out.data() + row;
            panel.out_stride = kRows;
            panel.next = reinterpret_cast<uintptr_t>(panel.weights) + kPanelRows * row_bytes;
            panel.scratch = scratch;
            matmul(panel);
        }
    };
    const GgmlTraits& traits = *get(static_cast<int>(layout.type));
    std::vector<uint8_t> theirs(kColumns * 5);
    get(traits.input_type)->from_float(x.data(), theirs.data(), kColumns);
    const double one = best_seconds(400, [&] { product(1); });
    const double many = best_seconds(60, [&] { product(kTokens); });
    const double dots = best_seconds(400, [&] {
        for (int row = 0; row < kRows; ++row) {
            traits.dot(kColumns, &out[row], 0, weights.data() + row * row_bytes, 0, theirs.data(),
                       0, 1);
        }
    });
    const double count = kRows * kColumns / 1e9;
    std::printf("| %s | %.1f | %.1f | %.0f | %.1f | %.2f | %.1f |\n", layout.name, count / one,
                count / one * layout.block_bytes / layout.block_values, count * kTokens / many,
                count / dots, dots / one, dots * kTokens / many);
    std::free(scratch);
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 3) {
        std::fprintf(stderr, "usage: %s FOLDER-OF-LIBGGML TYPE...\n", arguments[0]);
        return 2;
    }
    const GetTraits get = load_ggml(arguments[1]);
    std::vector<const char*> available;
    const Kernels& kernels = *choose_kernels(std::getenv("MOESTREAM_ISA"), &available);
    std::printf("%s\n| type | one token, Gweights/s | GB/s | 32 tokens, GMAC/s | ggml's dot, "
                "Gweights/s | one token: ratio | 32 tokens: ratio |\n|---|---|---|---|---|---|---|\n",
                kernels.name);
    for (int i = 2; i < count; ++i) {
        for (const TypeLayout& layout : kTypeLayouts) {
            if (layout.input() != Input::Float && arguments[i] == std::string(layout.name)) {
                measure(kernels, layout, get);
            }
        }
    }
    return 0;
}
