// GPTQ: words along K, [words, N]; zeros along N, [G, words]; scales [G, N]; the groups of columns
// in .g_idx. Zeros of the first version are stored less one.
#include <algorithm>

#include "quant/formats/formats.h"
#include "quant/formats/qweight.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

/// Which label the checkpoint has, and which program wrote it.
struct Layout {
    bool planar = false;       ///< "gptq_p"
    bool second = false;       ///< "gptq_v2": zeros as they are
    bool whole_words = false;  ///< GPTQModel: one was subtracted from words, with borrows
};

bool is_planar(int bits) { return bits == 5 || bits == 6 || bits == 7; }

/// What GPTQModel subtracts from the zero words of all modules: ones in fields of the base's bits.
void set_word_constants(int bits, IntStorage& s) {
    switch (bits) {
        case 2:
            s.zero_words[0] = 0x55555555;
            return;
        case 3:
            s.zero_words = {0x24924924, 0x92492492, 0x49249249};
            s.zero_word_count = 3;
            return;
        case 4:
            s.zero_words[0] = 0x11111111;
            return;
        default:
            s.zero_words[0] = 0x01010101;
    }
}

class GptqConfig final : public QweightConfig {
  public:
    GptqConfig(ModuleSettings base, ModuleRules rules, Layout layout)
        : QweightConfig(std::move(base), std::move(rules)), layout_(layout) {}
    const char* name() const override { return "gptq"; }

  protected:
    QweightRule rule(const ModuleSettings& settings) const override {
        const bool planar = layout_.planar || is_planar(settings.bits);
        QweightRule r;
        r.storage = gptq_storage(settings.bits, planar ? Packing::kPlanar : Packing::kStream);
        // Symmetric files exist whose zeros contradict their label; all mean the middle.
        r.zeros = settings.symmetric ? ZeroUse::kMiddle : ZeroUse::kStored;
        if (planar || layout_.second || is_planar(base().bits)) return r;
        r.storage.zero_rule = layout_.whole_words ? ZeroRule::kWordsAdd : ZeroRule::kPlusOne;
        if (layout_.whole_words) set_word_constants(base().bits, r.storage);
        return r;
    }

  private:
    Layout layout_;
};

bool names_gptqmodel(const Json& value) {
    return value.is_string() &&
           value.get_ref<const std::string&>().find("gptqmodel") != std::string::npos;
}

bool written_by_gptqmodel(const Json& config, const std::string& file) {
    const Json* meta = find_json(config, "meta", file);
    if (!meta || !meta->is_object()) return false;
    const Json* quantizer = find_json(*meta, "quantizer", file);
    if (!quantizer) return false;
    return names_gptqmodel(*quantizer) ||
           (quantizer->is_array() &&
            std::any_of(quantizer->begin(), quantizer->end(), names_gptqmodel));
}

std::string checkpoint_format(const Json& config, const std::string& file) {
    const std::string label = get_string_or(config, "format", "gptq", file);
    return get_string_or(config, "checkpoint_format", label, file);
}

int read_bits(const Json& config, const std::string& file) {
    std::string key;
    const Json* bits = find_first(config, {"bits", "w_bit", "wbits"}, file, key);
    return static_cast<int>(bits ? as_int(*bits, key, 2, 8, file)
                                 : get_int(config, key, 2, 8, file));
}

ModuleRules read_dynamic(const Json& config, const ModuleSettings& base, const std::string& file) {
    ModuleRules rules("dynamic", file);
    const Json* dynamic = find_json(config, "dynamic", file);
    if (!dynamic) return rules;
    for (const auto& [key, value] : get_object(config, "dynamic", file).items()) {
        if (!value.is_object() && !value.is_null())
            throw Error(ErrorCode::kBadContent, "'dynamic' rule " + in_quotes(key) + " is wrong")
                .file(file)
                .expected("an object")
                .found(describe_json(value));
        const Json over = value.is_null() ? Json::object() : value;
        const bool sign = key.starts_with("-:") || key.starts_with("+:");
        ModuleSettings s = base;
        s.skip = key.starts_with("-:");
        s.bits = static_cast<int>(get_int_or(over, "bits", base.bits, 2, 8, file));
        s.group = read_group(over, base.group, file);
        s.symmetric = get_bool_or(over, "sym", base.symmetric, file);
        get_bool_or(over, "desc_act", false, file);
        rules.add(ModuleRules::Match::kStart, sign ? key.substr(2) : key, std::move(s));
    }
    return rules;
}

std::unique_ptr<QuantizationConfig> from_config(const Json& config, const std::string& file) {
    const std::string label = checkpoint_format(config, file);
    if (label != "gptq" && label != "gptq_v2" && label != "gptq_p")
        throw Error(ErrorCode::kUnsupported, "this 'checkpoint_format' of gptq is not served")
            .file(file)
            .expected("gptq, gptq_v2 or gptq_p")
            .found(printable(label));
    if (const std::string words = get_string_or(config, "pack_dtype", "int32", file);
        words != "int32")
        throw Error(ErrorCode::kUnsupported, "this 'pack_dtype' of gptq is not served")
            .file(file)
            .expected("int32")
            .found(printable(words));
    ModuleSettings base;
    base.bits = read_bits(config, file);
    base.group = read_group(config, -1, file);
    base.symmetric = get_bool_or(config, "sym", true, file);
    get_bool_or(config, "desc_act", false, file);
    Layout layout;
    layout.planar = label == "gptq_p";
    layout.second = label == "gptq_v2";
    layout.whole_words = written_by_gptqmodel(config, file);
    return std::make_unique<GptqConfig>(base, read_dynamic(config, base, file), layout);
}

}  // namespace

QuantizationFormat gptq_format() {
    return {"gptq",
            {"quantize_config.json"},
            from_config,
            qweight_encodings({2, 3, 4, 5, 6, 7, 8}, true)};
}

}  // namespace conclave::quant
