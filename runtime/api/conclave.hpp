// Conclave's public C++ interface: what the conclave command is written on, and any embedding
// program would be. Standard types only.
//
// Every rank of a communicator creates its Engine and calls the functions marked Collective in the
// same order. Rank 0 adds sequences and gets their tokens; the other ranks only follow:
//
//     conclave::Engine engine(options, conclave::Comm::self());    // Collective
//     if (engine.rank() != 0) return engine.follow();              // until rank 0 shuts down
//     auto id = engine.add({.prompt = ids, .max_tokens = 100});
//     while (engine.has_work())
//         for (const conclave::TokenOutput& t : engine.step()) use(t);
//     engine.shutdown();
//
// Errors are conclave::Error (runtime/base/error.h). The library never prints, exits or aborts;
// after an error on one rank, all ranks throw the same Error from the collective they are in.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/comm/transport.h"
#include "runtime/engine/types.h"

namespace conclave {

namespace comm {
class Communicator;
}

CONCLAVE_API const char* version();  ///< "0.1.0"

/// The ranks of an engine. A cheap copyable handle.
class CONCLAVE_API Comm {
  public:
    static Comm self();                         ///< one rank
    static std::vector<Comm> local(int ranks);  ///< N ranks as threads of this process
    explicit Comm(std::shared_ptr<comm::Communicator> impl);

    int rank() const;
    int size() const;
    /// Collective. Throws the same Error on all ranks if `error` is not null on any.
    void agree(const Error* error) const;
    const std::shared_ptr<comm::Communicator>& impl() const { return impl_; }

  private:
    std::shared_ptr<comm::Communicator> impl_;
};

/// Collective. Ranks that talk through the host's functions; by them they tell each other their
/// hosts' names here. Throws kUsage, and calls none, where one is missing.
CONCLAVE_API Comm comm_from_transport(Transport transport);

// ---- formats, kernels and readers from outside
// -----------------------------------------------------------------------------------------

struct PluginDirectory {
    std::string path;
    bool there = false, readable = false;
};

struct Plugins {
    std::vector<PluginDirectory> searched;  ///< as given
    std::vector<PluginReport> found;        ///< in order of directories, then of file names
    std::shared_ptr<const engine::Extensions> extensions;  ///< for EngineOptions
};

/// Loads every *.so of the directories (those that do not exist are passed over), in order; names
/// taken by an earlier plugin are refused. Each is tried in a child process first (by fork: call
/// this before MPI is initialised), so that what crashes or lies is refused with the reason. Not
/// for two threads at once. Plugins stay loaded until the process ends.
CONCLAVE_API Plugins load_plugins(const std::vector<std::string>& directories);

/// CONCLAVE_PLUGIN_PATH's directories, then those that belong to the running program: plugins
/// beside it (a build tree), ../lib/conclave/plugins (installed).
CONCLAVE_API std::vector<std::string> default_plugin_path();
/// The same for a program that embeds the library: CONCLAVE_PLUGIN_PATH's directories, then
/// conclave/plugins beside the library (beside the program that it is linked into).
CONCLAVE_API std::vector<std::string> embedded_plugin_path();
/// What `conclave plugins --json` writes, without a newline at the end.
CONCLAVE_API std::string to_json(const Plugins& plugins);

// ---- what a checkpoint is (safe on hostile files)
// ------------------------------------------------

struct EncodingBytes {
    std::string encoding;  ///< "bf16"
    int64_t tensors = 0;
    uint64_t bytes = 0;
};

struct ModelSummary {
    std::string path, architecture, model_type;
    bool supported = false;          ///< architecture, format and every tensor
    std::string unsupported_reason;  ///< why `run` would refuse
    std::string quantization;        ///< "none", or quant_method
    int64_t parameters = 0, layers = 0, hidden_size = 0, vocab_size = 0;
    int64_t experts = 0, experts_per_token = 0, moe_layers = 0;
    int64_t attention_heads = 0, kv_heads = 0, head_dim = 0, max_position_embeddings = 0;
    bool tokenizer = false;
    std::vector<std::pair<std::string, uint64_t>> files;  ///< name, bytes
    std::vector<EncodingBytes> encodings;  ///< of tensors, as files state their types
    std::vector<EncodingBytes> matrices;   ///< of logical matrices: "int4 g32"; bytes in memory
    /// Bytes by part: "embeddings", "attention", "experts", "dense mlp", "other".
    std::vector<std::pair<std::string, uint64_t>> parts;
    uint64_t bytes = 0;
};

/// From config.json and headers alone: of `options` the model, its load_format and extensions
/// matter. Without `weights` only the JSON files need be there.
CONCLAVE_API ModelSummary inspect(const EngineOptions& options, bool weights = true);
CONCLAVE_API ModelSummary inspect(const std::string& path, bool weights = true);
/// What `conclave inspect --json` writes, without a newline at the end.
CONCLAVE_API std::string to_json(const ModelSummary& model);

// ---- what running it would take
// ----------------------------------------------------------------------

struct RankPlan {
    int rank = 0;
    int64_t query_heads = 0, kv_heads = 0, experts = 0;
    int64_t expert_width = 0;  ///< intermediate channels of each expert held
    uint64_t weight_bytes = 0, kv_bytes = 0, read_bytes = 0;
    /// Part of read_bytes that is read only to be cut away: rows cut below 4 KiB.
    uint64_t stripe_bytes = 0;
};

struct KernelUse {
    std::string layer, kernel;          ///< "layers.*.mlp.experts.w13", "panel_bf16_avx512"
    std::string encoding, activations;  ///< "bf16", "bf16"
    int64_t layers = 0;                 ///< how many layers it stands for
    std::vector<std::string> refused;   ///< "panel_bf16_avx512bf16: this CPU lacks avx512bf16"
};

struct LoadPlan {
    std::string layout;         ///< "tensor parallel 2, experts 2x1 (TPxEP)"
    std::string layout_reason;  ///< why auto chose it
    std::string isa;
    std::vector<RankPlan> ranks;
    std::vector<KernelUse> kernels;
    std::vector<std::string> notices;  ///< "rank 3 holds no experts"
    int64_t gathers_per_layer = 0, reductions_per_layer = 0;
    uint64_t communication_bytes_per_token = 0;  ///< payload of one decoded token, on each rank
};

/// For `ranks` ranks, from config.json and headers alone; needs no ranks.
CONCLAVE_API LoadPlan plan(const EngineOptions& options, int ranks);
/// What `conclave plan --json` writes, without a newline at the end.
CONCLAVE_API std::string to_json(const LoadPlan& plan);

// ---- running it
// -----------------------------------------------------------------------------------------

/// Collective. Bytes per second that the threads of all ranks read together from memory in 2 MiB
/// pages, doing nothing else: the best of a few passes. The floor of decoding.
CONCLAVE_API double read_bandwidth(const EngineOptions& options, const Comm& comm);

/// Collective. Writes the model as a plain Hugging Face checkpoint; the files are the same bytes at
/// any number of ranks. `options` as for Engine; its progress and log are used.
CONCLAVE_API DequantizeReport dequantize(const EngineOptions& options, const DequantizeOptions& to,
                                         const Comm& comm);

class CONCLAVE_API Engine {
  public:
    /// Collective. Loads the model.
    Engine(const EngineOptions& options, const Comm& comm);
    ~Engine();
    Engine(Engine&&) noexcept;

    int rank() const;
    int size() const;
    const ModelSummary& model() const;      ///< what inspect() says without weights
    const LoadReport& load_report() const;  ///< rank 0
    /// One line: activations, ISA, threads, layout ("bf16 activations, avx512, 2 threads, ...").
    const std::string& description() const;
    int64_t max_model_len() const;
    int64_t vocab_size() const;
    EngineStats stats() const;

    // Rank 0. Throws kUsage for an empty or too long prompt or an id outside the vocabulary.
    SequenceId add(SequenceRequest request);
    void cancel(SequenceId id);
    bool has_work() const;

    /// Rank 0, while the other ranks follow: plans and runs one step.
    std::vector<TokenOutput> step();
    /// Other ranks: take part in steps until rank 0 shuts down.
    void follow();
    /// Other ranks: take part in one step of rank 0's; false if it shut down instead.
    bool follow_step();
    /// Rank 0: ends follow() on all ranks. The destructor of rank 0 does not do it.
    void shutdown();
    /// Not collective: this rank cannot go on, say because the host failed with a step's tokens.
    /// The next collective of every rank throws `error`.
    void fail(const Error& error) noexcept;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// ---- text
// -------------------------------------------------------------------------------------------------

class CONCLAVE_API TextStream {
  public:
    std::string add(int32_t id);  ///< the text that `id` completes; whole UTF-8 characters only
    std::string finish();         ///< what was held back
    /// A stop string came: it was not given out, nor will anything after it be.
    bool stopped() const;
    ~TextStream();
    TextStream(TextStream&&) noexcept;

  private:
    friend class Tokenizer;
    struct Impl;
    explicit TextStream(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

class CONCLAVE_API Tokenizer {
  public:
    /// The tokenizer.json of a model directory; nullopt where there is none.
    static std::optional<Tokenizer> open(const std::string& model);
    std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = true) const;
    std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = true) const;
    /// Up to the first of `stop`, which are at most 16 texts, none empty (kUsage). What may become
    /// one of them is held back.
    TextStream stream(bool skip_special_tokens = true, std::vector<std::string> stop = {}) const;
    int64_t vocab_size() const;

  private:
    struct Impl;
    std::shared_ptr<const Impl> impl_;
};

// ---- small tensors, for reference files
// ------------------------------------------------------------------

struct HostTensor {
    std::string dtype;  ///< "F32", "I64" ...
    std::vector<int64_t> shape;
    std::vector<std::byte> data;
};

/// Reads one tensor of a .safetensors file whole; nullopt if the file has no such tensor.
CONCLAVE_API std::optional<HostTensor> read_tensor(const std::string& file,
                                                   const std::string& name);

}  // namespace conclave
