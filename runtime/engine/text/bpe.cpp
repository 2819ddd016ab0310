#include "runtime/engine/text/bpe.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "runtime/engine/text/unicode.h"

namespace conclave::engine {
namespace {

constexpr uint32_t kNowhere = UINT32_MAX;
// Code points looked up in an array: covers ASCII, Latin and the alphabet of ByteLevel.
constexpr char32_t kShortChars = 0x800;

Error bad(const std::string& message, const std::string& file) {
    return Error(ErrorCode::kBadContent, message).file(file);
}

void refuse_option(const Json& model, const char* key, const std::string& file) {
    const Json* value = find_json(model, key, file);
    if (!value || (value->is_string() && value->get_ref<const std::string&>().empty())) return;
    if (value->is_number() && value->get<double>() == 0) return;
    throw Error(ErrorCode::kUnsupported,
                std::string("tokenizer model option ") + key + " is not served")
        .file(file)
        .found(describe_json(*value));
}

/// The two halves of "a b" or ["a", "b"].
std::pair<std::string_view, std::string_view> halves(const Json& merge, const std::string& where,
                                                     const std::string& file) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
    }
    if (merge.is_string()) {
        const std::string_view text = merge.get_ref<const std::string&>();
        const size_t space = text.find(' ');
        if (space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos)
            return {text.substr(0, space), text.substr(space + 1)};
    }
    throw bad(where + " is not a pair of tokens", file)
        .expected("\"a b\" or [\"a\", \"b\"]")
        .found(describe_json(merge));
}

bool is_version_line(const Json& merge) {
    return merge.is_string() && merge.get_ref<const std::string&>().rfind("#version", 0) == 0;
}

struct PairMerge {
    TokenId left, right;
    uint32_t rank;
    TokenId id;
};

/// Sorts by pair; of a pair named twice the last one counts.
void sort_and_deduplicate(std::vector<PairMerge>& merges) {
    std::sort(merges.begin(), merges.end(), [](const PairMerge& a, const PairMerge& b) {
        if (a.left != b.left) return a.left < b.left;
        if (a.right != b.right) return a.right < b.right;
        return a.rank > b.rank;
    });
    const auto end =
        std::unique(merges.begin(), merges.end(), [](const PairMerge& a, const PairMerge& b) {
            return a.left == b.left && a.right == b.right;
        });
    merges.erase(end, merges.end());
}

}  // namespace

Bpe::Bpe(const Json& model, const std::string& file) {
    const std::string type = get_string_or(model, "type", "BPE", file);
    if (type != "BPE") {
        throw Error(ErrorCode::kUnsupported,
                    "tokenizer model " + in_quotes(type) + " is not served")
            .file(file)
            .expected("BPE");
    }
    for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
        refuse_option(model, key, file);
    }
    ignore_merges_ = get_bool_or(model, "ignore_merges", false, file);
    read_vocab(model, file);
    read_merges(model, file);
    read_unknown(model, file);
}

void Bpe::read_vocab(const Json& model, const std::string& file) {
    const Json& vocab = get_object(model, "vocab", file);
    if (vocab.empty()) throw bad("model.vocab is empty", file);
    int64_t size = 0;
    for (const auto& [token, id] : vocab.items()) {
        const std::string what = "model.vocab[" + in_quotes(token) + "]";
        size = std::max(size, as_int(id, what, 0, kMaxTokenIds - 1, file) + 1);
    }
    tokens_.resize(static_cast<size_t>(size));
    ids_.reserve(vocab.size());
    std::vector<bool> taken(tokens_.size());
    for (const auto& [token, json_id] : vocab.items()) {
        const auto id = json_id.get<size_t>();
        if (taken[id]) {
            throw bad("model.vocab gives id " + std::to_string(id) + " twice", file)
                .found(in_quotes(tokens_[id]) + " and " + in_quotes(token));
        }
        taken[id] = true;
        tokens_[id] = token;
        ids_.emplace(tokens_[id], static_cast<TokenId>(id));
    }
    short_chars_.assign(kShortChars, kNoToken);
    for (char32_t c = 0; c < kShortChars; ++c) {
        std::string text;
        append_utf8(text, c);
        short_chars_[c] = find(text);
    }
}

void Bpe::read_merges(const Json& model, const std::string& file) {
    const Json& list = get_array(model, "merges", file);
    std::vector<PairMerge> merges;
    merges.reserve(list.size());
    std::string joined;
    for (size_t i = 0; i < list.size(); ++i) {
        if (is_version_line(list[i])) continue;
        const std::string where = "model.merges[" + std::to_string(i) + "]";
        const auto [a, b] = halves(list[i], where, file);
        joined.assign(a).append(b);
        const PairMerge merge{find(a), find(b), static_cast<uint32_t>(merges.size()), find(joined)};
        for (const auto& [id, text] : {std::pair<TokenId, std::string_view>{merge.left, a},
                                       {merge.right, b},
                                       {merge.id, joined}}) {
            if (id == kNoToken) {
                throw bad(where + " names a token that model.vocab lacks", file)
                    .found(in_quotes(text));
            }
        }
        merges.push_back(merge);
    }
    sort_and_deduplicate(merges);
    first_merge_.assign(tokens_.size() + 1, 0);
    for (const PairMerge& m : merges) ++first_merge_[static_cast<size_t>(m.left) + 1];
    for (size_t i = 1; i < first_merge_.size(); ++i) first_merge_[i] += first_merge_[i - 1];
    merges_.reserve(merges.size());
    for (const PairMerge& m : merges) {
        merges_.push_back({static_cast<uint32_t>(m.right), m.rank, m.id});
    }
}

void Bpe::read_unknown(const Json& model, const std::string& file) {
    fuse_unknown_ = get_bool_or(model, "fuse_unk", false, file);
    byte_fallback_ = get_bool_or(model, "byte_fallback", false, file);
    byte_tokens_.fill(kNoToken);
    for (size_t byte = 0; byte_fallback_ && byte < byte_tokens_.size(); ++byte) {
        char name[7];
        std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte));
        byte_tokens_[byte] = find(name);
    }
    if (!find_json(model, "unk_token", file)) return;
    const std::string unknown = get_string(model, "unk_token", file);
    unknown_ = find(unknown);
    if (unknown_ == kNoToken) {
        throw bad("model.unk_token is not in model.vocab", file).found(in_quotes(unknown));
    }
}

TokenId Bpe::find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? kNoToken : found->second;
}

/// The bytes of `character` as tokens, if each has one.
bool Bpe::fall_back(std::string_view character, std::vector<Scratch::Symbol>& symbols) const {
    if (!byte_fallback_) return false;
    const size_t before = symbols.size();
    for (const char c : character) {
        const TokenId id = byte_tokens_[static_cast<unsigned char>(c)];
        if (id == kNoToken) {
            symbols.resize(before);
            return false;
        }
        symbols.push_back({id, 0, 0});
    }
    return true;
}

void Bpe::split(std::string_view word, std::vector<Scratch::Symbol>& symbols) const {
    symbols.clear();
    bool pending = false;  // an unknown character not yet written
    const auto flush = [&] {
        if (pending) symbols.push_back({unknown_, 0, 0});
        pending = false;
    };
    for (size_t at = 0; at < word.size();) {
        const size_t begin = at;
        const char32_t c = next_char(word, at);
        const std::string_view character = word.substr(begin, at - begin);
        const TokenId id = c < kShortChars ? short_chars_[c] : find(character);
        if (id != kNoToken) {
            flush();
            symbols.push_back({id, 0, 0});
        } else if (!fall_back(character, symbols) && unknown_ != kNoToken) {
            if (!fuse_unknown_) flush();
            pending = true;
        }
    }
    flush();
    const auto n = static_cast<uint32_t>(symbols.size());
    for (uint32_t i = 0; i < n; ++i) {
        symbols[i].left = i > 0 ? i - 1 : kNowhere;
        symbols[i].right = i + 1 < n ? i + 1 : kNowhere;
    }
}

const Bpe::Merge* Bpe::find_merge(TokenId left, TokenId right) const {
    const Merge* first = merges_.data() + first_merge_[static_cast<size_t>(left)];
    const Merge* last = merges_.data() + first_merge_[static_cast<size_t>(left) + 1];
    const auto wanted = static_cast<uint32_t>(right);
    const Merge* found = std::lower_bound(
        first, last, wanted, [](const Merge& m, uint32_t value) { return m.right < value; });
    return found != last && found->right == wanted ? found : nullptr;
}

namespace {

// std heaps keep the largest on top; the lowest order is wanted.
bool later(const Bpe::Scratch::Candidate& a, const Bpe::Scratch::Candidate& b) {
    return a.order > b.order;
}

}  // namespace

void Bpe::offer(uint32_t left, Scratch& scratch) const {
    if (left == kNowhere) return;
    const auto& symbols = scratch.symbols;
    const uint32_t right = symbols[left].right;
    if (right == kNowhere) return;
    if (const Merge* merge = find_merge(symbols[left].id, symbols[right].id)) {
        scratch.heap.push_back(
            {uint64_t{merge->rank} << 32 | left, symbols[left].id, symbols[right].id});
        std::push_heap(scratch.heap.begin(), scratch.heap.end(), later);
    }
}

void Bpe::merge_all(Scratch& scratch) const {
    auto& [symbols, heap] = scratch;
    heap.clear();
    for (uint32_t i = 0; i < symbols.size(); ++i) offer(i, scratch);
    while (!heap.empty()) {
        std::pop_heap(heap.begin(), heap.end(), later);
        const Scratch::Candidate best = heap.back();
        heap.pop_back();
        const auto at = static_cast<uint32_t>(best.order);
        // Stale where either side has since become part of another merge.
        const uint32_t right = symbols[at].right;
        if (symbols[at].id != best.left || right == kNowhere || symbols[right].id != best.right) {
            continue;
        }
        symbols[at].id = find_merge(best.left, best.right)->id;
        symbols[right].id = kNoToken;
        symbols[at].right = symbols[right].right;
        if (symbols[at].right != kNowhere) symbols[symbols[at].right].left = at;
        offer(symbols[at].left, scratch);
        offer(at, scratch);
    }
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<TokenId>& out) const {
    if (ignore_merges_) {
        if (const TokenId whole = find(word); whole != kNoToken) {
            out.push_back(whole);
            return;
        }
    }
    split(word, scratch.symbols);
    merge_all(scratch);
    for (const Scratch::Symbol& s : scratch.symbols) {
        if (s.id != kNoToken) out.push_back(s.id);
    }
}

}  // namespace conclave::engine
