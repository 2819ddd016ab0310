// Measures a program with llama.h (llama.cpp, ik_llama.cpp: then with -DIK) as `conclave bench`
// measures us: peer_bench MODEL THREADS PROMPT GENERATE REPETITIONS BATCH... prints one JSON
// object: seconds of loading, tokens/s of each repetition of a prompt and of generation by so many
// sequences. tests/bench/peers builds it. Tokens are random: those of the peers' own batched
// benchmark are all equal, so that all sequences of a batch choose the same experts.
#include <llama.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace {

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

/// Weights of its own instead of mapped files, which it could not repack. (The field has had two
/// names; 0 is LLAMA_LOAD_MODE_NONE.)
template <class Params>
void read_files(Params& p) {
    if constexpr (requires { p.use_mmap; })
        p.use_mmap = false;
    else
        p.load_mode = {};
}

struct Bench {
    llama_model* model = nullptr;
    int threads = 1, vocab = 0;
    std::mt19937 random{1};

    llama_context* context(int sequences, int positions) const {
        auto p = llama_context_default_params();
        p.n_ctx = sequences * positions;
        p.n_batch = p.n_ubatch = 512;
        p.n_seq_max = sequences;
        p.n_threads = p.n_threads_batch = threads;
#ifdef IK
        p.flash_attn = true;
        p.fused_moe_up_gate = true;
#endif
        llama_context* c = llama_init_from_model(model, p);
        if (!c) std::exit(1);
        return c;
    }
    void put(llama_batch& b, int sequence, int position, bool logits) {
        const int i = b.n_tokens++;
        b.token[i] = static_cast<llama_token>(random() % vocab);
        b.pos[i] = position;
        b.n_seq_id[i] = 1;
        b.seq_id[i][0] = sequence;
        b.logits[i] = logits;
    }
    static void run(llama_context* c, llama_batch& b) {
        if (llama_decode(c, b) != 0) std::exit(1);
        b.n_tokens = 0;
    }

    /// tokens/s; `prompt` tokens of one sequence, in batches of 512.
    double prompt(int tokens) {
        llama_context* c = context(1, tokens + 64);
        llama_batch b = llama_batch_init(512, 0, 1);
        const double begin = now();
        for (int t = 0; t < tokens; ++t) {
            put(b, 0, t, t + 1 == tokens);
            if (b.n_tokens == 512 || t + 1 == tokens) run(c, b);
        }
        llama_synchronize(c);
        const double took = now() - begin;
        llama_batch_free(b), llama_free(c);
        return tokens / took;
    }
    /// tokens/s of all sequences, after a first token of each.
    double generate(int sequences, int tokens) {
        llama_context* c = context(sequences, tokens + 64);
        llama_batch b = llama_batch_init(512, 0, 1);
        double begin = 0;
        for (int t = 0; t <= tokens; ++t) {
            if (t == 1) begin = now();
            for (int s = 0; s < sequences; ++s) put(b, s, t, true);
            run(c, b);
            llama_synchronize(c);
        }
        const double took = now() - begin;
        llama_batch_free(b), llama_free(c);
        return static_cast<double>(sequences) * tokens / took;
    }
};

}  // namespace

int main(int argc, char** argv) {
    if (argc < 6) {
        std::fprintf(stderr, "usage: %s MODEL THREADS PROMPT GENERATE REPETITIONS BATCH...\n",
                     argv[0]);
        return 2;
    }
    const int tokens = std::atoi(argv[3]), generated = std::atoi(argv[4]),
              runs = std::atoi(argv[5]);
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    llama_backend_init();
    auto p = llama_model_default_params();
    read_files(p);
#ifdef IK
    p.repack_tensors = true;
#endif
    Bench bench;
    bench.threads = std::atoi(argv[2]);
    const double begin = now();
    bench.model = llama_model_load_from_file(argv[1], p);
    const double load = now() - begin;
    if (!bench.model) return 1;
#ifdef IK
    bench.vocab = llama_n_vocab(bench.model);
#else
    bench.vocab = llama_vocab_n_tokens(llama_model_get_vocab(bench.model));
#endif
    std::string separator;
    std::printf("{\"load_seconds\": %.3f, \"samples_ts\": {", load);
    const auto measure = [&](const std::string& name, auto&& once) {
        once();
        std::printf("%s\"%s\": [", separator.c_str(), name.c_str());
        separator = ", ";
        for (int r = 0; r < runs; ++r) std::printf("%s%.3f", r ? ", " : "", once());
        std::printf("]");
    };
    if (tokens > 0) measure("pp" + std::to_string(tokens), [&] { return bench.prompt(tokens); });
    for (int a = 6; a < argc && generated > 0; ++a) {
        const int sequences = std::atoi(argv[a]);
        measure("tg" + std::to_string(generated) +
                    (sequences > 1 ? " x" + std::to_string(sequences) : ""),
                [&] { return bench.generate(sequences, generated); });
    }
    std::printf("}}\n");
}
