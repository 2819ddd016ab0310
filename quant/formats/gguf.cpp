// GGUF: every tensor has a type of its own, blocks of codes or plain numbers; the config says no
// more than the order of the rows of q and k. (How a file becomes tensors of Hugging Face's names
// is the business of whoever reads it.)
#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <random>

#include "quant/formats/float_formats.h"
#include "quant/formats/formats.h"
#include "quant/formats/gguf_codec.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"
#include "runtime/base/half.h"
#include "runtime/base/json.h"

namespace conclave::quant {
namespace {

class GgufConfig final : public QuantizationConfig {
  public:
    GgufConfig(const Json& config, const std::string& file) {
        constexpr int64_t kMostHeadDim = 1 << 16;
        head_dim_ = get_int_or(config, "permuted_head_dim", 0, 2, kMostHeadDim, file);
        if (head_dim_ % 2 != 0)
            throw Error(ErrorCode::kBadContent, "rows of odd heads cannot be permuted")
                .file(file)
                .expected("an even permuted_head_dim")
                .found(std::to_string(head_dim_));
    }
    const char* name() const override { return "gguf"; }

    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        const std::string tensor = weight_name(source);
        const auto header = tensors.header(tensor);
        if (!header) return std::nullopt;
        const RowOrder order = row_order(source, tensor);
        if (is_float_dtype(header->dtype)) {
            auto m = describe_plain(source, tensors);
            if (m && order.head_dim > 0) m->codec = ordered_plain_codec(order);
            return m;
        }
        const BlockType* type = find_block_type(header->dtype);
        if (!type)
            throw Error(ErrorCode::kUnsupported, "tensor has a type that is not served")
                .tensor(tensor)
                .expected(type_names())
                .found(header->dtype);
        std::vector<int64_t> shape = {source.stored_n, source.k};
        if (source.lead >= 0) shape.insert(shape.begin(), source.lead_count);
        expect_tensor(tensors, tensor, shape);
        if (source.k % type->elements != 0)
            throw Error(ErrorCode::kBadContent, "rows are no whole blocks of " + header->dtype)
                .tensor(tensor)
                .expected("columns in multiples of " + std::to_string(type->elements))
                .found(std::to_string(source.k));
        StoredMatrix m = block_matrix(source, tensor, *type, order);
        if (type->encoding.scale == FactorType::kE4M3) m.global = global_scale(source, tensors);
        if (!source.bare)
            add_companions(m, tensors, source.stem, {".weight_scale_2", ".input_scale"});
        return m;
    }

  private:
    RowOrder row_order(const MatrixSource& source, const std::string& tensor) const {
        if (head_dim_ == 0) return {};
        if (!source.stem.ends_with(".q_proj") && !source.stem.ends_with(".k_proj")) return {};
        if (source.stored_n % head_dim_ != 0)
            throw Error(ErrorCode::kBadContent, "rows are no whole heads")
                .tensor(tensor)
                .expected("rows in multiples of " + std::to_string(head_dim_))
                .found(std::to_string(source.stored_n));
        return {head_dim_};
    }

    /// It multiplies what codes and scales of blocks stand for.
    static GlobalScale global_scale(const MatrixSource& source, const TensorLookup& tensors) {
        GlobalScale global;
        const std::string name = source.stem + ".weight_scale_2";
        if (const auto stated = read_scalar(tensors, name)) {
            if (!std::isfinite(*stated))
                throw Error(ErrorCode::kBadContent, "the scale of a matrix is no number")
                    .tensor(name)
                    .expected("a finite number")
                    .found(std::to_string(*stated));
            global.multiplier = *stated;
            global.last = true;
        }
        return global;
    }

    static std::string type_names() {
        std::string names = "F32, F16, BF16";
        for (const BlockType& t : block_types()) names += std::string(", ") + t.name;
        return names;
    }

    int64_t head_dim_ = 0;
};

/// Types of samples, blocks of 32.
constexpr const char* kSampleTypes[] = {"Q4_0", "Q5_1", "Q8_0"};

/// Element j of a block of kSampleTypes[kind], d and m being its factors.
float sample_weight(size_t kind, const std::byte* block, int64_t j, float d, float m) {
    const auto byte = [&](int64_t at) { return static_cast<int>(block[at]); };
    const auto nibble = [&](int64_t at) { return byte(at + j % 16) >> (j < 16 ? 0 : 4) & 15; };
    if (kind == 0) return d * static_cast<float>(nibble(2) - 8);
    if (kind == 2) return d * static_cast<float>(static_cast<int8_t>(byte(2 + j)));
    const int fifth = byte(4 + j / 8) >> j % 8 & 1;
    return d * static_cast<float>(nibble(8) | fifth << 4) + m;
}

/// A random matrix of a type that depends on the seed.
StoredSample sample(int64_t n, int64_t k, uint64_t seed) {
    constexpr int64_t kBlock = 32;
    const size_t kind = seed % std::size(kSampleTypes);
    const int64_t bytes = find_block_type(kSampleTypes[kind])->bytes;
    const int64_t columns = ceil_div(std::max<int64_t>(k, 1), kBlock) * kBlock;
    std::mt19937_64 random(seed);
    StoredSample s;
    s.config = {{"quant_method", "gguf"}};
    s.source.stem = "model.layers.0.mlp.down_proj";
    s.source.n = s.source.stored_n = n, s.source.k = columns;
    std::vector<std::byte> data(static_cast<size_t>(n * columns / kBlock * bytes));
    for (std::byte& b : data) b = static_cast<std::byte>(random());
    const auto number = [&](std::byte* to) {  // 2^-8 to 2^-6
        const auto half = static_cast<uint16_t>(0x1c00 + random() % 0x800);
        std::memcpy(to, &half, 2);
        return f16_to_f32(half);
    };
    for (std::byte* block = data.data(); block < data.data() + data.size(); block += bytes) {
        const float d = number(block), m = kind == 1 ? number(block + 2) : 0;
        for (int64_t j = 0; j < kBlock; ++j)
            s.weights.push_back(sample_weight(kind, block, j, d, m));
    }
    s.tensors.push_back(
        {s.source.stem + ".weight", {kSampleTypes[kind], {n, columns}}, std::move(data)});
    return s;
}

}  // namespace

QuantizationFormat gguf_format() {
    QuantizationFormat format;
    format.name = "gguf";
    format.from_config = [](const Json& config, const std::string& file) {
        return std::make_unique<GgufConfig>(config, file);
    };
    for (const BlockType& t : block_types()) format.encodings.push_back(t.encoding);
    format.sample = sample;
    return format;
}

}  // namespace conclave::quant
