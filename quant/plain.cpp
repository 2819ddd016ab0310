// The unquantized format.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/dummy.h"
#include "quant/formats/int_codec.h"
#include "quant/formats/scaled_codec.h"
#include "quant/formats/tensors.h"
#include "quant/quantization_config.h"
#include "runtime/base/error.h"
#include "runtime/base/half.h"

namespace conclave::quant {
namespace {

std::optional<CodeType> float_type(const std::string& dtype) {
    if (dtype == "BF16") return CodeType::kBF16;
    if (dtype == "F16") return CodeType::kF16;
    if (dtype == "F32") return CodeType::kF32;
    return std::nullopt;
}

class PlainCodec final : public Codec {
  public:
    const char* name() const override { return "plain"; }
    StoredRect needs(const StoredMatrix& m, size_t, Interval n, Interval k) const override {
        return {m.source.stored_rows(n), k};
    }
    void generate(const StoredMatrix& m, size_t i, const StoredRect& rect,
                  std::byte* out) const override {
        const StoredPiece& p = m.pieces[i];
        const uint64_t seed = tensor_seed(p.tensor);
        // Uniform in +-sqrt(3 / k): k products with inputs of unit variance sum to unit variance.
        const float scale = std::sqrt(3.0f / static_cast<float>(p.cols)) / (1 << 23);
        for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r)
            for (int64_t c = rect.cols.begin; c < rect.cols.end; ++c) {
                const uint64_t bits = mixed(seed + static_cast<uint64_t>(r * p.cols + c));
                const float v =
                    scale * static_cast<float>(static_cast<int32_t>(bits >> 40) - (1 << 23));
                if (m.encoding.code == CodeType::kF32) {
                    std::memcpy(out, &v, 4);
                } else {
                    const uint16_t half =
                        m.encoding.code == CodeType::kF16 ? f32_to_f16(v) : f32_to_bf16(v);
                    std::memcpy(out, &half, 2);
                }
                out += p.element_bytes;
            }
    }
    size_t scratch_bytes(const StoredMatrix&, Interval, Interval) const override { return 0; }
    CodeTile decode(const StoredMatrix& m, Interval n, Interval k,
                    std::span<const StagedRect> staged, std::byte*) const override {
        const StagedRect& s = staged[0];
        const StoredRect want = needs(m, 0, n, k);
        CodeTile tile;
        tile.codes = s.data + (want.rows.begin - s.rect.rows.begin) * s.row_bytes +
                     (want.cols.begin - s.rect.cols.begin) * m.pieces[0].element_bytes;
        tile.row_bytes = s.row_bytes;
        tile.rows = n.size(), tile.cols = k.size();
        return tile;
    }
};

class UnquantizedConfig final : public QuantizationConfig {
  public:
    const char* name() const override { return "none"; }
    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        return describe_plain(source, tensors);
    }
};

}  // namespace

std::shared_ptr<const Codec> plain_codec() {
    static const auto codec = std::make_shared<const PlainCodec>();
    return codec;
}

std::shared_ptr<const Grouping> local_grouping(const StoredMatrix& matrix, Interval k) {
    if (!is_scaled(matrix.encoding.code)) return nullptr;
    if (!matrix.group_of)
        return std::make_shared<Grouping>(uniform_grouping(k, matrix.encoding.group));
    return std::make_shared<Grouping>(permuted_grouping(
        std::span(*matrix.group_of)
            .subspan(static_cast<size_t>(k.begin), static_cast<size_t>(k.size()))));
}

StoredMatrix imagined_matrix(const MatrixSource& source, const Encoding& encoding) {
    if (is_integer(encoding.code)) return imagined_int_matrix(source, encoding);
    if (is_scaled(encoding.code)) return imagined_scaled_matrix(source, encoding);
    return plain_matrix(source, encoding.code);
}

StoredMatrix imagine(const QuantizationConfig& config, const MatrixSource& source,
                     const Encoding& encoding) {
    auto own = config.imagine(source, encoding);
    return own ? *std::move(own) : imagined_matrix(source, encoding);
}

StoredMatrix plain_matrix(const MatrixSource& source, CodeType code) {
    StoredMatrix m;
    m.source = source;
    m.encoding.code = code;
    m.codec = plain_codec();
    StoredPiece piece;
    piece.tensor = source.bare ? source.stem : source.stem + ".weight";
    piece.element_bytes = code_bits(code) / 8;
    piece.rows = source.all_rows();
    piece.cols = source.k;
    m.pieces.push_back(piece);
    return m;
}

std::optional<StoredMatrix> describe_plain(const MatrixSource& source,
                                           const TensorLookup& tensors) {
    const std::string name = source.bare ? source.stem : source.stem + ".weight";
    const auto header = tensors.header(name);
    if (!header) return std::nullopt;
    std::vector<int64_t> shape = {source.stored_n, source.k};
    if (source.lead >= 0) shape.insert(shape.begin(), source.lead_count);
    if (header->shape != shape)
        throw Error(ErrorCode::kBadContent, "tensor has the wrong shape")
            .tensor(name)
            .expected(shape_text(shape))
            .found(shape_text(header->shape));
    const auto code = float_type(header->dtype);
    if (!code)
        throw Error(ErrorCode::kUnsupported, "tensor has a type that is not served unquantized")
            .tensor(name)
            .expected("BF16, F16 or F32")
            .found(header->dtype);
    return plain_matrix(source, *code);
}

std::unique_ptr<QuantizationConfig> unquantized_config() {
    return std::make_unique<UnquantizedConfig>();
}

}  // namespace conclave::quant
