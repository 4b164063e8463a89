// Products of panels with any number of tokens, in the file's order and packed.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/half.h"
#include "core/packing.h"
#include "tests/support.h"

namespace moestream::check {
namespace {

// A weight, or the scale of a block of them; such that float16 has it too.
float styled_weight(Random& random, Style style) {
    switch (style) {
        case Style::Tiny: return random.uniform() * 0x1p-18f;  // below normal
        case Style::Least: return -0x1p-24f;  // -0 once it is multiplied with the least input
        case Style::Huge: return random.uniform() * 65504.0f;
        default: return styled(random, style);
    }
}

void fill_values(Random& random, Style style, Type type, uint8_t* p, size_t bytes) {
    const size_t step = type == Type::F32 ? 4 : 2;
    for (size_t i = 0; i < bytes; i += step) {
        const float value = styled_weight(random, style);
        const auto bits = std::bit_cast<uint32_t>(value);
        const auto bf16 = static_cast<uint16_t>(bits >> 16);
        const uint16_t half = float_to_half(value);
        if (type == Type::F32) std::memcpy(p + i, &bits, 4);
        if (type == Type::BF16) std::memcpy(p + i, &bf16, 2);
        if (type == Type::F16) std::memcpy(p + i, &half, 2);
    }
}

// The exponent that is a block of MXFP4's scale: 0 and 1 are not like the others.
uint8_t styled_exponent(Random& random, Style style) {
    switch (style) {
        case Style::Normal: return static_cast<uint8_t>(120 + random.below(8));
        case Style::Tiny: case Style::Least: return static_cast<uint8_t>(random.below(4));
        case Style::Huge: return static_cast<uint8_t>(252 + random.below(4));
        default: return static_cast<uint8_t>(random.bits());
    }
}

// A block's d, or what stands after it; d of IQ1_M is spread over the tops of four words.
void put_half(const TypeLayout& layout, uint16_t half, int which, uint8_t* block) {
    if (layout.type != Type::IQ1_M) {
        std::memcpy(block + layout.d_at + 2 * which, &half, 2);
        return;
    }
    for (int i = 0; i < 4; ++i) {
        uint8_t& top = block[layout.d_at + 2 * i + 1];
        top = static_cast<uint8_t>((top & 15) | (half >> (4 * i) & 15) << 4);
    }
}

// Rows of blocks, each of random codes, or all ones or zeros, with scales of the style.
void fill_weights(Random& random, Style style, const TypeLayout& layout, uint8_t* p,
                  size_t bytes) {
    if (layout.input() == Input::Float) return fill_values(random, style, layout.type, p, bytes);
    for (size_t at = 0; at < bytes; at += layout.block_bytes) {
        const int pattern = style == Style::Extreme ? random.below(3) : 3;
        for (int i = 0; i < layout.block_bytes; ++i) {
            constexpr uint8_t kPatterns[] = {0x00, 0xff, 0x80};
            p[at + i] = pattern < 3 ? kPatterns[pattern] : static_cast<uint8_t>(random.bits());
        }
        if (style == Style::Zero && random.below(2) == 0) {
            std::memset(p + at, 0, layout.block_bytes);
        }
        if (style == Style::Any) continue;
        if (layout.type == Type::NVFP4) continue;  // no byte is an awkward scale
        if (layout.type == Type::MXFP4) {
            p[at] = styled_exponent(random, style);
            continue;
        }
        for (int i = 0; i < (layout.has_min ? 2 : 1); ++i) {
            put_half(layout, float_to_half(styled_weight(random, style)), i, p + at);
        }
    }
}

// An input in all its forms, quantised by the scalar kernels.
struct TestInput {
    Guarded<float> x;
    Guarded<int8_t> q;
    Guarded<float> d, s;
    Guarded<int16_t> sums16, sums32;
    InputRows rows{};

    TestInput(Random& random, Style style, Input kind, int tokens, int columns)
        : x(floats(random, style, static_cast<size_t>(tokens) * columns)),
          q(kind == Input::Float ? 0 : x.size()),
          d(q.size() / (kind == Input::Block256 ? 256 : 32)),
          s(kind == Input::Block32 ? d.size() : 0),
          sums16(q.size() / 16),
          sums32(q.size() / 32) {
        rows = {kind, columns, tokens, x.data(), q.data(), d.data(), s.data(), sums16.data(),
                sums32.data()};
        if (kind == Input::Float) return;
        const auto quantize = kind == Input::Block32 ? kScalarKernels.quantize32
                                                     : kScalarKernels.quantize256;
        quantize(x.data(), tokens * columns,
                 {q.data(), d.data(), s.data(), sums16.data(), sums32.data()});
    }
};

struct Shape {
    int rows, tokens, columns;
    bool indirect;  // with in_rows and out_rows, and gaps between rows
};

class Product {
  public:
    Product(const Kernels& kernels, const TypeLayout& layout, Style weights, Style input,
            const Shape& shape, uint32_t seed)
        : kernels_(kernels),
          layout_(layout),
          shape_(shape),
          random_(seed),
          exact_bytes_(layout.row_bytes(shape.columns)),
          row_bytes_(exact_bytes_ + (shape.indirect ? 1 + random_.below(40) : 0)),
          weights_(row_bytes_ * (shape.rows - 1) + exact_bytes_),
          input_(random_, input, layout.input(), shape.tokens + (shape.indirect ? 3 : 0),
                 shape.columns) {
        for (int r = 0; r < shape.rows; ++r) {
            fill_weights(random_, weights, layout, weights_.data() + r * row_bytes_, exact_bytes_);
        }
        out_stride_ = shape.rows + (shape.indirect ? random_.below(9) : 0);
        if (!shape.indirect) return;
        out_rows_.resize(input_.rows.tokens);
        std::iota(out_rows_.begin(), out_rows_.end(), 0);
        for (size_t i = out_rows_.size(); i > 1; --i) {
            std::swap(out_rows_[i - 1], out_rows_[random_.below(static_cast<int>(i))]);
        }
        for (int t = 0; t < shape.tokens; ++t) {
            in_rows_.push_back(random_.below(input_.rows.tokens));
        }
    }

    void run() const {
        const Guarded<float> expected = multiply(scalar(), weights_, row_bytes_);
        compare("out", multiply(of_type(kernels_).matmul, weights_, row_bytes_), expected);
    }

    void run_packed() const {
        const size_t eight_bytes = packed_rows_bytes(layout_.type, shape_.columns);
        const int eights = (shape_.rows + kPackedRows - 1) / kPackedRows;
        const Guarded<uint8_t> packed(eight_bytes * eights);
        for (int i = 0; i < eights; ++i) {
            pack_rows(layout_.type, weights_.data() + i * kPackedRows * row_bytes_, row_bytes_,
                      std::min(kPackedRows, shape_.rows - i * kPackedRows), shape_.columns,
                      packed.data() + i * eight_bytes);
        }
        const Guarded<float> expected = multiply(scalar(), weights_, row_bytes_);
        compare("packed out", multiply(of_type(kernels_).matmul_packed, packed, eight_bytes),
                expected);
    }

  private:
    const TypeKernels& of_type(const Kernels& kernels) const {
        return kernels.of_type[&layout_ - kTypeLayouts];
    }
    Matmul scalar() const { return of_type(kScalarKernels).matmul; }

    Guarded<float> multiply(Matmul matmul, const Guarded<uint8_t>& weights,
                            size_t row_bytes) const {
        const int out_rows = shape_.indirect ? input_.rows.tokens : shape_.tokens;
        Guarded<float> out(static_cast<size_t>(out_rows - 1) * out_stride_ + shape_.rows);
        // A multiple of 64, so that it starts aligned.
        const Guarded<uint8_t> scratch((panel_scratch_bytes(shape_.columns) + 63) / 64 * 64);
        Panel panel{};
        panel.weights = weights.data();
        panel.row_bytes = row_bytes;
        panel.rows = shape_.rows;
        panel.input = &input_.rows;
        panel.in_rows = shape_.indirect ? in_rows_.data() : nullptr;
        panel.out_rows = shape_.indirect ? out_rows_.data() : nullptr;
        panel.tokens = shape_.tokens;
        panel.out = out.data();
        panel.out_stride = out_stride_;
        panel.scratch = scratch.data();
        matmul(panel);
        return out;
    }

    const Kernels& kernels_;
    const TypeLayout& layout_;
    Shape shape_;
    Random random_;
    size_t exact_bytes_, row_bytes_;
    Guarded<uint8_t> weights_;
    TestInput input_;
    std::vector<int32_t> in_rows_, out_rows_;
    size_t out_stride_;
};

template <class Run>
void for_each_case(const Kernels& kernels, const TypeLayout& layout, const Run& run) {
    uint32_t seed = 0;
    const auto one = [&](Style weights, Style input, const Shape& shape) {
        begin_case("%s: %s, %s weights, %s input, %d rows, %d tokens, %d columns%s", kernels.name,
                   layout.name, kStyleNames[static_cast<int>(weights)],
                   kStyleNames[static_cast<int>(input)], shape.rows, shape.tokens, shape.columns,
                   shape.indirect ? ", indirect" : "");
        run(Product(kernels, layout, weights, input, shape, ++seed));
    };
    const auto columns = [&](int n) {
        constexpr int kOdd[] = {1, 7, 8, 9, 15, 24, 31, 77};
        return layout.input() == Input::Float ? kOdd[n % 8] : layout.block_values * (1 + n % 3);
    };
    for (int rows = 1; rows <= kPanelRows; ++rows) {
        for (const int tokens : {1, 2, 3, 4, 5, 6, 7, 8}) {
            one(Style::Normal, Style::Normal,
                {rows, tokens, columns(rows + tokens), rows % 2 == 0});
        }
    }
    for (int tokens = 9; tokens <= 70; tokens += 61 / 8) {
        one(Style::Normal, Style::Normal, {1 + tokens % kPanelRows, tokens, columns(tokens), true});
    }
    for (const Style weights : kStyles) {
        for (const Style input : kStyles) {
            for (const int tokens : {1, 2, 3, 7}) {
                one(weights, input, {5 + tokens, tokens, columns(7 - tokens), tokens == 3});
            }
        }
    }
}

}  // namespace

void check_products(const Kernels& kernels) {
    for (const TypeLayout& layout : kTypeLayouts) {
        for_each_case(kernels, layout, [](const Product& product) { product.run(); });
    }
}

void check_packed_products(const Kernels& kernels) {
    for (const TypeLayout& layout : kTypeLayouts) {
        if (kernels.of_type[&layout - kTypeLayouts].matmul_packed == nullptr) continue;
        for_each_case(kernels, layout, [](const Product& product) { product.run_packed(); });
    }
}

}  // namespace moestream::check
