// What the files of a checkpoint say of themselves, by key: safetensors' __metadata__.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace conclave::sharding {

/// Keys and texts of one file, in little more memory than they take in it.
class Metadata {
  public:
    /// `key` and `text` together have less than 2^32 bytes, over all calls.
    void add(std::string_view key, std::string_view text);
    size_t size() const { return entries_.size(); }

    /// To be called after the last add() and before find(). Returns a key that was added twice.
    std::optional<std::string> seal();
    std::optional<std::string_view> find(std::string_view key) const;

  private:
    struct Entry {
        uint32_t at, key_bytes, text_bytes;  ///< the key begins at texts_[at], the text follows
    };
    std::string_view key_of(const Entry& e) const {
        return std::string_view(texts_).substr(e.at, e.key_bytes);
    }

    std::string texts_;
    std::vector<Entry> entries_;  ///< sorted by key, once sealed
};

}  // namespace conclave::sharding
