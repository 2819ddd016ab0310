// The reference file of `conclave verify`.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace conclave::launch {

struct Reference {
    int64_t batch = 0, length = 0, vocab = 0;        ///< B, T; V is 0 where logits were not read
    std::vector<int32_t> input_ids;                  ///< [B,T]
    std::vector<float> logits;                       ///< [B,T,V]
    std::vector<int32_t> greedy_prompt, greedy_ids;  ///< both empty where the file has none
    std::vector<float> greedy_margin;                ///< as long as greedy_ids, or empty

    /// Tokens of the longest sequence.
    int64_t longest() const;
};

/// Throws kBadContent, naming tensor, expected and found, where the tensors do not fit together.
/// Without `with_logits` only the small tensors are read.
Reference read_reference(const std::string& file, bool with_logits);

}  // namespace conclave::launch
