// What an embedding program says to an engine and gets from it: plain data, part of the public C++
// interface (runtime/api/conclave.hpp).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/log_level.h"

namespace conclave {

namespace engine {
struct Extensions;
}

/// Called from the thread that calls into the library, on every rank.
using LogCallback = std::function<void(LogLevel, std::string_view message)>;

/// How far loading is, summed over all ranks.
struct LoadProgress {
    uint64_t bytes = 0, total = 0;
    double seconds = 0;
    bool done = false;
};
/// Called on rank 0 only, from the thread that loads.
using ProgressCallback = std::function<void(const LoadProgress&)>;

struct EngineOptions {
    std::string model;                 ///< directory, or a .safetensors file
    std::string load_format = "auto";  ///< auto: what the files are; dummy: random weights; or a
                                       ///< reader's name: safetensors, ...
    std::string dummy_dtype = "bf16";  ///< of dummy weights: bf16, f16, f32
    std::string activations = "auto";  ///< auto, f32, bf16
    std::string expert_parallel = "auto";  ///< auto, tp, ep, or TPxEP such as 2x4
    int tensor_parallel_size = 0;          ///< 0: all ranks (the only other legal value: that)
    std::string quantization;              ///< empty: what the checkpoint says
    std::string kv_cache_dtype = "auto";   ///< auto, f32, f16, bf16; auto: f32 with f32 activations
    bool deterministic = false;
    int threads = 0;                       ///< of this rank; 0: CPUs / local ranks sharing them
    int64_t max_model_len = 0;             ///< tokens of one sequence; 0: what the model allows
    int64_t max_num_seqs = 16;             ///< sequences in one step
    int64_t max_num_batched_tokens = 512;  ///< tokens in one step; longer prompts go in chunks
    int64_t kv_cache_tokens = 0;           ///< tokens of KV held; 0: max_model_len
    int pretend_numa_nodes = 0;            ///< > 0: tests pretend a machine with so many nodes
    /// What plugins add (load_plugins()); null: what is built in. The same on all ranks.
    std::shared_ptr<const engine::Extensions> extensions;
    double deadline_seconds = 300;  ///< a collective that waits longer fails
    /// How long other ranks wait for rank 0's next step; <= 0: for ever, for it may be idle. Those
    /// whose rank 0 is never idle set it, or ranks cut off between two steps would not end.
    double idle_deadline_seconds = 0;
    LogCallback log;
    ProgressCallback progress;
    /// Asked about every 20 ms while loading, stepping and waiting, on the thread that does: true
    /// ends what is under way, on all ranks, with kCancelled.
    std::function<bool()> abort;
};

/// Engine::add() throws kUsage, naming the field, for values out of the ranges given here.
struct SamplingParams {
    double temperature = 0;  ///< at least 0; 0: greedy
    int64_t top_k = 0;       ///< at least 0; 0: all
    double top_p = 1;        ///< above 0, at most 1
    double min_p = 0;        ///< 0 to 1
    uint64_t seed = 0;
    /// What follows changes the model's logits, first of all and in this order.
    std::vector<std::pair<int32_t, double>> logit_bias = {};  ///< id, what is added: -100 to 100
    double repetition_penalty = 1;  ///< 0.01 to 100; of ids in prompt and output; 1: none
    double frequency_penalty = 0;   ///< -2 to 2; subtracted for each time an id was generated
    double presence_penalty = 0;    ///< -2 to 2; subtracted once from ids that were generated
};

struct SequenceRequest {
    std::vector<int32_t> prompt;
    int64_t max_tokens = 16;
    SamplingParams sampling;
    bool ignore_eos = false;
    /// Called on rank 0 for each prompt position, in order, with the V logits that follow it.
    std::function<void(int64_t position, std::span<const float> logits)> prompt_logits;
    /// The same for each generated position: the logits a token was chosen from, before bias and
    /// penalties.
    std::function<void(int64_t position, std::span<const float> logits)> output_logits;
};

using SequenceId = uint64_t;
enum class FinishReason { kNone, kStop, kLength, kCancelled };

struct TokenOutput {
    SequenceId sequence = 0;
    int32_t token =
        -1;  ///< -1: no token (a cancelled sequence, or a prompt scored with max_tokens 0)
    FinishReason finish = FinishReason::kNone;
};

struct LoadReport {
    uint64_t bytes = 0;  ///< needed by all ranks, as read
    double seconds = 0;
    int ranks = 1;
    int threads = 0;     ///< of rank 0
    std::string layout;  ///< "tensor parallel 4, experts 2x2 (TPxEP)"
};

/// A plugin file that was found: what it adds, or why it was refused.
struct PluginReport {
    std::string file, name, version, description;
    std::vector<std::string> formats, indexers, kernels, readers;  ///< their names
    std::vector<std::string> notes;  ///< kernels that this CPU cannot run
    std::string refusal;             ///< empty: loaded
};

/// What dequantize() writes, and how.
struct DequantizeOptions {
    std::string directory;                        ///< made where it is not there; must be empty
    std::string dtype = "f32";                    ///< f32, bf16
    uint64_t max_file_bytes = uint64_t{5} << 30;  ///< of tensors in one file
};

struct DequantizeReport {
    std::vector<std::string> files;
    int64_t tensors = 0;
    uint64_t bytes = 0;  ///< of tensors
    double seconds = 0;
};

/// Of this rank.
struct EngineStats {
    uint64_t resident_weight_bytes = 0, kv_bytes = 0;
    uint64_t load_bytes_requested = 0, load_bytes_needed = 0, load_stripe_bytes = 0;
    uint64_t offset_tables = 0;  ///< made by shard indexers; 0 where identity slicing sufficed
    uint64_t communication_bytes = 0, communication_nanoseconds = 0;
    uint64_t weight_bytes_read = 0;  ///< packed weights of the matrices that steps used
    uint64_t steps = 0;
    uint64_t step_sequences = 0;  ///< of the last step; 0: rank 0 had nothing to do
    uint64_t prompt_tokens = 0, generated_tokens = 0;
    double prefill_seconds = 0, decode_seconds = 0;  ///< steps with any prompt token / without
};

}  // namespace conclave
