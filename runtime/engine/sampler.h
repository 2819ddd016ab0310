// How the next token is chosen from logits. Pure functions: the same on every rank count, because
// slices of the vocabulary merge exactly and the random numbers depend on the request alone.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/engine/types.h"

namespace conclave::engine {

/// Throws kUsage, naming the field: values out of the ranges of SamplingParams, ids of logit_bias
/// outside the vocabulary.
void validate(const SamplingParams& params, int64_t vocab_size);

/// Whether the logits themselves are changed, so that choosing takes all of them.
bool adjusts_logits(const SamplingParams& params);
/// Bias, then repetition, frequency and presence penalties, on the logits of the whole vocabulary.
/// Repetition: l / p where l > 0, else l * p, for ids in `prompt` or `output`.
void adjust_logits(std::span<float> logits, const SamplingParams& params,
                   std::span<const int32_t> prompt, std::span<const int32_t> output);

struct Candidate {
    int32_t id = -1;  ///< -1: nobody
    float logit = 0;
    bool operator==(const Candidate&) const = default;
};

/// The highest logit; ties go to the lowest id. NaN never wins: {-1, 0} if there is nothing else.
/// `logits[i]` belongs to id `first_id + i`, here and below.
Candidate argmax(std::span<const float> logits, int32_t first_id);
/// The same over the winners of slices, in any order.
Candidate argmax(std::span<const Candidate> candidates);

/// The k best of a slice of the vocabulary, by (logit descending, id ascending), without NaN; all
/// of them by id if k is 0.
std::vector<Candidate> top_candidates(std::span<const float> logits, int32_t first_id, int64_t k);

/// The k best of several slices: equal to top_candidates of the whole.
std::vector<Candidate> merge_candidates(std::span<const std::vector<Candidate>> slices, int64_t k);

/// Draws a token: temperature; the top_k best (exactly so many, ties by id); of these the fewest
/// whose probabilities sum to at least top_p; of these those with p >= min_p * p_max. `candidates`
/// is the whole vocabulary, or at least its top_k best, in any order. The draw is a function of
/// (candidates as a set, params, sequence_key, position). Throws kBadContent if every logit is
/// NaN or -inf.
int32_t sample(std::vector<Candidate> candidates, const SamplingParams& params,
               uint64_t sequence_key, int64_t position);

/// In [0, 1), 53 random bits: a hash of its arguments, with no state.
double uniform(uint64_t seed, uint64_t sequence_key, int64_t position);

}  // namespace conclave::engine
