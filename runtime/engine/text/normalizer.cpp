#include "runtime/engine/text/normalizer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "runtime/engine/text/pattern.h"
#include "runtime/engine/text/unicode.h"

namespace conclave::engine {
namespace {

class SequenceNormalizer final : public Normalizer {
  public:
    explicit SequenceNormalizer(std::vector<std::unique_ptr<const Normalizer>> steps)
        : steps_(std::move(steps)) {}
    std::string run(std::string text) const override {
        for (const auto& step : steps_) text = step->run(std::move(text));
        return text;
    }
    bool strips_left() const override {
        return std::any_of(steps_.begin(), steps_.end(),
                           [](const auto& step) { return step->strips_left(); });
    }

  private:
    std::vector<std::unique_ptr<const Normalizer>> steps_;
};

class FormNormalizer final : public Normalizer {
  public:
    explicit FormNormalizer(NormalForm form) : form_(form) {}
    std::string run(std::string text) const override { return normal_form(text, form_); }

  private:
    NormalForm form_;
};

class PrependNormalizer final : public Normalizer {
  public:
    explicit PrependNormalizer(std::string prefix) : prefix_(std::move(prefix)) {}
    std::string run(std::string text) const override {
        return text.empty() ? std::move(text) : prefix_ + text;
    }

  private:
    std::string prefix_;
};

class ReplaceNormalizer final : public Normalizer {
  public:
    ReplaceNormalizer(std::unique_ptr<const Pattern> pattern, std::string content)
        : pattern_(std::move(pattern)), content_(std::move(content)) {}
    std::string run(std::string text) const override {
        return replace_matches(*pattern_, text, content_);
    }

  private:
    std::unique_ptr<const Pattern> pattern_;
    std::string content_;
};

class LowercaseNormalizer final : public Normalizer {
  public:
    std::string run(std::string text) const override { return lowercase(text); }
};

class StripNormalizer final : public Normalizer {
  public:
    StripNormalizer(bool left, bool right) : left_(left), right_(right) {}
    std::string run(std::string text) const override {
        size_t begin = 0, end = text.size();
        while (left_ && begin < end) {
            size_t next = begin;
            if (!(char_class(next_char(text, next)) & kSpace)) break;
            begin = next;
        }
        while (right_ && end > begin) {
            size_t previous = end;
            if (!(char_class(previous_char(text, previous)) & kSpace)) break;
            end = previous;
        }
        return text.substr(begin, end - begin);
    }
    bool strips_left() const override { return left_; }

  private:
    bool left_, right_;
};

// Added to every piece of a text; real ones are one character.
constexpr size_t kMaxPrependBytes = 64;

std::unique_ptr<const Normalizer> parse_prepend(const Json& json, const std::string& file) {
    std::string prefix = get_string(json, "prepend", file);
    if (prefix.size() > kMaxPrependBytes) {
        throw Error(ErrorCode::kUnsupported, "normalizer prepend is too long")
            .file(file)
            .expected("at most " + std::to_string(kMaxPrependBytes) + " bytes")
            .found(std::to_string(prefix.size()));
    }
    return std::make_unique<PrependNormalizer>(std::move(prefix));
}

std::unique_ptr<const Normalizer> parse_sequence(const Json& json, const std::string& file) {
    std::vector<std::unique_ptr<const Normalizer>> steps;
    for (const Json& step : get_array(json, "normalizers", file)) {
        steps.push_back(parse_normalizer(&step, file));
    }
    return std::make_unique<SequenceNormalizer>(std::move(steps));
}

}  // namespace

std::unique_ptr<const Normalizer> parse_normalizer(const Json* json, const std::string& file) {
    if (!json) return nullptr;
    const std::string type = get_string(*json, "type", file);
    if (type == "Sequence") return parse_sequence(*json, file);
    if (type == "NFC") return std::make_unique<FormNormalizer>(NormalForm::kNfc);
    if (type == "NFD") return std::make_unique<FormNormalizer>(NormalForm::kNfd);
    if (type == "NFKC") return std::make_unique<FormNormalizer>(NormalForm::kNfkc);
    if (type == "NFKD") return std::make_unique<FormNormalizer>(NormalForm::kNfkd);
    if (type == "Lowercase") return std::make_unique<LowercaseNormalizer>();
    if (type == "Prepend") return parse_prepend(*json, file);
    if (type == "Strip") {
        return std::make_unique<StripNormalizer>(get_bool(*json, "strip_left", file),
                                                 get_bool(*json, "strip_right", file));
    }
    if (type == "Replace") {
        return std::make_unique<ReplaceNormalizer>(
            parse_pattern(get_object(*json, "pattern", file), file),
            get_string(*json, "content", file));
    }
    throw Error(ErrorCode::kUnsupported,
                "tokenizer normalizer " + in_quotes(type) + " is not served")
        .file(file);
}

}  // namespace conclave::engine
