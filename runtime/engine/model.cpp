#include "runtime/engine/model.h"

namespace conclave::engine {

#define CONCLAVE_ARCHITECTURE(function) Architecture function();
#include "runtime/engine/models/models.inc"
#undef CONCLAVE_ARCHITECTURE

const std::vector<Architecture>& architectures() {
    static const std::vector<Architecture> all = {
#define CONCLAVE_ARCHITECTURE(function) function(),
#include "runtime/engine/models/models.inc"
#undef CONCLAVE_ARCHITECTURE
    };
    return all;
}

std::vector<std::string> standard_ignorable() {
    // A tied head is stored again by some writers; where it is not tied, it is read.
    // What GGUF's divisors say of RoPE is in config.json.
    return {"*.rotary_emb.inv_freq", "lm_head.weight", "rope_freqs.weight"};
}

const Architecture& find_architecture(const Json& config, const std::string& file) {
    const ModelName name = model_name(config, file);
    std::string served;
    for (const Architecture& a : architectures()) {
        if (name.architecture.empty() ? a.model_type == name.model_type
                                      : a.name == name.architecture)
            return a;
        if (a.unserved.empty()) served += (served.empty() ? "" : ", ") + a.name;
    }
    const std::string found = name.architecture.empty() ? name.model_type : name.architecture;
    throw Error(ErrorCode::kUnsupported, "this architecture is not served")
        .file(file)
        .expected(served)
        .found(found.empty() ? "neither 'architectures' nor 'model_type'" : found.substr(0, 128));
}

}  // namespace conclave::engine
