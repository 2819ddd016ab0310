// A small format, indexer, kernel and reader that are sound, and the ways in which they are not
// when TOY_BUG in the environment says so: one bug at a time.
#pragma once
#include <cstdlib>
#include <cstring>
#include <string>

#include "conclave/plugin.h"

namespace toy {

inline std::string& bug() {
    static std::string name;
    return name;
}
inline bool has(const char* name) { return bug() == name; }

/// Columns that share a scale.
constexpr int64_t kGroup = 16;

conclave::quant::QuantizationFormat format(const conclave::PluginHost& host);
std::shared_ptr<const conclave::sharding::ShardIndexer> indexer();
const conclave::quant::Kernel& kernel();
conclave::sharding::CheckpointReader reader();

}  // namespace toy
