// AutoRound (quant_method "auto-round", "inc"): tensors of GPTQ or AWQ, other zeros, a config of
// its own.
#include "quant/formats/formats.h"
#include "quant/formats/qweight.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

enum class Layout : uint8_t {
    kGptqFirst,   ///< "auto_round:auto_gptq": zeros less one
    kGptqSecond,  ///< "auto_round", "auto_round:gptqmodel": zeros as they are
    kAwq,         ///< "auto_round:auto_awq"
};

class AutoRoundConfig final : public QweightConfig {
  public:
    AutoRoundConfig(ModuleSettings base, ModuleRules rules, Layout layout)
        : QweightConfig(std::move(base), std::move(rules)), layout_(layout) {}
    const char* name() const override { return "auto-round"; }

  protected:
    QweightRule rule(const ModuleSettings& settings) const override {
        if (layout_ == Layout::kAwq)
            return {awq_storage(), settings.symmetric ? ZeroUse::kIfThere : ZeroUse::kStored};
        QweightRule r{gptq_storage(settings.bits, Packing::kStream),
                      settings.symmetric ? ZeroUse::kMiddle : ZeroUse::kStored};
        if (layout_ == Layout::kGptqFirst) r.storage.zero_rule = ZeroRule::kPlusOne;
        return r;
    }

  private:
    Layout layout_;
};

Layout read_layout(const Json& config, const std::string& file) {
    const std::string name = get_string_or(config, "packing_format", "auto_round:auto_gptq", file);
    if (name == "auto_round:auto_gptq") return Layout::kGptqFirst;
    if (name == "auto_round" || name == "auto_round:gptqmodel") return Layout::kGptqSecond;
    if (name == "auto_round:auto_awq") return Layout::kAwq;
    throw Error(ErrorCode::kUnsupported, "this 'packing_format' of auto-round is not served")
        .file(file)
        .expected("auto_round, auto_round:gptqmodel, auto_round:auto_gptq or auto_round:auto_awq")
        .found(printable(name));
}

/// Settings of one module where `over` changes those of `base`. 16 bits and more: left as floats.
ModuleSettings read_settings(const Json& over, ModuleSettings base, Layout layout,
                             const std::string& file) {
    const int64_t bits = get_int_or(over, "bits", base.bits, 1, 64, file);
    if (bits >= 16) {
        base.skip = true;
        return base;
    }
    const auto refuse = [&](const std::string& key, const std::string& expected,
                            const std::string& found) {
        throw Error(ErrorCode::kUnsupported, "this '" + key + "' of auto-round is not served")
            .file(file)
            .expected(expected)
            .found(found);
    };
    const std::string type = get_string_or(over, "data_type", "int", file);
    if (type != "int") refuse("data_type", "int", printable(type));
    if (layout == Layout::kAwq && bits != 4) refuse("bits", "4", std::to_string(bits));
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
        refuse("bits", "2, 3, 4, 8, or 16 and more for floats", std::to_string(bits));
    if (const int64_t act = get_int_or(over, "act_bits", 16, 1, 64, file); act < 16)
        refuse("act_bits", "16", std::to_string(act));
    base.bits = static_cast<int>(bits);
    base.group = read_group(over, base.group, file);
    base.symmetric = get_bool_or(over, "sym", base.symmetric, file);
    return base;
}

ModuleRules read_extra_config(const Json& config, const ModuleSettings& base, Layout layout,
                              const std::string& file) {
    ModuleRules rules("extra_config", file);
    if (!find_json(config, "extra_config", file)) return rules;
    for (const auto& [key, value] : get_object(config, "extra_config", file).items()) {
        if (value.is_null()) continue;
        if (!value.is_object())
            throw Error(ErrorCode::kBadContent,
                        "'extra_config' entry " + in_quotes(key) + " is wrong")
                .file(file)
                .expected("an object")
                .found(describe_json(value));
        const ModuleSettings settings = read_settings(value, base, layout, file);
        const bool pattern = key.find_first_of("*+?^$()[]{}|\\") != std::string::npos;
        if (pattern) rules.add(ModuleRules::Match::kSearch, key, settings);
        rules.add(ModuleRules::Match::kExact, key, settings);
    }
    return rules;
}

std::unique_ptr<QuantizationConfig> from_config(const Json& config, const std::string& file) {
    const Layout layout = read_layout(config, file);
    ModuleSettings base;
    base.group = 128;
    base = read_settings(config, base, layout, file);
    if (base.skip)
        throw Error(ErrorCode::kUnsupported, "this 'bits' of auto-round is not served")
            .file(file)
            .expected("2, 3, 4 or 8")
            .found("16 or more");
    return std::make_unique<AutoRoundConfig>(base, read_extra_config(config, base, layout, file),
                                             layout);
}

}  // namespace

QuantizationFormat auto_round_format() {
    return {"auto-round",
            {"quantization_config.json"},
            from_config,
            qweight_encodings({2, 3, 4, 8}, false)};
}

}  // namespace conclave::quant
