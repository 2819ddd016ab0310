// AWQ in its GEMM layout: words along N, [K, words] and [G, words], nibbles interleaved; scales
// [G, N].
#include <algorithm>
#include <cctype>

#include "quant/formats/formats.h"
#include "quant/formats/qweight.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

class AwqConfig final : public QweightConfig {
  public:
    explicit AwqConfig(ModuleSettings base) : QweightConfig(std::move(base), {}) {}
    const char* name() const override { return "awq"; }

  protected:
    QweightRule rule(const ModuleSettings& settings) const override {
        return {awq_storage(), settings.symmetric ? ZeroUse::kIfThere : ZeroUse::kStored};
    }
};

std::string layout_name(const Json& config, const std::string& file) {
    std::string key;
    find_first(config, {"version", "checkpoint_format", "format"}, file, key);
    std::string name = get_string_or(config, key, "gemm", file);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return name;
}

std::unique_ptr<QuantizationConfig> from_config(const Json& config, const std::string& file) {
    const std::string layout = layout_name(config, file);
    const int64_t group = read_group(config, -1, file);
    // The others of these are ways to run what is stored as gemm.
    if (layout != "gemm" && layout != "exllama" && layout != "exllamav2" && layout != "ipex")
        throw Error(ErrorCode::kUnsupported, "this 'version' of awq is not served")
            .file(file)
            .expected("gemm")
            .found(printable(layout));
    std::string key;
    const Json* value = find_first(config, {"bits", "w_bit"}, file, key);
    const int64_t bits =
        value ? as_int(*value, key, 1, 64, file) : get_int(config, key, 1, 64, file);
    if (bits != 4)
        throw Error(ErrorCode::kUnsupported, "this number of '" + key + "' of awq is not served")
            .file(file)
            .expected("4")
            .found(std::to_string(bits));
    ModuleSettings base;
    base.group = group;
    base.symmetric = !get_bool_or(config, "zero_point", true, file);
    return std::make_unique<AwqConfig>(base);
}

}  // namespace

QuantizationFormat awq_format() {
    return {"awq", {"quant_config.json"}, from_config, qweight_encodings({4}, false)};
}

}  // namespace conclave::quant
