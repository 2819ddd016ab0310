#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "runtime/base/text.h"
#include "sharding/checkpoint/gguf/documents.h"

namespace conclave::sharding {
namespace {

// Those of the engine: far beyond any model, products of three fit 64 bits.
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxExperts = 4096;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

struct Family {
    const char* gguf;          ///< general.architecture
    const char* architecture;  ///< Hugging Face's
    const char* model_type;
    bool experts;
    bool norm_topk;  ///< where the file does not say
};
constexpr std::array<Family, 7> kFamilies = {{
    {"llama", "LlamaForCausalLM", "llama", false, false},
    {"llama", "MixtralForCausalLM", "mixtral", true, true},
    {"qwen2", "Qwen2ForCausalLM", "qwen2", false, false},
    {"qwen2moe", "Qwen2MoeForCausalLM", "qwen2_moe", true, false},
    {"qwen3", "Qwen3ForCausalLM", "qwen3", false, false},
    {"qwen3moe", "Qwen3MoeForCausalLM", "qwen3_moe", true, true},
    {"olmoe", "OlmoeForCausalLM", "olmoe", true, false},
}};

class ConfigWriter {
  public:
    explicit ConfigWriter(const GgufContents& contents)
        : contents_(contents),
          m_(contents.metadata),
          prefix_(m_.get_string("general.architecture") + "."),
          family_(family()) {}

    Json write() {
        c_["architectures"] = {family_.architecture};
        c_["model_type"] = family_.model_type;
        c_["hidden_act"] = "silu";
        c_["quantization_config"] = {{"quant_method", "gguf"}};
        refuse_what_differs();
        sizes();
        heads();
        tokens();
        const bool bias = has_tensor("attn_q.bias");
        if (is("llama") || is("mixtral") || is("qwen3") || is("qwen3_moe"))
            c_["attention_bias"] = bias;
        if (is("llama")) c_["mlp_bias"] = has_tensor("ffn_up.bias");
        if (is("qwen2_moe")) c_["qkv_bias"] = bias;
        window();
        if (family_.experts) experts();
        return std::move(c_);
    }

  private:
    const Family& family() const {
        const std::string name = prefix_.substr(0, prefix_.size() - 1);
        const bool experts = m_.get_int_or(prefix_ + "expert_count", 0, 0, kMaxExperts) > 0;
        const auto named = [&](const Family& f) { return f.gguf == name; };
        const auto found = std::find_if(kFamilies.begin(), kFamilies.end(), [&](const Family& f) {
            return named(f) && f.experts == experts;
        });
        if (found != kFamilies.end()) return *found;
        if (std::any_of(kFamilies.begin(), kFamilies.end(), named))
            throw Error(ErrorCode::kBadContent, "metadata key '" + prefix_ + "expert_count'")
                .file(contents_.path)
                .expected(experts ? "0" : "at least 1")
                .found(experts ? "experts" : "none");
        std::string known;
        for (const Family& f : kFamilies)
            if (known.find(f.gguf) == std::string::npos)
                known += (known.empty() ? "" : ", ") + std::string(f.gguf);
        throw Error(ErrorCode::kUnsupported, "general.architecture is not served")
            .file(contents_.path)
            .expected(known)
            .found(printable(name, 64));
    }

    bool is(const char* model_type) const { return family_.model_type == std::string(model_type); }
    std::string key(const char* name) const { return prefix_ + name; }
    bool has(const char* name) const { return m_.has(key(name)); }
    bool has_tensor(const char* of_block) const {
        return contents_.find("blk.0." + std::string(of_block)) != nullptr;
    }
    [[noreturn]] void unsupported(const char* name, std::string expected, std::string found) const {
        throw Error(ErrorCode::kUnsupported, "metadata key '" + key(name) + "' is not served so")
            .file(contents_.path)
            .expected(std::move(expected))
            .found(std::move(found));
    }

    int64_t get(const char* name, int64_t max) const { return m_.get_int(key(name), 1, max); }

    /// A number, or a list with the same number for every layer.
    int64_t uniform(const char* name, int64_t max) const {
        if (!m_.is_array(key(name))) return get(name, max);
        const auto values = m_.get_ints(key(name), 1, max, kMaxLayers);
        const auto layers = static_cast<size_t>(get("block_count", kMaxLayers));
        if (values.size() != layers)
            throw Error(ErrorCode::kBadContent, "metadata key '" + key(name) + "' is wrong")
                .file(contents_.path)
                .expected("a value for each of " + std::to_string(layers) + " layers")
                .found(std::to_string(values.size()));
        const auto [least, most] = std::minmax_element(values.begin(), values.end());
        if (*least != *most)
            unsupported(name, "the same in all layers",
                        std::to_string(*least) + " to " + std::to_string(*most));
        return *least;
    }

    /// Traits that other runtimes give an architecture on demand, and that no config.json of it
    /// has.
    void refuse_what_differs() const {
        const int64_t gating = m_.get_int_or(key("expert_gating_func"), 1, 0, 255);
        if (gating > 1) unsupported("expert_gating_func", "1, softmax", std::to_string(gating));
        const double scale = m_.get_float_or(key("expert_weights_scale"), 1, -1e30, 1e30);
        if (scale != 1 && scale != 0)
            unsupported("expert_weights_scale", "1", std::to_string(scale));
        const int64_t groups = m_.get_int_or(key("expert_group_count"), 1, 0, kMaxExperts);
        if (groups > 1) unsupported("expert_group_count", "1", std::to_string(groups));
        if (!m_.get_bool_or(key("attention.causal"), true))
            unsupported("attention.causal", "true", "false");
    }

    void sizes() {
        const int64_t hidden = get("embedding_length", kMaxWidth);
        c_["hidden_size"] = hidden;
        c_["num_hidden_layers"] = get("block_count", kMaxLayers);
        c_["max_position_embeddings"] = get("context_length", kMaxPositions);
        c_["rms_norm_eps"] =
            gguf_shortest(m_.get_float(key("attention.layer_norm_rms_epsilon"), 0, 1));
        // Of layers without experts, which those may not have.
        if (!(is("qwen2_moe") || is("qwen3_moe")) || has("feed_forward_length"))
            c_["intermediate_size"] = uniform("feed_forward_length", kMaxWidth);
        c_["vocab_size"] = gguf_vocab_size(contents_);
        const int64_t width = contents_.find("token_embd.weight")->dims[0];
        if (width != hidden)
            throw Error(ErrorCode::kBadContent, "tensor has the wrong shape")
                .file(contents_.path)
                .tensor("token_embd.weight")
                .expected("rows of " + std::to_string(hidden) + ", " + key("embedding_length"))
                .found(std::to_string(width));
        c_["tie_word_embeddings"] = contents_.find("output.weight") == nullptr;
    }

    void heads() {
        const int64_t heads = uniform("attention.head_count", kMaxLayers);
        const int64_t kv_heads =
            has("attention.head_count_kv") ? uniform("attention.head_count_kv", heads) : heads;
        const int64_t head_dim = this->head_dim(heads);
        c_["num_attention_heads"] = heads;
        c_["num_key_value_heads"] = kv_heads;
        c_["head_dim"] = head_dim;
        // The file's rows of q and k are in the order of its rotary embedding, which turns
        // neighbours; Hugging Face's turns halves.
        if (prefix_ == "llama.") c_["quantization_config"]["permuted_head_dim"] = head_dim;
        const double theta =
            gguf_shortest(m_.get_float_or(key("rope.freq_base"), 10000, 1e-3, 1e12));
        c_["rope_theta"] = theta;
        c_["rope_scaling"] =
            gguf_rope_scaling(contents_, prefix_.substr(0, prefix_.size() - 1), theta, head_dim);
    }

    int64_t head_dim(int64_t heads) const {
        const auto hidden = c_["hidden_size"].get<int64_t>();
        if (!has("attention.key_length") && hidden % heads)
            throw Error(ErrorCode::kBadContent, "heads do not divide the hidden size")
                .file(contents_.path)
                .expected("a divisor of " + std::to_string(hidden) + ", or the key " +
                          key("attention.key_length"))
                .found(std::to_string(heads));
        const int64_t head_dim =
            m_.get_int_or(key("attention.key_length"), hidden / heads, 1, 4096);
        for (const char* name : {"attention.value_length", "rope.dimension_count"}) {
            const int64_t other = m_.get_int_or(key(name), head_dim, 1, 4096);
            if (other != head_dim)
                unsupported(name, std::to_string(head_dim) + ", as the heads are wide",
                            std::to_string(other));
        }
        return head_dim;
    }

    void tokens() {
        for (const auto& [ours, theirs] :
             {std::pair<const char*, const char*>{"bos_token_id", "bos"},
              {"eos_token_id", "eos"},
              {"pad_token_id", "padding"}})
            if (const auto id = gguf_token_id(contents_, theirs)) c_[ours] = *id;
    }

    void window() {
        const int64_t window = m_.get_int_or(key("attention.sliding_window"), 0, 0, UINT32_MAX);
        const bool slides = window > 0 && window < c_["max_position_embeddings"].get<int64_t>();
        if (is("mixtral")) {
            c_["sliding_window"] = slides ? Json(window) : Json();
        } else if (slides) {
            unsupported("attention.sliding_window", "none", std::to_string(window));
        }
    }

    void experts() {
        const int64_t count = get("expert_count", kMaxExperts);
        c_[is("mixtral") ? "num_local_experts" : "num_experts"] = count;
        c_["num_experts_per_tok"] = get("expert_used_count", count);
        const bool norm = m_.get_bool_or(key("expert_weights_norm"), family_.norm_topk);
        if (is("mixtral")) {
            if (!norm) unsupported("expert_weights_norm", "true", "false");
            return;
        }
        c_["norm_topk_prob"] = norm;
        if (is("olmoe")) {
            if (has("attention.clamp_kqv"))
                c_["clip_qkv"] = gguf_shortest(m_.get_float(key("attention.clamp_kqv"), 0, 1e30));
            return;
        }
        const std::vector<bool> routed = routed_layers();
        c_["decoder_sparse_step"] = 1;
        c_["mlp_only_layers"] = Json::array();
        for (size_t i = 0; i < routed.size(); ++i)
            if (!routed[i]) c_["mlp_only_layers"].push_back(i);
        const auto first = std::find(routed.begin(), routed.end(), true) - routed.begin();
        c_["moe_intermediate_size"] =
            width("expert_feed_forward_length", "ffn_down_exps.weight", first);
        if (is("qwen2_moe"))
            c_["shared_expert_intermediate_size"] =
                width("expert_shared_feed_forward_length", "ffn_down_shexp.weight", first);
    }

    /// The key's value, or where it is absent the length of the tensor's rows.
    int64_t width(const char* name, const char* tensor, int64_t layer) const {
        const GgufTensor* down =
            has(name) ? nullptr : contents_.find("blk." + std::to_string(layer) + "." + tensor);
        if (!down || down->dims.empty()) return get(name, kMaxWidth);
        return down->dims[0];
    }

    /// Layers that have a router.
    std::vector<bool> routed_layers() const {
        std::vector<bool> routed(c_["num_hidden_layers"].get<size_t>());
        constexpr std::string_view kBegin = "blk.", kEnd = ".ffn_gate_inp.weight";
        for (const GgufTensor& t : contents_.tensors) {
            const std::string_view name = t.name;
            if (name.size() <= kBegin.size() + kEnd.size() || !name.starts_with(kBegin) ||
                !name.ends_with(kEnd))
                continue;
            size_t layer = routed.size();
            std::from_chars(name.data() + kBegin.size(), name.data() + name.size() - kEnd.size(),
                            layer);
            if (layer < routed.size()) routed[layer] = true;
        }
        return routed;
    }

    const GgufContents& contents_;
    const GgufMetadata& m_;
    const std::string prefix_;  ///< "llama."
    const Family& family_;
    Json c_ = Json::object();
};

}  // namespace

Json gguf_config(const GgufContents& contents) { return ConfigWriter(contents).write(); }

}  // namespace conclave::sharding
