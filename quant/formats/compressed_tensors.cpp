// compressed-tensors. The tensors tell whether a matrix is quantized, the config how.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "quant/formats/compressed_tensors_matrix.h"
#include "quant/formats/float_formats.h"
#include "quant/formats/formats.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

constexpr const char* kPacked = ".weight_packed";
constexpr const char* kBytes = ".weight";

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
        if (packed || (weight && !is_float_dtype(weight->dtype)))
            m = describe_quantized(source, tensors, packed ? packed->dtype : weight->dtype,
                                   packed.has_value());
        else
            m = describe_plain(source, tensors);
        if (!m) return m;
        // Factors beside a float weight are what training with fake quantization leaves.
        for (const char* suffix :
             {".weight_shape", ".weight_g_idx", ".weight_scale", ".weight_zero_point",
              ".weight_global_scale", ".input_scale", ".input_zero_point", ".input_global_scale"})
            if (!has_piece(*m, stem + suffix)) add_companions(*m, tensors, stem, {suffix});
        add_cache_scales(*m, tensors);
        return m;
    }

  private:
    static bool has_piece(const StoredMatrix& m, const std::string& tensor) {
        return std::any_of(m.pieces.begin(), m.pieces.end(),
                           [&](const StoredPiece& p) { return p.tensor == tensor; });
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

    StoredMatrix describe_quantized(const MatrixSource& source, const TensorLookup& tensors,
                                    const std::string& dtype, bool packed) const {
        const std::string codes = source.stem + (packed ? kPacked : kBytes);
        const CtScheme& scheme = scheme_of(source, codes);
        const bool integers = dtype == (packed ? "I32" : "I8");
        if (!integers && dtype != (packed ? "U8" : "F8_E4M3"))
            throw Error(ErrorCode::kUnsupported,
                        "tensor has a type that this format does not store")
                .tensor(codes)
                .expected(packed ? "I32 or U8" : "I8, F8_E4M3, BF16, F16 or F32")
                .found(dtype);
        if (integers == scheme.weights.is_float)
            throw Error(ErrorCode::kBadContent, "tensor contradicts its config group")
                .tensor(codes)
                .expected(scheme.weights.is_float ? "codes of floats" : "codes of integers")
                .found(dtype);
        StoredMatrix m =
            integers ? describe_ct_integers(source, tensors, scheme, packed, schemes_.old_packing())
                     : describe_ct_floats(source, tensors, scheme, packed);
        m.activation = ct_activation(source, tensors, scheme);
        return m;
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
    const auto floats = [](CodeType code, FactorType scale, int64_t group, int64_t rows) {
        Encoding e;
        e.code = code, e.scale = scale, e.group = group, e.group_rows = rows;
        if (code == CodeType::kT4) e.levels = fp4_codebook();
        return e;
    };
    const CodeType fp8 = CodeType::kE4M3, fp4 = CodeType::kT4;
    return {"compressed-tensors",
            {},
            [](const nlohmann::json& config, const std::string& file) {
                return std::make_unique<CompressedTensorsConfig>(config, file);
            },
            {kind(4, true, false), kind(4, false, false), kind(4, true, true), kind(8, true, false),
             kind(8, false, false), floats(fp8, FactorType::kBF16, 0, 0),
             floats(fp8, FactorType::kBF16, 0, 1), floats(fp8, FactorType::kBF16, 128, 128),
             floats(fp8, FactorType::kE8M0, 32, 1), floats(fp4, FactorType::kE4M3, 16, 1),
             floats(fp4, FactorType::kE8M0, 32, 1)}};
}

}  // namespace conclave::quant
