// NVIDIA ModelOpt: FP8, NVFP4, MXFP8 and INT4-AWQ. The config is in config.json, in
// hf_quant_config.json, or in both, neither whole.
#include <algorithm>
#include <cctype>
#include <map>

#include "quant/formats/float_formats.h"
#include "quant/formats/formats.h"
#include "quant/formats/int_codec.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"
#include "runtime/base/json.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

constexpr int64_t kBlock = 128;  ///< rows and columns of FP8_PB_WO
constexpr int64_t kMxGroup = 32, kNvGroup = 16;
constexpr const char* kServed =
    "FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO, NVFP4, NVFP4_AWQ, W4A16_NVFP4, W4A8_NVFP4_FP8, "
    "MXFP8, W4A16_AWQ or MIXED_PRECISION";

enum class Algorithm : uint8_t {
    kFp8,
    kFp8Channel,
    kFp8Block,
    kNvfp4,
    kNvfp4WeightOnly,
    kNvfp4Fp8,
    kMxfp8,
    kInt4Awq,
};

struct Settings {
    Algorithm algorithm = Algorithm::kFp8;
    int64_t group = 0;    ///< columns of a group, where the config says so
    std::string refusal;  ///< the name of an algorithm that is not served
};

std::string upper(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    return text;
}

/// `group_size`, or that of the first config group that has one; 0 where there is none.
int64_t group_size(const Json& config, const std::string& file) {
    const int64_t group = get_int_or(config, "group_size", 0, -1, INT32_MAX, file);
    if (group != 0) return std::max<int64_t>(group, 0);
    const Json* groups = find_json(config, "config_groups", file);
    if (!groups || !groups->is_object()) return 0;
    for (const auto& [_, one] : groups->items()) {
        const Json* weights = one.is_object() ? find_json(one, "weights", file) : nullptr;
        if (!weights || !weights->is_object()) continue;
        const int64_t size = get_int_or(*weights, "group_size", 0, -1, INT32_MAX, file);
        if (size > 0) return size;
    }
    return 0;
}

Settings settings_of(const Json& config, const std::string& file) {
    static const std::map<std::string, Algorithm> kAlgorithms = {
        {"FP8", Algorithm::kFp8},
        {"FP8_PER_CHANNEL_PER_TOKEN", Algorithm::kFp8Channel},
        {"FP8_PB_WO", Algorithm::kFp8Block},
        {"NVFP4", Algorithm::kNvfp4},
        {"NVFP4_AWQ", Algorithm::kNvfp4},
        {"W4A16_NVFP4", Algorithm::kNvfp4WeightOnly},
        {"W4A8_NVFP4_FP8", Algorithm::kNvfp4Fp8},
        {"MXFP8", Algorithm::kMxfp8},
        {"W4A16_AWQ", Algorithm::kInt4Awq},
    };
    Settings s;
    const std::string name = get_string(config, "quant_algo", file);
    const auto it = kAlgorithms.find(upper(name));
    if (it == kAlgorithms.end()) {
        s.refusal = printable(name);
        return s;
    }
    s.algorithm = it->second;
    s.group = group_size(config, file);
    if (s.algorithm != Algorithm::kInt4Awq) return s;
    if (get_bool_or(config, "has_zero_point", false, file))
        throw Error(ErrorCode::kUnsupported, "zero points of ModelOpt's int4 are not served")
            .file(file);
    if (s.group == 0)
        throw Error(ErrorCode::kBadContent,
                    "the config of W4A16_AWQ has no 'group_size', nor has hf_quant_config.json")
            .file(file);
    return s;
}

class ModelOptConfig final : public QuantizationConfig {
  public:
    ModelOptConfig(const Json& config, const std::string& file) {
        // Some configs tell of the KV cache alone.
        quantized_ = find_json(config, "quant_algo", file) != nullptr;
        if (!quantized_) return;
        mixed_ = upper(get_string(config, "quant_algo", file)) == "MIXED_PRECISION";
        if (mixed_) {
            const Json& layers = get_object(config, "quantized_layers", file);
            for (const auto& [module, settings] : layers.items()) {
                if (!settings.is_object())
                    throw Error(ErrorCode::kBadContent,
                                "'quantized_layers' has an entry that is not an object")
                        .file(file)
                        .expected("an object for " + in_quotes(module))
                        .found(describe_json(settings));
                modules_[module] = settings_of(settings, file);
            }
            return;
        }
        all_ = settings_of(config, file);
        if (!all_.refusal.empty())
            throw Error(ErrorCode::kUnsupported, "this 'quant_algo' of modelopt is not served")
                .file(file)
                .expected(kServed)
                .found(all_.refusal);
    }
    const char* name() const override { return "modelopt"; }

    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        const auto weight = tensors.header(weight_name(source));
        if (!weight) return std::nullopt;
        if (source.bare) return describe_plain(source, tensors);
        std::optional<StoredMatrix> m;
        if (is_float_dtype(weight->dtype)) {
            m = describe_plain(source, tensors);
            add_companions(*m, tensors, source.stem, {".weight_scale", ".weight_scale_2"});
        } else {
            m = describe_quantized(source, tensors);
        }
        m->column_scale = pre_quant_scale(source, tensors);
        add_companions(*m, tensors, source.stem, {".input_scale", ".pre_quant_scale"});
        add_cache_scales(*m, tensors);
        return m;
    }

  private:
    /// Those of the module, or of the nearest that it is inside of.
    const Settings& find(const MatrixSource& source) const {
        if (!quantized_)
            throw Error(ErrorCode::kBadContent,
                        "tensor is quantized, but the config has no 'quant_algo'")
                .tensor(weight_name(source));
        if (!mixed_) return all_;
        std::string module = source.stem;
        for (;;) {
            if (const auto it = modules_.find(module); it != modules_.end()) {
                if (it->second.refusal.empty()) return it->second;
                throw Error(ErrorCode::kUnsupported, "this 'quant_algo' of modelopt is not served")
                    .tensor(weight_name(source))
                    .expected(kServed)
                    .found(it->second.refusal);
            }
            const size_t dot = module.rfind('.');
            if (dot == std::string::npos) break;
            module.resize(dot);
        }
        throw Error(ErrorCode::kBadContent,
                    "tensor is quantized, but 'quantized_layers' does not name its module")
            .tensor(weight_name(source));
    }

    static StoredMatrix describe_quantized(const Settings& s, const MatrixSource& source,
                                           const TensorLookup& tensors) {
        const std::string scales = source.stem + ".weight_scale";
        Encoding grid = fp8_encoding(FactorType::kNone, 0, 0);
        switch (s.algorithm) {
            case Algorithm::kFp8:
                set_scale_span(source, tensors, scales, ScaleSpan::kEither, grid);
                break;
            case Algorithm::kFp8Channel:
                set_scale_span(source, tensors, scales, ScaleSpan::kRows, grid);
                break;
            case Algorithm::kFp8Block:
                grid.group = grid.group_rows = kBlock;
                break;
            case Algorithm::kMxfp8:
                grid.group = kMxGroup, grid.group_rows = 1;
                return fp8_matrix(source, tensors, scales, ScaleKind::kE8M0, grid);
            case Algorithm::kNvfp4:
            case Algorithm::kNvfp4WeightOnly:
            case Algorithm::kNvfp4Fp8:
                return nvfp4_matrix(source, tensors, scales, s.group > 0 ? s.group : kNvGroup);
            case Algorithm::kInt4Awq:
                return int4_matrix(s, source, tensors, scales);
        }
        return fp8_matrix(source, tensors, scales, ScaleKind::kFloat, grid);
    }

    StoredMatrix describe_quantized(const MatrixSource& source, const TensorLookup& tensors) const {
        const Settings& s = find(source);
        StoredMatrix m = describe_quantized(s, source, tensors);
        m.activation = activation(s.algorithm, source, tensors);
        return m;
    }

    /// Signed codes, two rows a byte.
    static StoredMatrix int4_matrix(const Settings& s, const MatrixSource& source,
                                    const TensorLookup& tensors, const std::string& scales) {
        if (source.stored_n % 2 != 0)
            throw Error(ErrorCode::kUnsupported, "int4 needs an even number of rows")
                .tensor(weight_name(source))
                .found(std::to_string(source.stored_n));
        expect_tensor(tensors, weight_name(source), {source.stored_n / 2, source.k}, "U8");
        Encoding e;
        e.code = CodeType::kU4;
        e.bits = 4;
        e.zero_point = 8;
        e.group = s.group < source.k ? s.group : 0;
        expect_scales(source, tensors, scales, ScaleKind::kFloat, e);
        IntStorage storage;
        storage.bytes = storage.row_pairs = true;
        return int_matrix(source, e, storage, {".weight", ".weight_scale", ""});
    }

    static std::optional<ActivationRule> activation(Algorithm algorithm, const MatrixSource& source,
                                                    const TensorLookup& tensors) {
        const std::string name = source.stem + ".input_scale";
        switch (algorithm) {
            case Algorithm::kFp8:
            case Algorithm::kNvfp4Fp8:
                return static_rule(static_fp8_input(), input_scale(source, tensors, name));
            case Algorithm::kFp8Channel:
                return token_fp8_input();
            case Algorithm::kMxfp8: {
                ActivationRule rule = group_fp8_input(kMxGroup, true);
                rule.least = rule.top * 0x1p-127f;  // the smallest scale of E8M0
                return rule;
            }
            case Algorithm::kNvfp4:
                return static_rule(nvfp4_input(), input_scale(source, tensors, name));
            case Algorithm::kFp8Block:
            case Algorithm::kNvfp4WeightOnly:
            case Algorithm::kInt4Awq:
                return std::nullopt;
        }
        return std::nullopt;
    }

    static std::shared_ptr<const std::vector<float>> pre_quant_scale(const MatrixSource& source,
                                                                     const TensorLookup& tensors) {
        const std::string name = source.stem + ".pre_quant_scale";
        if (!tensors.header(name)) return nullptr;
        const FactorType type = float_factor(name, expect_tensor(tensors, name, {source.k}));
        if (!tensors.values()) return nullptr;
        return std::make_shared<const std::vector<float>>(
            read_factors(tensors, name, type, source.k));
    }

    bool quantized_ = false, mixed_ = false;
    Settings all_;
    std::map<std::string, Settings> modules_;
};

/// hf_quant_config.json keeps its settings in an object; those of config.json come first.
Json complete(Json config, const Json& sidecar, const std::string& file) {
    const Json& settings = get_object(sidecar, "quantization", file);
    for (const auto& [key, value] : settings.items())
        if (const auto it = config.find(key); it == config.end() || it->is_null())
            config[key] = value;
    config["quant_method"] = "modelopt";
    return config;
}

}  // namespace

QuantizationFormat modelopt_format() {
    QuantizationFormat f;
    f.name = "modelopt";
    f.config_files = {"hf_quant_config.json"};
    f.from_config = [](const Json& config, const std::string& file) {
        return std::make_unique<ModelOptConfig>(config, file);
    };
    f.encodings = {fp8_encoding(FactorType::kF32, 0, 0),
                   fp8_encoding(FactorType::kF32, 0, 1),
                   fp8_encoding(FactorType::kF32, 128, 128),
                   fp8_encoding(FactorType::kE8M0, kMxGroup, 1),
                   fp4_encoding(FactorType::kE4M3, kNvGroup),
                   {CodeType::kU4, 4, FactorType::kF32, FactorType::kNone, 8, 128, false}};
    f.complete = complete;
    f.claims = [](const Json& config) {
        const auto method = config.find("quant_method");
        return method != config.end() && (*method == "modelopt_fp4" || *method == "modelopt_mxfp8");
    };
    return f;
}

}  // namespace conclave::quant
