#include "runtime/engine/text/decoder.h"

#include <algorithm>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "runtime/engine/text/decoder_stages.h"

namespace conclave::engine {
namespace {

/// One step as the file states it.
struct Step {
    enum Kind { kJoin, kByteLevel, kByteFallback, kReplace, kFuse, kStrip, kMetaspace } kind;
    std::shared_ptr<const Pattern> pattern = nullptr;
    std::string content = {};    ///< of Replace and Strip; the mark of Metaspace
    size_t start = 0, stop = 0;  ///< of Strip
    bool drop_first = false;     ///< of Metaspace
};

// More would only hold back text; real ones are 1 and 0.
constexpr int64_t kMaxStrip = 1024;

class StepsDecoder final : public Decoder {
  public:
    explicit StepsDecoder(std::vector<Step> steps) : steps_(std::move(steps)) {}

    void append_stages(std::vector<std::unique_ptr<DecoderStage>>& stages) const override {
        bool fused = false;  // what comes is one token, in pieces
        for (size_t i = 0; i < steps_.size(); ++i) {
            const Step& step = steps_[i];
            if (step.kind == Step::kStrip && fused) {
                stages.push_back(make_strip_text_stage(step.content, step.start, step.stop));
                continue;
            }
            // Only Strip works on pieces of a token; any other step must see all of it.
            if (fused && step.kind != Step::kFuse) {
                stages.push_back(make_fuse_stage());
                fused = false;
            }
            if (step.kind != Step::kFuse) stages.push_back(make_stage(step));
            fused = fused || step.kind == Step::kFuse || step.kind == Step::kByteLevel;
        }
    }

  private:
    static std::unique_ptr<DecoderStage> make_stage(const Step& step) {
        switch (step.kind) {
            case Step::kJoin:
                return make_join_stage();
            case Step::kByteLevel:
                return make_byte_level_stage();
            case Step::kByteFallback:
                return make_byte_fallback_stage();
            case Step::kReplace:
                return make_replace_stage(step.pattern, step.content);
            case Step::kFuse:
                return make_fuse_stage();
            case Step::kStrip:
                return make_strip_stage(step.content, step.start, step.stop);
            case Step::kMetaspace:
                return make_metaspace_stage(step.content, step.drop_first);
        }
        CONCLAVE_CHECK(!"a step of no known kind");
        return nullptr;
    }

    std::vector<Step> steps_;
};

std::string one_character(const Json& json, const char* key, const std::string& file) {
    const std::string text = get_string(json, key, file);
    size_t at = 0;
    if (!text.empty()) next_char(text, at);
    if (text.empty() || at != text.size()) {
        throw Error(ErrorCode::kBadContent, std::string("decoder ") + key + " is not one character")
            .file(file)
            .found(in_quotes(text));
    }
    return text;
}

void parse_steps(const Json& json, const std::string& file, std::vector<Step>& steps) {
    const std::string type = get_string(json, "type", file);
    if (type == "Sequence") {
        for (const Json& part : get_array(json, "decoders", file)) parse_steps(part, file, steps);
    } else if (type == "ByteLevel") {
        steps.push_back({Step::kByteLevel});
    } else if (type == "ByteFallback") {
        steps.push_back({Step::kByteFallback});
    } else if (type == "Fuse") {
        steps.push_back({Step::kFuse});
    } else if (type == "Replace") {
        Step step{Step::kReplace};
        step.pattern = parse_pattern(get_object(json, "pattern", file), file);
        step.content = get_string(json, "content", file);
        steps.push_back(std::move(step));
    } else if (type == "Strip") {
        Step step{Step::kStrip};
        step.content = one_character(json, "content", file);
        step.start = static_cast<size_t>(get_int(json, "start", 0, kMaxStrip, file));
        step.stop = static_cast<size_t>(get_int(json, "stop", 0, kMaxStrip, file));
        steps.push_back(std::move(step));
    } else if (type == "Metaspace") {
        Step step{Step::kMetaspace};
        step.content = one_character(json, "replacement", file);
        const bool legacy = get_bool_or(json, "add_prefix_space", true, file);
        step.drop_first =
            get_string_or(json, "prepend_scheme", legacy ? "always" : "never", file) != "never";
        steps.push_back(std::move(step));
    } else {
        throw Error(ErrorCode::kUnsupported,
                    "tokenizer decoder " + in_quotes(type) + " is not served")
            .file(file);
    }
}

}  // namespace

std::unique_ptr<const Decoder> parse_decoder(const Json* json, const std::string& file) {
    std::vector<Step> steps;
    if (json) {
        parse_steps(*json, file, steps);
    } else {
        steps.push_back({Step::kJoin});
    }
    return std::make_unique<StepsDecoder>(std::move(steps));
}

std::string Decoding::push(size_t stage, std::vector<std::string> strings) {
    for (; stage < stages_.size() && !strings.empty(); ++stage) {
        std::vector<std::string> next;
        for (const std::string& text : strings) stages_[stage]->add(text, next);
        strings = std::move(next);
    }
    std::string out;
    for (const std::string& text : strings) out += text;
    return out;
}

std::string Decoding::add(const std::string& token) { return push(0, {token}); }

std::string Decoding::finish() {
    std::string out;
    for (size_t i = 0; i < stages_.size(); ++i) {
        std::vector<std::string> held;
        stages_[i]->finish(held);
        out += push(i + 1, std::move(held));
    }
    return out;
}

}  // namespace conclave::engine
