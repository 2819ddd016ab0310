// compressed-tensors, integer weights: pack-quantized (STEM.weight_packed) and int-quantized
// (STEM.weight of int8). The tensors tell whether a matrix is quantized, the config how.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "quant/formats/compressed_tensors_scheme.h"
#include "quant/formats/formats.h"
#include "quant/formats/int_codec.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

constexpr const char* kPacked = ".weight_packed";
constexpr const char* kBytes = ".weight";
constexpr const char* kScale = ".weight_scale";
constexpr const char* kZero = ".weight_zero_point";
constexpr const char* kOrder = ".weight_g_idx";

/// The codec of a matrix with one scale (and zero) for all of it: each row is shown the same one.
class OneScaleCodec final : public Codec {
  public:
    explicit OneScaleCodec(std::shared_ptr<const Codec> rows) : rows_(std::move(rows)) {}
    const char* name() const override { return "int, one scale"; }
    StoredRect needs(const StoredMatrix& m, size_t piece, Interval n, Interval k) const override {
        return piece == 0 ? rows_->needs(m, 0, n, k) : StoredRect{{0, 1}, {0, 1}};
    }
    void generate(const StoredMatrix& m, size_t piece, const StoredRect& rect,
                  std::byte* out) const override {
        rows_->generate(m, piece, rect, out);
    }
    int64_t rows_per_read(const StoredMatrix& m) const override { return rows_->rows_per_read(m); }
    size_t scratch_bytes(const StoredMatrix& m, Interval n, Interval k) const override {
        return rows_->scratch_bytes(m, n, k);
    }
    CodeTile decode(const StoredMatrix& m, Interval n, Interval k,
                    std::span<const StagedRect> staged, std::byte* scratch) const override {
        std::vector<StagedRect> shown(staged.begin(), staged.end());
        for (size_t i = 1; i < shown.size(); ++i) {
            shown[i].rect = rows_->needs(m, i, n, k);
            shown[i].row_bytes = 0;
        }
        return rows_->decode(m, n, k, shown, scratch);
    }

  private:
    std::shared_ptr<const Codec> rows_;
};

class CompressedTensorsConfig final : public QuantizationConfig {
  public:
    CompressedTensorsConfig(const nlohmann::json& config, const std::string& file)
        : schemes_(config, file) {}

    const char* name() const override { return "compressed-tensors"; }

    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        if (source.bare) return describe_plain(source, tensors);
        const std::string& stem = source.stem;
        const auto packed = tensors.header(stem + kPacked), weight = tensors.header(stem + kBytes);
        std::optional<StoredMatrix> m;
        if (packed && weight)
            throw Error(ErrorCode::kBadContent, "matrix is stored twice")
                .tensor(stem + kPacked)
                .expected("it, or " + stem + kBytes);
        if (packed || (weight && !is_float(weight->dtype)))
            m = describe_quantized(source, tensors, packed ? *packed : *weight, packed.has_value());
        else
            m = describe_plain(source, tensors);
        if (!m) return m;
        // What a weight-only product does not need; factors beside a float weight are what
        // training with fake quantization leaves.
        for (const char* suffix : {".weight_shape", kOrder, kScale, kZero, ".input_scale",
                                   ".input_zero_point", ".input_global_scale"})
            if (!has_piece(*m, stem + suffix)) add_companions(*m, tensors, stem, {suffix});
        add_cache_scales(*m, tensors);
        return m;
    }

  private:
    static bool is_float(const std::string& dtype) {
        return dtype == "BF16" || dtype == "F16" || dtype == "F32";
    }
    static bool has_piece(const StoredMatrix& m, const std::string& tensor) {
        return std::any_of(m.pieces.begin(), m.pieces.end(),
                           [&](const StoredPiece& p) { return p.tensor == tensor; });
    }

    /// Scales of a quantized KV cache, which is kept in higher precision here.
    static void add_cache_scales(StoredMatrix& m, const TensorLookup& tensors) {
        const std::string& stem = m.source.stem;
        const size_t dot = stem.rfind('.');
        if (dot == std::string::npos || !stem.substr(0, dot).ends_with("self_attn")) return;
        const std::string leaf = stem.substr(dot), parent = stem.substr(0, dot);
        add_companions(m, tensors, stem, {".output_scale", ".k_scale", ".v_scale"});
        if (leaf == ".q_proj" || leaf == ".qkv_proj")
            add_companions(m, tensors, parent, {".q_scale"});
        if (leaf == ".k_proj" || leaf == ".qkv_proj")
            add_companions(m, tensors, parent, {".k_scale", ".kv_scale"});
        if (leaf == ".v_proj" || leaf == ".qkv_proj")
            add_companions(m, tensors, parent, {".v_scale"});
    }

    const CtScheme& scheme_of(const MatrixSource& source, const std::string& tensor) const {
        const CtScheme* s = schemes_.find(source.stem);
        if (!s)
            throw Error(ErrorCode::kBadContent,
                        "tensor is quantized, but no config group targets its module")
                .tensor(tensor);
        if (!s->refusal.empty())
            throw Error(ErrorCode::kUnsupported, "config group " + in_quotes(s->group) +
                                                     " of compressed-tensors is not served")
                .tensor(tensor)
                .found(s->refusal);
        const bool cached = source.stem.ends_with(".k_proj") || source.stem.ends_with(".v_proj");
        if (s->output_activations && !cached)
            throw Error(ErrorCode::kUnsupported, "'output_activations' of config group " +
                                                     in_quotes(s->group) + " are not served")
                .tensor(tensor);
        return *s;
    }

    std::optional<StoredMatrix> describe_quantized(const MatrixSource& source,
                                                   const TensorLookup& tensors,
                                                   const TensorHeader& codes, bool packed) const {
        const std::string codes_name = source.stem + (packed ? kPacked : kBytes);
        const CtScheme& scheme = scheme_of(source, codes_name);
        IntStorage storage;
        storage.bits = scheme.bits;
        storage.bytes = !packed;
        if (packed) {
            storage.packing = packing_of(source, scheme, codes, codes_name);
            check_stored_shape(source, tensors);
        }
        expect_tensor(tensors, codes_name,
                      {source.stored_n,
                       packed ? packed_words(storage.packing, scheme.bits, source.k) : source.k},
                      packed ? "I32" : "I8");
        const int64_t groups = group_count(source.k, scheme.columns);
        Encoding e;
        e.code = scheme.bits <= 4 ? CodeType::kU4 : CodeType::kU8;
        e.bits = scheme.bits;
        e.group = groups > 1 ? scheme.columns : 0;
        e.scale = describe_scales(source, tensors, scheme, groups);
        if (scheme.symmetric) {
            e.zero_point = 1 << (scheme.bits - 1);
        } else {
            e.zero = FactorType::kU8;
            expect_zeros(source, tensors, scheme, storage, groups);
        }
        auto order = columns_order(source, tensors, scheme.columns, groups);
        e.permuted = order != nullptr;
        StoredMatrix m = int_matrix(source, e, storage, {packed ? kPacked : kBytes, kScale, kZero});
        m.group_of = std::move(order);
        if (scheme.per_tensor) {
            m.codec = std::make_shared<const OneScaleCodec>(m.codec);
            for (size_t i = 1; i < m.pieces.size(); ++i) m.pieces[i].rows = m.pieces[i].cols = 1;
        }
        return m;
    }

    /// Where 32 is no multiple of the bits, versions differ, and so does the number of words unless
    /// rows are short.
    Packing packing_of(const MatrixSource& source, const CtScheme& scheme,
                       const TensorHeader& codes, const std::string& name) const {
        const int64_t stream = packed_words(Packing::kStream, scheme.bits, source.k);
        const int64_t per_word = packed_words(Packing::kPerWord, scheme.bits, source.k);
        if (stream == per_word)
            return schemes_.old_packing() ? Packing::kPerWord : Packing::kStream;
        if (codes.shape == std::vector<int64_t>{source.stored_n, stream}) return Packing::kStream;
        if (codes.shape == std::vector<int64_t>{source.stored_n, per_word})
            return Packing::kPerWord;
        throw Error(ErrorCode::kBadContent, "tensor has the wrong shape")
            .tensor(name)
            .expected(shape_text({source.stored_n, stream}) + " or " +
                      shape_text({source.stored_n, per_word}))
            .found(shape_text(codes.shape));
    }

    static void check_stored_shape(const MatrixSource& source, const TensorLookup& tensors) {
        const std::string name = source.stem + ".weight_shape";
        const auto shape = read_integers(tensors, name, 2);
        if (shape && *shape != std::vector<int64_t>{source.stored_n, source.k})
            throw Error(ErrorCode::kBadContent, "tensor contradicts the model")
                .tensor(name)
                .expected(shape_text({source.stored_n, source.k}))
                .found(shape_text(*shape));
    }

    /// The shape of factors as stored: one a matrix as [1], one a row as [n, 1] or [n].
    static std::vector<int64_t> factor_shape(const MatrixSource& source,
                                             const TensorLookup& tensors, const std::string& name,
                                             bool per_tensor, int64_t groups) {
        const auto header = tensors.header(name);
        const size_t axes = header ? header->shape.size() : 2;
        if (per_tensor) return std::vector<int64_t>(std::min<size_t>(axes, 2), 1);
        if (groups == 1 && axes == 1) return {source.stored_n};
        return {source.stored_n, groups};
    }

    static FactorType describe_scales(const MatrixSource& source, const TensorLookup& tensors,
                                      const CtScheme& scheme, int64_t groups) {
        const std::string name = source.stem + kScale;
        return float_factor(
            name, expect_tensor(tensors, name,
                                factor_shape(source, tensors, name, scheme.per_tensor, groups)));
    }

    static void expect_zeros(const MatrixSource& source, const TensorLookup& tensors,
                             const CtScheme& scheme, const IntStorage& storage, int64_t groups) {
        const std::string name = source.stem + kZero;
        if (storage.bytes) {
            expect_tensor(tensors, name,
                          factor_shape(source, tensors, name, scheme.per_tensor, groups), "I8");
            return;
        }
        if (scheme.per_tensor)
            throw Error(ErrorCode::kUnsupported, "packed codes with one zero point are not served")
                .tensor(name);
        expect_tensor(tensors, name,
                      {packed_words(storage.packing, storage.bits, source.stored_n), groups},
                      "I32");
    }

    /// The group of each column, where weight_g_idx says something of its own: a -1 stands for "not
    /// set", and ascending runs of `width` columns are the plain grouping. ("actorder" of the
    /// config is true of files without permuted columns as well.)
    static std::shared_ptr<const std::vector<int32_t>> columns_order(const MatrixSource& source,
                                                                     const TensorLookup& tensors,
                                                                     int64_t width,
                                                                     int64_t groups) {
        const std::string name = source.stem + kOrder;
        const auto stored = read_integers(tensors, name, source.k);
        if (!stored || std::find(stored->begin(), stored->end(), -1) != stored->end())
            return nullptr;
        std::vector<int32_t> order;
        bool plain = true;
        for (size_t c = 0; c < stored->size(); ++c) {
            const int64_t group = (*stored)[c];
            if (group < 0 || group >= groups)
                throw Error(ErrorCode::kBadContent, "column belongs to a group that is not stored")
                    .tensor(name)
                    .expected("0 to " + std::to_string(groups - 1))
                    .found(std::to_string(group));
            plain = plain && group == (width > 0 ? static_cast<int64_t>(c) / width : 0);
            order.push_back(static_cast<int32_t>(group));
        }
        if (plain) return nullptr;
        return std::make_shared<const std::vector<int32_t>>(std::move(order));
    }

    CtSchemes schemes_;
};

}  // namespace

QuantizationFormat compressed_tensors_format() {
    const auto kind = [](int bits, bool symmetric, bool permuted) {
        return Encoding{bits <= 4 ? CodeType::kU4 : CodeType::kU8,
                        bits,
                        FactorType::kBF16,
                        symmetric ? FactorType::kNone : FactorType::kU8,
                        symmetric ? 1 << (bits - 1) : 0,
                        bits <= 4 ? 128 : 0,
                        permuted};
    };
    return {"compressed-tensors",
            {},
            [](const nlohmann::json& config, const std::string& file) {
                return std::make_unique<CompressedTensorsConfig>(config, file);
            },
            {kind(4, true, false), kind(4, false, false), kind(4, true, true), kind(8, true, false),
             kind(8, false, false)}};
}

}  // namespace conclave::quant
