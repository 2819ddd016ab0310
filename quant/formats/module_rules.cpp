#include "quant/formats/module_rules.h"

#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

/// Each is tried on each module: more would take minutes.
constexpr size_t kMostPatterns = 4096;

}  // namespace

const Json* find_first(const Json& object, std::initializer_list<const char*> keys,
                       const std::string& file, std::string& key) {
    for (const char* k : keys)
        if (const Json* value = find_json(object, k, file)) {
            key = k;
            return value;
        }
    key = *keys.begin();
    return nullptr;
}

int64_t read_group(const Json& config, int64_t fallback, const std::string& file) {
    std::string key;
    const Json* value = find_first(config, {"group_size", "q_group_size"}, file, key);
    if (!value && fallback >= 0) return fallback;
    const int64_t group = value ? as_int(*value, key, -1, INT32_MAX, file)
                                : get_int(config, key, -1, INT32_MAX, file);
    if (group == 0)
        throw Error(ErrorCode::kBadContent, "'" + key + "' cannot be 0")
            .file(file)
            .expected("-1 or more than 0");
    return std::max<int64_t>(group, 0);
}

void ModuleRules::add(Match match, const std::string& pattern, ModuleSettings settings) {
    settings.origin = "rule " + in_quotes(pattern) + " of '" + key_ + "'";
    if (match == Match::kExact) {
        exact_[pattern] = std::move(settings);
        return;
    }
    if (rules_.size() == kMostPatterns)
        throw Error(ErrorCode::kUnsupported, "'" + key_ + "' has too many patterns")
            .file(file_)
            .expected("at most " + std::to_string(kMostPatterns));
    try {
        rules_.push_back({match, Pattern(pattern), std::move(settings)});
    } catch (const Error& e) {
        throw Error(e.code(), "'" + key_ + "' has a pattern that cannot be used")
            .file(file_)
            .found(e.what());
    }
}

std::vector<ModuleSettings> ModuleRules::find(const std::string& module) const {
    if (const auto it = exact_.find(module); it != exact_.end()) return {it->second};
    std::vector<ModuleSettings> found;
    for (const Rule& rule : rules_) {
        bool matches = false;
        try {
            matches = rule.match == Match::kStart ? rule.pattern.matches_start(module)
                                                  : rule.pattern.found_in(module);
        } catch (const Error& e) {
            throw Error(e.code(), "a pattern of '" + key_ + "' cannot be used")
                .file(file_)
                .found(e.what());
        }
        const bool known = std::any_of(found.begin(), found.end(), [&](const ModuleSettings& s) {
            return s.same_as(rule.settings);
        });
        if (matches && !known) found.push_back(rule.settings);
    }
    return found;
}

}  // namespace conclave::quant
