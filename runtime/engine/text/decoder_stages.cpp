#include "runtime/engine/text/decoder_stages.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "runtime/engine/text/byte_alphabet.h"
#include "runtime/engine/text/unicode.h"

namespace conclave::engine {
namespace {

using Strings = std::vector<std::string>;

class JoinStage final : public DecoderStage {
  public:
    void add(const std::string& token, Strings& out) override {
        out.push_back(begun_ ? " " + token : token);
        begun_ = true;
    }

  private:
    bool begun_ = false;
};

class ByteLevelStage final : public DecoderStage {
  public:
    void add(const std::string& token, Strings& out) override {
        append_bytes(token);
        release(false, out);
    }
    void finish(Strings& out) override { release(true, out); }

  private:
    /// A token with any other character stands for its own UTF-8.
    void append_bytes(const std::string& token) {
        const size_t before = held_.size();
        for (size_t at = 0; at < token.size();) {
            const char32_t c = next_char(token, at);
            if (c >= kByteOfChar.size() || kByteOfChar[c] < 0) {
                held_.resize(before);
                held_ += token;
                return;
            }
            held_ += static_cast<char>(kByteOfChar[c]);
        }
    }
    void release(bool all, Strings& out) {
        std::string text;
        std::string_view rest = held_;
        while (!rest.empty()) {
            const Utf8Step step = utf8_step(rest);
            if (step.kind == Utf8Step::kCut && !all) break;
            text += step.kind == Utf8Step::kChar ? rest.substr(0, step.size) : kReplacement;
            rest.remove_prefix(step.size);
        }
        held_ = std::string(rest);
        if (!text.empty()) out.push_back(std::move(text));
    }

    std::string held_;
};

class ByteFallbackStage final : public DecoderStage {
  public:
    void add(const std::string& token, Strings& out) override {
        if (const std::optional<char> byte = byte_of(token)) {
            run_ += *byte;
            return;
        }
        finish(out);
        out.push_back(token);
    }
    void finish(Strings& out) override {
        if (run_.empty()) return;
        std::string text = run_;
        for (std::string_view rest = run_; !rest.empty();) {
            const Utf8Step step = utf8_step(rest);
            if (step.kind != Utf8Step::kChar) {
                text.clear();
                for (size_t i = 0; i < run_.size(); ++i) text += kReplacement;
                break;
            }
            rest.remove_prefix(step.size);
        }
        out.push_back(std::move(text));
        run_.clear();
    }

  private:
    static std::optional<char> byte_of(const std::string& token) {
        if (token.size() != 6 || token.compare(0, 3, "<0x") != 0 || token[5] != '>') return {};
        const std::optional<int> high = hex(token[3]), low = hex(token[4]);
        if (!high || !low) return {};
        return static_cast<char>(*high * 16 + *low);
    }
    static std::optional<int> hex(char c) {
        if (c >= '0' && c <= '9') return c - '0';
        if (c >= 'a' && c <= 'f') return c - 'a' + 10;
        if (c >= 'A' && c <= 'F') return c - 'A' + 10;
        return {};
    }

    std::string run_;
};

class ReplaceStage final : public DecoderStage {
  public:
    ReplaceStage(std::shared_ptr<const Pattern> pattern, std::string content)
        : pattern_(std::move(pattern)), content_(std::move(content)) {}
    void add(const std::string& token, Strings& out) override {
        out.push_back(replace_matches(*pattern_, token, content_));
    }

  private:
    std::shared_ptr<const Pattern> pattern_;
    std::string content_;
};

class FuseStage final : public DecoderStage {
  public:
    void add(const std::string& token, Strings&) override { text_ += token; }
    void finish(Strings& out) override { out.push_back(std::move(text_)); }

  private:
    std::string text_;
};

class StripStage final : public DecoderStage {
  public:
    StripStage(std::string content, size_t start, size_t stop)
        : content_(std::move(content)), start_(start), stop_(stop) {}
    void add(const std::string& token, Strings& out) override {
        const size_t width = content_.size();
        size_t begin = 0, end = token.size();
        for (size_t i = 0; i < start_ && token.compare(begin, width, content_) == 0; ++i) {
            begin += width;
        }
        for (size_t i = 0;
             i < stop_ && end - begin >= width && token.compare(end - width, width, content_) == 0;
             ++i) {
            end -= width;
        }
        out.push_back(token.substr(begin, end - begin));
    }

  private:
    std::string content_;
    size_t start_, stop_;
};

class StripTextStage final : public DecoderStage {
  public:
    StripTextStage(std::string content, size_t start, size_t stop)
        : content_(std::move(content)), start_(start), stop_(stop) {}
    void add(const std::string& token, Strings& out) override {
        const size_t width = content_.size();
        size_t begin = 0;
        while (start_ > 0 && token.compare(begin, width, content_) == 0) {
            begin += width;
            --start_;
        }
        if (begin == token.size()) return;
        start_ = 0;  // the beginning of the text is over
        size_t end = token.size(), trailing = 0;
        while (trailing < stop_ && end - begin >= width &&
               token.compare(end - width, width, content_) == 0) {
            end -= width;
            ++trailing;
        }
        release(end > begin ? held_ : held_ - std::min(held_, stop_ - trailing), out);
        if (end > begin) out.push_back(token.substr(begin, end - begin));
        held_ += trailing;
    }

  private:
    void release(size_t count, Strings& out) {
        held_ -= count;
        for (; count > 0; --count) out.push_back(content_);
    }

    std::string content_;
    size_t start_, stop_;
    size_t held_ = 0;  ///< contents at the end so far, at most stop_
};

class MetaspaceStage final : public DecoderStage {
  public:
    MetaspaceStage(std::string mark, bool drop_first)
        : mark_(std::move(mark)), drop_first_(drop_first) {}
    void add(const std::string& token, Strings& out) override {
        std::string text;
        for (size_t at = 0; at < token.size();) {
            if (token.compare(at, mark_.size(), mark_) == 0) {
                if (at > 0 || !drop_first_) text += ' ';
                at += mark_.size();
            } else {
                text += token[at++];
            }
        }
        drop_first_ = false;
        out.push_back(std::move(text));
    }

  private:
    std::string mark_;
    bool drop_first_;
};

}  // namespace

std::unique_ptr<DecoderStage> make_join_stage() { return std::make_unique<JoinStage>(); }

std::unique_ptr<DecoderStage> make_byte_level_stage() { return std::make_unique<ByteLevelStage>(); }

std::unique_ptr<DecoderStage> make_byte_fallback_stage() {
    return std::make_unique<ByteFallbackStage>();
}

std::unique_ptr<DecoderStage> make_replace_stage(std::shared_ptr<const Pattern> pattern,
                                                 std::string content) {
    return std::make_unique<ReplaceStage>(std::move(pattern), std::move(content));
}

std::unique_ptr<DecoderStage> make_fuse_stage() { return std::make_unique<FuseStage>(); }

std::unique_ptr<DecoderStage> make_strip_stage(std::string content, size_t start, size_t stop) {
    return std::make_unique<StripStage>(std::move(content), start, stop);
}

std::unique_ptr<DecoderStage> make_strip_text_stage(std::string content, size_t start,
                                                    size_t stop) {
    return std::make_unique<StripTextStage>(std::move(content), start, stop);
}

std::unique_ptr<DecoderStage> make_metaspace_stage(std::string mark, bool drop_first) {
    return std::make_unique<MetaspaceStage>(std::move(mark), drop_first);
}

}  // namespace conclave::engine
