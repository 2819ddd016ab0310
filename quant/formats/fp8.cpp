// fp8 as DeepSeek, Qwen and AutoFP8 write it: E4M3 codes with a scale per matrix, row or block;
// 4-bit experts beside them; 3-D expert parameters.
#include "quant/formats/float_formats.h"
#include "quant/formats/formats.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"
#include "runtime/base/json.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

constexpr int64_t kFp4Group = 32;  ///< of DeepSeek's 4-bit experts

struct Fp8Settings {
    bool is_static = false;                  ///< inputs have calibrated scales
    bool powers_of_two = false;              ///< scales of inputs
    int64_t block_rows = 0, block_cols = 0;  ///< 0: no blocks
};

Fp8Settings parse(const Json& config, const std::string& file) {
    Fp8Settings s;
    const std::string scheme = get_string(config, "activation_scheme", file);
    if (scheme != "static" && scheme != "dynamic")
        throw Error(ErrorCode::kUnsupported, "this 'activation_scheme' of fp8 is not served")
            .file(file)
            .expected("static or dynamic")
            .found(printable(scheme));
    s.is_static = scheme == "static";
    const std::string scales = get_string_or(config, "scale_fmt", "float", file);
    if (scales != "float" && scales != "ue8m0")
        throw Error(ErrorCode::kUnsupported, "this 'scale_fmt' of fp8 is not served")
            .file(file)
            .expected("float or ue8m0")
            .found(printable(scales));
    s.powers_of_two = scales == "ue8m0";
    const Json* block = find_json(config, "weight_block_size", file);
    if (!block) return s;
    if (!block->is_array() || block->size() != 2)
        throw Error(ErrorCode::kBadContent, "'weight_block_size' is not two numbers")
            .file(file)
            .found(describe_json(*block));
    s.block_rows = as_int((*block)[0], "weight_block_size", 1, INT32_MAX, file);
    s.block_cols = as_int((*block)[1], "weight_block_size", 1, INT32_MAX, file);
    if (s.is_static)
        throw Error(ErrorCode::kUnsupported, "blocks of fp8 weights need dynamic input scales")
            .file(file)
            .expected("'activation_scheme' dynamic")
            .found("static");
    return s;
}

class Fp8Config final : public QuantizationConfig {
  public:
    explicit Fp8Config(const Fp8Settings& settings) : s_(settings) {}
    const char* name() const override { return "fp8"; }

    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        const auto weight = tensors.header(weight_name(source));
        if (!weight) return std::nullopt;
        std::optional<StoredMatrix> m;
        if (is_float_dtype(weight->dtype))
            m = describe_plain(source, tensors);
        else
            m = describe_quantized(source, tensors, weight->dtype == "U8");
        if (!source.bare) {
            if (is_float_dtype(weight->dtype))
                add_companions(*m, tensors, source.stem, {".weight_scale", ".weight_scale_inv"});
            add_companions(*m, tensors, source.stem, {".input_scale"});
            add_cache_scales(*m, tensors);
        }
        return m;
    }

  private:
    StoredMatrix describe_quantized(const MatrixSource& source, const TensorLookup& tensors,
                                    bool pairs) const {
        const std::string scales =
            source.bare
                ? first_tensor(tensors, source.stem, {"_scale_inv", "_scales_inv", "_scale"})
                : first_tensor(tensors, source.stem,
                               {".weight_scale_inv", ".weight_scale", ".scale"});
        StoredMatrix m = pairs ? fp4_matrix(source, tensors, scales, ScaleKind::kE8M0, kFp4Group)
                               : fp8_matrix(source, tensors, scales, ScaleKind::kFloatOrE8M0,
                                            grid_of(source, tensors, scales));
        if (s_.is_static && source.bare)
            throw Error(ErrorCode::kUnsupported,
                        "calibrated scales for the inputs of 3-D parameters are not served")
                .tensor(source.stem);
        m.activation = s_.is_static
                           ? static_rule(static_fp8_input(),
                                         input_scale(source, tensors, source.stem + ".input_scale"))
                       : s_.block_cols > 0 ? group_fp8_input(s_.block_cols, s_.powers_of_two)
                                           : token_fp8_input();
        return m;
    }

    /// Blocks, unless the tensor is one number.
    Encoding grid_of(const MatrixSource& source, const TensorLookup& tensors,
                     const std::string& scales) const {
        Encoding e = fp8_encoding(FactorType::kNone, 0, 0);
        set_scale_span(source, tensors, scales, ScaleSpan::kEither, e);
        const auto header = tensors.header(scales);
        const size_t grid_axes = source.lead >= 0 ? 3 : 2;
        const bool grid = s_.block_cols > 0 && header && header->shape.size() == grid_axes;
        if (e.group_rows == 0 && header && !grid) return e;
        if (s_.block_cols > 0)
            e.group = s_.block_cols, e.group_rows = s_.block_rows;
        else if (scales.ends_with("_inv"))
            throw Error(ErrorCode::kBadContent,
                        "scales of blocks, but the config has no 'weight_block_size'")
                .tensor(scales);
        return e;
    }

    Fp8Settings s_;
};

}  // namespace

QuantizationFormat fp8_format() {
    return {"fp8",
            {},
            [](const Json& config, const std::string& file) {
                return std::make_unique<Fp8Config>(parse(config, file));
            },
            {fp8_encoding(FactorType::kF32, 0, 0), fp8_encoding(FactorType::kF32, 128, 128),
             fp8_encoding(FactorType::kE8M0, 128, 128), fp4_encoding(FactorType::kE8M0, 32)}};
}

}  // namespace conclave::quant
