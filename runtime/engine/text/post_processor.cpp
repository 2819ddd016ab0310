#include "runtime/engine/text/post_processor.h"

#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "runtime/engine/text/bpe.h"

namespace conclave::engine {
namespace {

// A template is a handful of tokens; what it may cost on every prompt is bounded.
constexpr size_t kMaxTemplateTokens = 1024;

std::vector<TokenId> special_ids(const Json& post_processor, const std::string& name,
                                 const std::string& file) {
    const Json& token = get_object(get_object(post_processor, "special_tokens", file), name, file);
    std::vector<TokenId> ids;
    for (const Json& id : get_array(token, "ids", file)) {
        ids.push_back(static_cast<TokenId>(as_int(id, "ids", 0, kMaxTokenIds - 1, file)));
    }
    return ids;
}

}  // namespace

PostProcessor::PostProcessor(const Json* json, const std::string& file) {
    if (json) parse(*json, file);
    if (before_.size() + after_.size() > kMaxTemplateTokens) {
        throw Error(ErrorCode::kBadContent, "post_processor adds too many tokens").file(file);
    }
}

void PostProcessor::parse(const Json& json, const std::string& file) {
    const std::string type = get_string(json, "type", file);
    if (type == "ByteLevel") return;  // only moves offsets, which are not kept
    if (type == "Sequence") {
        for (const Json& part : get_array(json, "processors", file)) parse(part, file);
    } else if (type == "TemplateProcessing") {
        parse_template(json, file);
    } else {
        throw Error(ErrorCode::kUnsupported,
                    "tokenizer post_processor " + in_quotes(type) + " is not served")
            .file(file);
    }
}

/// Wraps what earlier processors of a sequence have made.
void PostProcessor::parse_template(const Json& json, const std::string& file) {
    std::vector<TokenId> before, after;
    int sequences = 0;
    for (const Json& part : get_array(json, "single", file)) {
        if (find_json(part, "Sequence", file)) {
            ++sequences;
            continue;
        }
        const std::string name = get_string(get_object(part, "SpecialToken", file), "id", file);
        for (const TokenId id : special_ids(json, name, file)) {
            (sequences ? after : before).push_back(id);
        }
    }
    if (sequences != 1) {
        throw Error(ErrorCode::kUnsupported, "post_processor template without exactly one text")
            .file(file)
            .found(std::to_string(sequences));
    }
    before_.insert(before_.begin(), before.begin(), before.end());
    after_.insert(after_.end(), after.begin(), after.end());
}

std::vector<TokenId> PostProcessor::run(std::vector<TokenId> ids) const {
    ids.insert(ids.begin(), before_.begin(), before_.end());
    ids.insert(ids.end(), after_.begin(), after_.end());
    return ids;
}

TokenId PostProcessor::largest_id() const {
    TokenId largest = kNoToken;
    for (const auto* ids : {&before_, &after_}) {
        for (const TokenId id : *ids) largest = std::max(largest, id);
    }
    return largest;
}

}  // namespace conclave::engine
