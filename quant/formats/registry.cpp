#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "quant/formats/formats.h"
#include "runtime/base/error.h"

namespace conclave::quant {
namespace {

QuantizationFormat named(std::string name, QuantizationFormat format) {
    format.name = std::move(name);
    return format;
}

QuantizationFormat unquantized_format() {
    return {"none",
            {},
            [](const nlohmann::json&, const std::string&) { return unquantized_config(); },
            {{CodeType::kF32}, {CodeType::kF16}, {CodeType::kBF16}}};
}

}  // namespace

QuantizationRegistry QuantizationRegistry::built_in() {
    QuantizationRegistry registry;
    registry.add(unquantized_format());
    registry.add(gptq_format());
    registry.add(awq_format());
    registry.add(auto_round_format());
    registry.add(named("inc", auto_round_format()));
    registry.add(named("intel/auto-round", auto_round_format()));
    registry.add(marlin_format());
    registry.add(compressed_tensors_format());
    registry.add(hqq_format());
    return registry;
}

void QuantizationRegistry::add(QuantizationFormat format) {
    if (find(format.name))
        throw Error(ErrorCode::kUsage, "quantization format '" + format.name + "' is taken");
    formats_.push_back(std::move(format));
}

const QuantizationFormat* QuantizationRegistry::find(std::string_view name) const {
    const auto it = std::find_if(formats_.begin(), formats_.end(),
                                 [&](const QuantizationFormat& f) { return f.name == name; });
    return it == formats_.end() ? nullptr : &*it;
}

std::vector<std::string> QuantizationRegistry::names() const {
    std::vector<std::string> out;
    for (const QuantizationFormat& f : formats_) out.push_back(f.name);
    return out;
}

}  // namespace conclave::quant
