#include "runtime/engine/text/char_set_pattern.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace conclave::engine {
namespace {

struct CharRange {
    char32_t first, last;
};

class CharSetPattern final : public Pattern {
  public:
    CharSetPattern(std::vector<CharRange> set, bool space_first, bool repeat)
        : set_(std::move(set)), space_first_(space_first), repeat_(repeat) {
        std::sort(set_.begin(), set_.end(),
                  [](const CharRange& a, const CharRange& b) { return a.first < b.first; });
        // Ranges may overlap; contains() wants them apart.
        size_t kept = 0;
        for (const CharRange& range : set_) {
            if (kept > 0 && range.first <= set_[kept - 1].last) {
                set_[kept - 1].last = std::max(set_[kept - 1].last, range.last);
            } else {
                set_[kept++] = range;
            }
        }
        set_.resize(kept);
    }

    size_t match(const Chars& text, size_t at) const override {
        if (space_first_ && text.is(at, kSpace)) {
            if (const size_t end = run(text, at + 1)) return end;
        }
        return run(text, at);
    }

  private:
    bool contains(char32_t c) const {
        const auto range = std::lower_bound(
            set_.begin(), set_.end(), c, [](const CharRange& r, char32_t v) { return r.last < v; });
        return range != set_.end() && range->first <= c;
    }
    size_t run(const Chars& text, size_t begin) const {
        size_t end = begin;
        while (end < text.size() && contains(text.code[end])) {
            ++end;
            if (!repeat_) break;
        }
        return end > begin ? end : 0;
    }

    std::vector<CharRange> set_;
    bool space_first_, repeat_;
};

/// One character inside [ ]; nullopt for what only an expression engine would understand.
std::optional<char32_t> set_char(std::string_view text, size_t& at) {
    const char32_t c = next_char(text, at);
    if (c == '[' || (c == '&' && text.substr(at, 1) == "&")) return std::nullopt;
    if (c != '\\') return c;
    if (at >= text.size()) return std::nullopt;
    const char32_t escaped = next_char(text, at);
    if (escaped == 'r') return U'\r';
    if (escaped == 'n') return U'\n';
    if (escaped == 't') return U'\t';
    const std::u32string_view literal = U"\\][-^./";
    if (literal.find(escaped) == std::u32string_view::npos) return std::nullopt;
    return escaped;
}

}  // namespace

std::unique_ptr<const Pattern> make_char_set_pattern(std::string_view regex) {
    const bool space_first = regex.substr(0, 3) == "\\s?";
    if (space_first) regex.remove_prefix(3);
    const bool repeat = !regex.empty() && regex.back() == '+';
    if (repeat) regex.remove_suffix(1);
    if (regex.size() < 3 || regex.front() != '[' || regex.back() != ']') return nullptr;
    regex = regex.substr(1, regex.size() - 2);
    if (regex.front() == '^' || regex.front() == ']') return nullptr;

    std::vector<CharRange> set;
    for (size_t at = 0; at < regex.size();) {
        if (regex[at] == ']' || regex[at] == '-') return nullptr;
        const std::optional<char32_t> first = set_char(regex, at);
        if (!first) return nullptr;
        std::optional<char32_t> last = first;
        if (at < regex.size() && regex[at] == '-') {
            if (++at >= regex.size() || regex[at] == ']') return nullptr;
            last = set_char(regex, at);
        }
        if (!last || *last < *first) return nullptr;
        set.push_back({*first, *last});
    }
    return std::make_unique<CharSetPattern>(std::move(set), space_first, repeat);
}

}  // namespace conclave::engine
