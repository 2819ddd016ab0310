// The structs of the C interface as the C++ interface has them.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/api/c/handles.h"

namespace conclave::c_api {

struct PluginsObject {
    using Handle = conclave_plugins;
    static constexpr Kind kKind = Kind::kPlugins;

    Plugins plugins;
};

/// Throws for what no engine could take. Its callbacks call the host's.
EngineOptions options_of(const conclave_engine_config* config);

/// A sequence as the host described it, the host's memory copied.
struct SequenceOrder {
    SequenceRequest request;  ///< its prompt only where it was given as ids
    std::optional<std::string> text;
    std::vector<std::string> stop;
    bool keep_logits = false;
    conclave_token_callback on_token = nullptr;
    void* token_user = nullptr;
    conclave_logits_callback on_prompt_logits = nullptr, on_output_logits = nullptr;
    void *prompt_logits_user = nullptr, *output_logits_user = nullptr;
};
/// What the engine and the text stream check is left to them. No array of more entries than the
/// engine could use is read.
SequenceOrder order_of(const conclave_sequence_config* config, int64_t max_model_len,
                       int64_t vocab_size);

/// `bytes` SIZE_MAX: up to the terminating 0.
std::string text_of(const char* text, size_t bytes, const char* name);

}  // namespace conclave::c_api
