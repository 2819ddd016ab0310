#include "sharding/checkpoint/metadata.h"

#include <algorithm>

namespace conclave::sharding {

void Metadata::add(std::string_view key, std::string_view text) {
    entries_.push_back({static_cast<uint32_t>(texts_.size()), static_cast<uint32_t>(key.size()),
                        static_cast<uint32_t>(text.size())});
    texts_.append(key).append(text);
}

std::optional<std::string> Metadata::seal() {
    texts_.shrink_to_fit();
    entries_.shrink_to_fit();
    std::sort(entries_.begin(), entries_.end(),
              [&](const Entry& a, const Entry& b) { return key_of(a) < key_of(b); });
    const auto twice =
        std::adjacent_find(entries_.begin(), entries_.end(),
                           [&](const Entry& a, const Entry& b) { return key_of(a) == key_of(b); });
    if (twice == entries_.end()) return std::nullopt;
    return std::string(key_of(*twice));
}

std::optional<std::string_view> Metadata::find(std::string_view key) const {
    const auto it =
        std::lower_bound(entries_.begin(), entries_.end(), key,
                         [&](const Entry& e, std::string_view k) { return key_of(e) < k; });
    if (it == entries_.end() || key_of(*it) != key) return std::nullopt;
    return std::string_view(texts_).substr(it->at + it->key_bytes, it->text_bytes);
}

}  // namespace conclave::sharding
