// load [--layers L] [--runs R] [--threads T]: writes the bench shape's bf16 checkpoint with L
// layers (default 4: 2.6 GiB) to a temporary directory, and prints how fast it loads from page
// cache, as a share of the memory's read rate measured before each load. Medians of R runs (default
// 5).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/api/conclave.hpp"
#include "runtime/exec/slab.h"
#include "tests/support/temp_dir.h"

namespace {

using nlohmann::json;

struct Tensor {
    std::string name;
    std::vector<int64_t> shape;
    uint64_t bytes() const {
        uint64_t n = 2;
        for (int64_t d : shape) n *= static_cast<uint64_t>(d);
        return n;
    }
};

std::vector<Tensor> tensors_of(const json& c, int layers) {
    const int64_t h = c["hidden_size"], v = c["vocab_size"], d = c["head_dim"],
                  q = c["num_attention_heads"].get<int64_t>() * d,
                  kv = c["num_key_value_heads"].get<int64_t>() * d, w = c["moe_intermediate_size"],
                  experts = c["num_experts"];
    std::vector<Tensor> t = {{"model.embed_tokens.weight", {v, h}},
                             {"lm_head.weight", {v, h}},
                             {"model.norm.weight", {h}}};
    for (int l = 0; l < layers; ++l) {
        const std::string p = "model.layers." + std::to_string(l) + ".";
        t.push_back({p + "input_layernorm.weight", {h}});
        t.push_back({p + "post_attention_layernorm.weight", {h}});
        t.push_back({p + "self_attn.q_norm.weight", {d}});
        t.push_back({p + "self_attn.k_norm.weight", {d}});
        t.push_back({p + "self_attn.q_proj.weight", {q, h}});
        t.push_back({p + "self_attn.k_proj.weight", {kv, h}});
        t.push_back({p + "self_attn.v_proj.weight", {kv, h}});
        t.push_back({p + "self_attn.o_proj.weight", {h, q}});
        t.push_back({p + "mlp.gate.weight", {experts, h}});
        for (int64_t e = 0; e < experts; ++e) {
            const std::string x = p + "mlp.experts." + std::to_string(e) + ".";
            t.push_back({x + "gate_proj.weight", {w, h}});
            t.push_back({x + "up_proj.weight", {w, h}});
            t.push_back({x + "down_proj.weight", {h, w}});
        }
    }
    return t;
}

uint64_t write_checkpoint(const std::string& dir, json config, int layers) {
    config["num_hidden_layers"] = layers;
    std::ofstream(dir + "/config.json") << config.dump(1);
    const std::vector<Tensor> tensors = tensors_of(config, layers);
    json header;
    uint64_t at = 0;
    for (const Tensor& t : tensors) {
        header[t.name] = {
            {"dtype", "BF16"}, {"shape", t.shape}, {"data_offsets", {at, at + t.bytes()}}};
        at += t.bytes();
    }
    std::string text = header.dump();
    text.append((8 - text.size() % 8) % 8, ' ');
    std::ofstream out(dir + "/model.safetensors", std::ios::binary);
    const uint64_t length = text.size();
    out.write(reinterpret_cast<const char*>(&length), 8);
    out << text;
    std::mt19937_64 random(1);
    std::vector<uint64_t> chunk(1 << 17);
    // Small numbers of both signs: 0x3c.. and 0xbc.. are about +-0.01.
    for (uint64_t& x : chunk) x = (random() & 0x80ff80ff80ff80ffu) | 0x3c003c003c003c00u;
    for (uint64_t left = at; left > 0;) {
        const uint64_t n = std::min<uint64_t>(left, chunk.size() * 8);
        out.write(reinterpret_cast<const char*>(chunk.data()), static_cast<std::streamsize>(n));
        left -= n;
    }
    out.close();
    if (!out) throw std::runtime_error("cannot write " + dir + "/model.safetensors");
    return at;
}

/// Bytes per second at which the system hands out zeroed pages. The first round is not counted: on
/// a virtual machine, memory that the host must find first comes at a tenth of that speed, whoever
/// touches it; the second round, and the load that follows, get memory that was there a moment ago.
double zeroing_rate(uint64_t bytes, int threads) {
    double rate = 0;
    for (int round = 0; round < 2; ++round) {
        const conclave::exec::Slab slab(bytes);
        const auto begin = std::chrono::steady_clock::now();
        std::vector<std::thread> workers;
        for (int t = 0; t < threads; ++t)
            workers.emplace_back([&, t] {
                const uint64_t part = bytes / static_cast<uint64_t>(threads);
                for (uint64_t i = 0; i < part; i += 4096)
                    slab.data()[static_cast<uint64_t>(t) * part + i] = std::byte{1};
            });
        for (std::thread& w : workers) w.join();
        rate = static_cast<double>(bytes) /
               std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    }
    return rate;
}

double median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
    int layers = 4, runs = 5, threads = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string option = argv[i];
        int& value = option == "--layers" ? layers : option == "--runs" ? runs : threads;
        value = std::atoi(argv[i + 1]);
    }
    const conclave::testing::TempDir dir;
    std::ifstream in(CONCLAVE_SOURCE_DIR "/launch/examples/shapes/bench/config.json");
    const uint64_t bytes = write_checkpoint(dir.path(), json::parse(in), layers);
    conclave::EngineOptions options;
    options.model = dir.path();
    options.threads = threads;
    options.max_model_len = 32;
    std::vector<double> rates, shares;
    for (int i = 0; i < runs; ++i) {
        const double read = conclave::read_bandwidth(options, conclave::Comm::self());
        const double zeroing = zeroing_rate(
            bytes, threads > 0 ? threads : static_cast<int>(std::thread::hardware_concurrency()));
        conclave::Engine engine(options, conclave::Comm::self());
        const auto report = engine.load_report();
        const double rate = static_cast<double>(report.bytes) / report.seconds;
        std::printf("loaded %.2f GB in %.2f s: %.2f GB/s, %.0f %% of read", bytes / 1e9,
                    report.seconds, rate / 1e9, 100 * rate / read);
        std::printf(" (%.1f GB/s); zeroed pages come at %.1f GB/s\n", read / 1e9, zeroing / 1e9);
        std::fflush(stdout);
        rates.push_back(rate / 1e9);
        shares.push_back(100 * rate / read);
        engine.shutdown();
    }
    std::printf("median %.2f GB/s, %.0f %% of read\n", median(rates), median(shares));
    return 0;
}
