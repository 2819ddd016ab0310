#include "runtime/engine/text/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "runtime/engine/text/byte_alphabet.h"
#include "runtime/engine/text/pattern.h"
#include "runtime/engine/text/unicode.h"

namespace conclave::engine {
namespace {

/// Replaces each word by some of its spans.
template <class Keep>
void cut(const Pattern& pattern, Words& words, Keep keep) {
    std::vector<Words::Word> out;
    std::vector<Span> spans;
    Chars chars;
    for (const Words::Word& word : words.words) {
        find_spans(pattern, words.view(word), chars, spans);
        bool first = word.first;
        for (const Span& span : spans) {
            if (!keep(span)) continue;
            out.push_back({word.begin + span.begin, word.begin + span.end, first});
            first = false;
        }
    }
    words.words = std::move(out);
}

class SequencePreTokenizer final : public PreTokenizer {
  public:
    explicit SequencePreTokenizer(std::vector<std::unique_ptr<const PreTokenizer>> steps)
        : steps_(std::move(steps)) {}
    void run(Words& words) const override {
        for (const auto& step : steps_) step->run(words);
    }

  private:
    std::vector<std::unique_ptr<const PreTokenizer>> steps_;
};

class SplitPreTokenizer final : public PreTokenizer {
  public:
    enum Kept { kAll, kMatches, kGaps };
    SplitPreTokenizer(std::unique_ptr<const Pattern> pattern, Kept kept)
        : pattern_(std::move(pattern)), kept_(kept) {}
    void run(Words& words) const override {
        cut(*pattern_, words, [this](const Span& span) {
            return kept_ == kAll || span.match == (kept_ == kMatches);
        });
    }

  private:
    std::unique_ptr<const Pattern> pattern_;
    Kept kept_;
};

class DigitsPattern final : public Pattern {
  public:
    explicit DigitsPattern(bool individual) : individual_(individual) {}
    size_t match(const Chars& text, size_t at) const override {
        if (!text.is(at, kNumber)) return 0;
        return individual_ ? at + 1 : text.skip(at, kNumber);
    }

  private:
    bool individual_;
};

class ByteLevelPreTokenizer final : public PreTokenizer {
  public:
    ByteLevelPreTokenizer(bool add_prefix_space, bool use_regex)
        : add_prefix_space_(add_prefix_space), pattern_(use_regex ? gpt2_pattern() : nullptr) {}
    void run(Words& words) const override {
        if (add_prefix_space_) prefix(words);
        if (pattern_) cut(*pattern_, words, [](const Span&) { return true; });
        Words out;
        out.text.reserve(words.text.size() + words.text.size() / 4);
        out.words.reserve(words.words.size());
        for (const Words::Word& word : words.words) {
            const size_t begin = out.text.size();
            for (const char c : words.view(word)) {
                append_utf8(out.text, kCharOfByte[static_cast<unsigned char>(c)]);
            }
            out.words.push_back({begin, out.text.size(), word.first});
        }
        words = std::move(out);
    }

  private:
    static void prefix(Words& words) {
        Words out;
        for (const Words::Word& word : words.words) {
            const size_t begin = out.text.size();
            const std::string_view text = words.view(word);
            if (text.empty() || text[0] != ' ') out.text += ' ';
            out.text += text;
            out.words.push_back({begin, out.text.size(), word.first});
        }
        words = std::move(out);
    }

    bool add_prefix_space_;
    std::unique_ptr<const Pattern> pattern_;
};

class MetaspacePreTokenizer final : public PreTokenizer {
  public:
    enum Scheme { kAlways, kFirst, kNever };
    MetaspacePreTokenizer(std::string mark, Scheme scheme, bool split)
        : mark_(std::move(mark)), scheme_(scheme), split_(split) {}
    void run(Words& words) const override {
        Words out;
        for (const Words::Word& word : words.words) {
            std::string text;
            for (const char c : words.view(word)) {
                if (c == ' ') {
                    text += mark_;
                } else {
                    text += c;
                }
            }
            if ((scheme_ == kAlways || (scheme_ == kFirst && word.first)) &&
                text.compare(0, mark_.size(), mark_) != 0) {
                text.insert(0, mark_);
            }
            append(text, word.first, out);
        }
        words = std::move(out);
    }

  private:
    /// Each mark begins a word.
    void append(const std::string& text, bool first, Words& out) const {
        const size_t base = out.text.size();
        out.text += text;
        for (size_t begin = 0; begin < text.size();) {
            size_t end = text.size();
            // Characters are found whole: no valid character begins inside another.
            if (split_) end = std::min(end, text.find(mark_, begin + 1));
            out.words.push_back({base + begin, base + end, first});
            first = false;
            begin = end;
        }
    }

    std::string mark_;
    Scheme scheme_;
    bool split_;
};

Error unsupported(const std::string& message, const std::string& file) {
    return Error(ErrorCode::kUnsupported, message + " is not served").file(file);
}

std::unique_ptr<const PreTokenizer> parse_sequence(const Json& json, const std::string& file) {
    std::vector<std::unique_ptr<const PreTokenizer>> steps;
    for (const Json& step : get_array(json, "pretokenizers", file)) {
        steps.push_back(parse_pre_tokenizer(&step, file));
    }
    return std::make_unique<SequencePreTokenizer>(std::move(steps));
}

std::unique_ptr<const PreTokenizer> parse_split(const Json& json, const std::string& file) {
    const std::string behavior = get_string(json, "behavior", file);
    const bool invert = get_bool_or(json, "invert", false, file);
    auto kept = SplitPreTokenizer::kAll;
    if (behavior == "Removed") {
        kept = invert ? SplitPreTokenizer::kMatches : SplitPreTokenizer::kGaps;
    } else if (behavior != "Isolated") {
        throw unsupported("tokenizer Split behavior " + in_quotes(behavior), file);
    }
    return std::make_unique<SplitPreTokenizer>(
        parse_pattern(get_object(json, "pattern", file), file), kept);
}

std::unique_ptr<const PreTokenizer> parse_metaspace(const Json& json, const std::string& file) {
    const std::string mark = get_string(json, "replacement", file);
    size_t at = 0;
    if (!mark.empty()) next_char(mark, at);
    if (mark.empty() || at != mark.size()) {
        throw Error(ErrorCode::kBadContent, "Metaspace replacement is not one character")
            .file(file)
            .found(in_quotes(mark));
    }
    // Files older than prepend_scheme say add_prefix_space.
    const bool legacy = get_bool_or(json, "add_prefix_space", true, file);
    const std::string scheme =
        get_string_or(json, "prepend_scheme", legacy ? "always" : "never", file);
    auto parsed = MetaspacePreTokenizer::kAlways;
    if (scheme == "first") {
        parsed = MetaspacePreTokenizer::kFirst;
    } else if (scheme == "never") {
        parsed = MetaspacePreTokenizer::kNever;
    } else if (scheme != "always") {
        throw unsupported("tokenizer Metaspace prepend_scheme " + in_quotes(scheme), file);
    }
    return std::make_unique<MetaspacePreTokenizer>(mark, parsed,
                                                   get_bool_or(json, "split", true, file));
}

}  // namespace

std::unique_ptr<const PreTokenizer> parse_pre_tokenizer(const Json* json, const std::string& file) {
    if (!json) return nullptr;
    const std::string type = get_string(*json, "type", file);
    if (type == "Sequence") return parse_sequence(*json, file);
    if (type == "Split") return parse_split(*json, file);
    if (type == "Metaspace") return parse_metaspace(*json, file);
    if (type == "ByteLevel") {
        return std::make_unique<ByteLevelPreTokenizer>(get_bool(*json, "add_prefix_space", file),
                                                       get_bool_or(*json, "use_regex", true, file));
    }
    if (type == "Digits") {
        return std::make_unique<SplitPreTokenizer>(
            std::make_unique<DigitsPattern>(get_bool_or(*json, "individual_digits", false, file)),
            SplitPreTokenizer::kAll);
    }
    throw unsupported("tokenizer pre_tokenizer " + in_quotes(type), file);
}

}  // namespace conclave::engine
