// Runs a model on N ranks as threads through the public interface, for tests.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "runtime/api/conclave.hpp"

namespace conclave::testing {

/// The first error of any rank is rethrown by run_ranks; errors[r] is null where rank r returned.
struct RankResult {
    std::vector<std::exception_ptr> errors;
};

/// body(rank's communicator) on each of `ranks` threads; nothing is rethrown.
inline RankResult on_ranks(int ranks, const std::function<void(const Comm&)>& body) {
    const std::vector<Comm> comms =
        ranks == 1 ? std::vector<Comm>{Comm::self()} : Comm::local(ranks);
    RankResult result{std::vector<std::exception_ptr>(comms.size())};
    std::vector<std::thread> threads;
    for (size_t r = 0; r < comms.size(); ++r)
        threads.emplace_back([&, r] {
            try {
                body(comms[r]);
            } catch (...) {
                result.errors[r] = std::current_exception();
            }
        });
    for (std::thread& t : threads) t.join();
    return result;
}

inline void rethrow(const RankResult& result) {
    for (const std::exception_ptr& e : result.errors)
        if (e) std::rethrow_exception(e);
}

/// Creates an engine on every rank; rank 0 runs `body(engine)` while the others follow.
inline void with_engine(int ranks, const EngineOptions& options,
                        const std::function<void(Engine&)>& body) {
    rethrow(on_ranks(ranks, [&](const Comm& comm) {
        Engine engine(options, comm);
        if (comm.rank() != 0) return engine.follow();
        body(engine);
        engine.shutdown();
    }));
}

/// Logits of every position of `prompt`, [tokens, V].
inline std::vector<float> score(Engine& engine, const std::vector<int32_t>& prompt) {
    std::vector<float> logits(prompt.size() * static_cast<size_t>(engine.vocab_size()), NAN);
    SequenceRequest request;
    request.prompt = prompt;
    request.max_tokens = 0;
    request.prompt_logits = [&](int64_t position, std::span<const float> row) {
        std::copy(row.begin(), row.end(),
                  logits.begin() + position * static_cast<int64_t>(row.size()));
    };
    engine.add(std::move(request));
    while (engine.has_work()) engine.step();
    return logits;
}

/// Greedy (or sampled) continuation.
inline std::vector<int32_t> generate(Engine& engine, const std::vector<int32_t>& prompt,
                                     int64_t tokens, const SamplingParams& sampling = {}) {
    SequenceRequest request;
    request.prompt = prompt;
    request.max_tokens = tokens;
    request.sampling = sampling;
    request.ignore_eos = true;
    engine.add(std::move(request));
    std::vector<int32_t> out;
    while (engine.has_work())
        for (const TokenOutput& t : engine.step())
            if (t.token >= 0) out.push_back(t.token);
    return out;
}

/// What belongs to a checkpoint's reference: MODEL/expected.KIND, or NAME.expected.KIND beside
/// NAME.gguf (of a split one NAME-00001-of-N.gguf).
inline std::string reference_file(const std::string& model, const std::string& kind) {
    if (!model.ends_with(".gguf")) return model + "/expected." + kind;
    std::string name = model.substr(0, model.size() - 5);
    if (const size_t part = name.find("-00001-of-"); part != std::string::npos) name.resize(part);
    return name + ".expected." + kind;
}

/// expected.safetensors of a checkpoint.
struct Reference {
    std::vector<std::vector<int32_t>> input_ids;  ///< [B][T]
    std::vector<float> logits;                    ///< [B, T, V]
    std::vector<int32_t> greedy_prompt, greedy_ids;
    std::vector<float> greedy_margin;

    explicit Reference(const std::string& file) {
        const auto ids = need(file, "input_ids");
        const std::vector<int32_t> flat = integers(ids);
        for (int64_t b = 0; b < ids.shape[0]; ++b)
            input_ids.emplace_back(flat.begin() + b * ids.shape[1],
                                   flat.begin() + (b + 1) * ids.shape[1]);
        logits = floats(need(file, "logits"));
        greedy_prompt = integers(need(file, "greedy_prompt"));
        greedy_ids = integers(need(file, "greedy_ids"));
        greedy_margin = floats(need(file, "greedy_margin"));
    }

    double deviation() const {
        double sum = 0, squares = 0;
        for (float v : logits) sum += v, squares += static_cast<double>(v) * v;
        const double n = static_cast<double>(logits.size());
        return std::sqrt(squares / n - sum / n * (sum / n));
    }

  private:
    static HostTensor need(const std::string& file, const char* name) {
        auto t = read_tensor(file, name);
        if (!t) throw std::runtime_error(file + " lacks " + name);
        return *std::move(t);
    }
    static std::vector<int32_t> integers(const HostTensor& t) {
        std::vector<int64_t> wide(t.data.size() / 8);
        std::memcpy(wide.data(), t.data.data(), t.data.size());
        return {wide.begin(), wide.end()};
    }
    static std::vector<float> floats(const HostTensor& t) {
        std::vector<float> v(t.data.size() / 4);
        std::memcpy(v.data(), t.data.data(), t.data.size());
        return v;
    }
};

/// Checkpoints with expected.safetensors: those committed, and the zoo's where it is there.
inline std::string fixture(const std::string& name) {
    return std::string(CONCLAVE_SOURCE_DIR) + "/tests/fixtures/" + name;
}
inline std::string shipped_model();

/// Every checkpoint here that has reference logits: one or more of each architecture.
inline std::vector<std::string> reference_models() {
    std::vector<std::string> all = {shipped_model()};
    for (const char* name : {"qwen3moe-odd", "qwen3moe-fused", "qwen2moe", "mixtral", "olmoe",
                             "llama", "qwen2", "qwen3"})
        all.push_back(fixture(name));
    return all;
}
/// Quantized checkpoints with expected.json and reference logits: one or more of each format.
inline std::vector<std::string> quantized_models() {
    std::vector<std::string> all = {shipped_model() + "-4bit"};
    for (const auto& entry : std::filesystem::directory_iterator(fixture("quantized")))
        all.push_back(entry.path().string());
    std::sort(all.begin(), all.end());
    return all;
}
inline bool is_mixture(const std::string& model) { return inspect(model).experts > 0; }

inline std::string shipped_model() {
    return std::string(CONCLAVE_SOURCE_DIR) + "/launch/examples/shakespeare";
}

}  // namespace conclave::testing
