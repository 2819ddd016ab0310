// The config of a compressed-tensors checkpoint: which scheme is which module's.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "quant/formats/compressed_tensors_args.h"
#include "quant/formats/pattern.h"

namespace conclave::quant {

/// How the matrices of one config group are quantized.
struct CtScheme {
    std::string group;    ///< "group_0"
    std::string refusal;  ///< why its layers are not served; empty: they are
    CtArgs weights = {};
    std::optional<CtArgs> inputs = {};
    bool output_activations = false;
};

class CtSchemes {
  public:
    /// Throws kBadContent for what is no such config, kUnsupported for what concerns every layer.
    CtSchemes(const nlohmann::json& config, const std::string& file);

    /// The scheme that targets a module: by its name, else by the first pattern in lexicographic
    /// order, else by its class. Null where none does. `ignore` is not asked: whether a module is
    /// quantized is told by its tensors.
    const CtScheme* find(const std::string& module) const;

    /// Written before 0.18, which changed how codes of 3, 5, 6 and 7 bits lie in words. Writers
    /// that did not state their version are older than that.
    bool old_packing() const { return old_packing_; }

  private:
    void add_group(const std::string& name, const nlohmann::json& group, const std::string& format);
    void add_target(const std::string& target, size_t scheme);

    std::string file_;
    bool old_packing_ = true;
    std::vector<CtScheme> schemes_;
    std::unordered_map<std::string, size_t> names_;
    std::map<std::string, std::pair<Pattern, size_t>> patterns_;  ///< by text
};

}  // namespace conclave::quant
