// Settings that a config gives to some modules by name: GPTQ's `dynamic`, AutoRound's
// `extra_config`.
#pragma once
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "quant/formats/pattern.h"
#include "runtime/base/json.h"

namespace conclave::quant {

/// How a module's weights were quantized.
struct ModuleSettings {
    int bits = 4;
    int64_t group = 0;  ///< columns; 0: one group spans them all
    bool symmetric = true;
    bool skip = false;   ///< left as floats, says the rule
    std::string origin;  ///< the rule, for messages; empty: the config's own settings

    bool same_as(const ModuleSettings& o) const {
        return bits == o.bits && group == o.group && symmetric == o.symmetric && skip == o.skip;
    }
};

/// The member of `object` under the first of `keys` that is there; null if none is. `key` becomes
/// its name, or the first of them.
const Json* find_first(const Json& object, std::initializer_list<const char*> keys,
                       const std::string& file, std::string& key);

/// `group_size` or `q_group_size`: -1 becomes 0. Absent: `fallback`; throws where that is negative.
int64_t read_group(const Json& config, int64_t fallback, const std::string& file);

class ModuleRules {
  public:
    ModuleRules() = default;
    /// `key` of the config in `file` holds the rules.
    ModuleRules(std::string key, std::string file) : key_(std::move(key)), file_(std::move(file)) {}

    enum class Match { kExact, kStart, kSearch };
    /// Throws kBadContent for what is no pattern, kUnsupported for too many of them.
    void add(Match match, const std::string& pattern, ModuleSettings settings);

    /// Settings that rules give to a module; all different. An exact name beats all patterns. JSON
    /// objects have no order, so several patterns that match are equals.
    std::vector<ModuleSettings> find(const std::string& module) const;

  private:
    struct Rule {
        Match match;
        Pattern pattern;
        ModuleSettings settings;
    };
    std::string key_, file_;
    std::map<std::string, ModuleSettings> exact_;
    std::vector<Rule> rules_;
};

}  // namespace conclave::quant
