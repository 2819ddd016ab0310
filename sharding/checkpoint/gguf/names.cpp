#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "sharding/checkpoint/gguf/contents.h"

namespace conclave::sharding {
namespace {

using std::string_view;

constexpr int64_t kMaxExperts = 4096;
// Bounds memory: a stored tensor becomes one for each expert. Real models have up to some 200,000.
constexpr size_t kMaxTensors = 1 << 20;

constexpr std::array<string_view, 6> kArchitectures = {"llama", "qwen2",    "qwen2moe",
                                                       "qwen3", "qwen3moe", "olmoe"};

struct Renamed {
    string_view own, theirs;
};
constexpr Renamed kOutside[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
constexpr Renamed kInLayer[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"ffn_gate_shexp", "mlp.shared_expert.gate_proj"},
    {"ffn_up_shexp", "mlp.shared_expert.up_proj"},
    {"ffn_down_shexp", "mlp.shared_expert.down_proj"},
    {"ffn_gate_inp_shexp", "mlp.shared_expert_gate"},
};
/// The parts of a tensor with NVFP4's: a scale for each matrix.
constexpr Renamed kLeaves[] = {{"weight", "weight"},
                               {"bias", "bias"},
                               {"scale", "weight_scale_2"},
                               {"input_scale", "input_scale"}};

template <size_t n>
const Renamed* look_up(const Renamed (&table)[n], string_view own) {
    const auto at = std::find_if(std::begin(table), std::end(table),
                                 [&](const Renamed& r) { return r.own == own; });
    return at == std::end(table) ? nullptr : at;
}

bool is_scale(const Renamed& leaf) { return leaf.own == "scale" || leaf.own == "input_scale"; }

/// Digits as programs write a number: no zero in front.
bool is_number(string_view text) {
    return !text.empty() && text.size() < 10 && (text.size() == 1 || text[0] != '0') &&
           text.find_first_not_of("0123456789") == string_view::npos;
}

/// The text up to `separator`, which is taken off `rest` with it; all where there is none.
string_view take(string_view& rest, char separator) {
    const size_t at = rest.find(separator);
    const string_view first = rest.substr(0, at);
    rest = at == string_view::npos ? string_view() : rest.substr(at + 1);
    return first;
}

class Renamer {
  public:
    explicit Renamer(const GgufContents& contents) : contents_(contents) {
        const std::string architecture = contents.metadata.get_string("general.architecture");
        if (std::find(kArchitectures.begin(), kArchitectures.end(), architecture) ==
            kArchitectures.end())
            throw Error(ErrorCode::kUnsupported, "architecture of a GGUF file is not served")
                .file(contents.path)
                .expected(fmt::format("{}", fmt::join(kArchitectures, ", ")))
                .found(in_quotes(architecture));
        experts_key_ = architecture + ".expert_count";
        const int64_t experts = contents.metadata.get_int_or(experts_key_, 0, 0, kMaxExperts);
        is_permuted_ = architecture == "llama";
        is_mixtral_ = is_permuted_ && experts > 0;
    }

    std::vector<StoredTensor> rename() {
        tensors_.reserve(contents_.tensors.size());
        for (const GgufTensor& t : contents_.tensors)
            if (!add(t)) add(t, t.name, shape_of(t));
        std::sort(tensors_.begin(), tensors_.end(),
                  [](const auto& a, const auto& b) { return a.name < b.name; });
        const auto twice =
            std::adjacent_find(tensors_.begin(), tensors_.end(),
                               [](const auto& a, const auto& b) { return a.name == b.name; });
        if (twice != tensors_.end())
            throw Error(ErrorCode::kBadContent, "two tensors of a GGUF file stand for one")
                .file(contents_.path)
                .tensor(printable(twice->name, 200))
                .expected("each once")
                .found(twice->describe() + " and " + std::next(twice)->describe());
        return std::move(tensors_);
    }

  private:
    static std::vector<int64_t> shape_of(const GgufTensor& t) {
        return {t.dims.rbegin(), t.dims.rend()};
    }
    Error bad_shape(const GgufTensor& t, std::string expected) const {
        return std::move(
            Error(ErrorCode::kBadContent, "tensor has a shape that cannot be")
                .file(contents_.path)
                .tensor(printable(t.name))
                .expected(std::move(expected))
                .found(fmt::format("{} [{}]", stored_type_name(t.type), fmt::join(t.dims, ", "))));
    }

    void add(const GgufTensor& t, std::string name, std::vector<int64_t> shape) {
        push({std::move(name), t.type, std::move(shape), t.file, t.offset, t.bytes});
    }
    void push(StoredTensor tensor) {
        if (tensors_.size() == kMaxTensors)
            throw Error(ErrorCode::kBadContent, "GGUF file holds too many tensors")
                .file(contents_.path)
                .expected(fmt::format("at most {}, experts counted one by one", kMaxTensors))
                .found("more");
        tensors_.push_back(std::move(tensor));
    }

    /// Under the name or names that Hugging Face has for it; false where there is none.
    bool add(const GgufTensor& t) {
        const size_t dot = t.name.rfind('.');
        if (dot == std::string::npos) return false;
        const Renamed* leaf = look_up(kLeaves, string_view(t.name).substr(dot + 1));
        if (!leaf) return false;
        string_view rest = string_view(t.name).substr(0, dot);
        if (const Renamed* outside = look_up(kOutside, rest))
            return add_whole(t, std::string(outside->theirs), *leaf);
        if (take(rest, '.') != "blk") return false;
        const string_view layer = take(rest, '.');
        if (!is_number(layer)) return false;
        const std::string in_layer = fmt::format("model.layers.{}.", layer);
        if (const Renamed* module = look_up(kInLayer, rest))
            return add_whole(t, in_layer + std::string(module->theirs), *leaf);
        const std::string moe = in_layer + (is_mixtral_ ? "block_sparse_moe." : "mlp.");
        if (rest == "ffn_gate_inp") return add_whole(t, moe + "gate", *leaf);
        return add_experts(t, moe + "experts.", rest, *leaf);
    }

    bool add_whole(const GgufTensor& t, const std::string& module, const Renamed& leaf) {
        std::vector<int64_t> shape = shape_of(t);
        if (is_permuted_ && leaf.own == "bias" &&
            (module.ends_with(".q_proj") || module.ends_with(".k_proj")))
            throw Error(ErrorCode::kUnsupported,
                        "biases whose rows are permuted, as those of llama are, are not served")
                .file(contents_.path)
                .tensor(t.name);
        if (is_scale(leaf)) {
            if (shape.size() > 1 || (!shape.empty() && shape[0] != 1))
                throw bad_shape(t, "a scalar");
            shape = {1};
        } else if (leaf.own == "weight" && module.ends_with(".shared_expert_gate") &&
                   shape.size() == 1) {
            shape.insert(shape.begin(), 1);  // a vector in the file, a matrix of one row
        }
        add(t, fmt::format("{}.{}", module, leaf.theirs), std::move(shape));
        return true;
    }

    /// "gate", "up", "down" as the architecture has it; empty for others.
    string_view projection(string_view own) const {
        if (own == "gate") return is_mixtral_ ? "w1" : "gate_proj";
        if (own == "up") return is_mixtral_ ? "w3" : "up_proj";
        if (own == "down") return is_mixtral_ ? "w2" : "down_proj";
        return {};
    }

    bool add_experts(const GgufTensor& t, const std::string& experts, string_view module,
                     const Renamed& leaf) {
        if (!module.starts_with("ffn_")) return false;
        module.remove_prefix(4);
        if (module == "gate_up_exps") {
            add_slabs(t, experts, {projection("gate"), projection("up")}, leaf);
            return true;
        }
        if (module.ends_with("_exps")) {
            const string_view name = projection(module.substr(0, module.size() - 5));
            if (!name.empty()) add_slabs(t, experts, {name}, leaf);
            return !name.empty();
        }
        const string_view name = projection(take(module, '.'));
        if (name.empty() || !is_number(module)) return false;
        return add_whole(t, fmt::format("{}{}.{}", experts, module, name), leaf);
    }

    /// A tensor whose slowest extent counts experts: each one's slab, or its equal parts along the
    /// rows where it holds several projections.
    void add_slabs(const GgufTensor& t, const std::string& experts,
                   const std::vector<string_view>& names, const Renamed& leaf) {
        const int64_t count = contents_.metadata.get_int(experts_key_, 1, kMaxExperts);
        const size_t rank = leaf.own == "weight" ? 3 : leaf.own == "bias" ? 2 : 1;
        std::vector<int64_t> dims = t.dims;
        if (dims.size() < rank) dims.resize(rank, 1);  // tools leave out what is 1
        if (dims.size() != rank || dims.back() != count)
            throw bad_shape(
                t, fmt::format("{} extents, the last {} as \"{}\"", rank, count, experts_key_));
        const auto parts = static_cast<int64_t>(names.size());
        std::vector<int64_t> shape(std::next(dims.rbegin()), dims.rend());
        const bool is_shared = is_scale(leaf);  // one value for all projections
        if (is_shared) shape = {1};
        if (!is_shared && shape[0] % parts != 0)
            throw bad_shape(t, fmt::format("rows that are a multiple of {}", parts));
        if (!is_shared) shape[0] /= parts;
        const auto bytes = stored_bytes(t.type, shape);
        if (!bytes || *bytes == 0) throw bad_shape(t, "experts of whole blocks, not empty");
        const uint64_t slab = t.bytes / static_cast<uint64_t>(count);
        for (int64_t e = 0; e < count; ++e)
            for (size_t part = 0; part < names.size(); ++part)
                push({fmt::format("{}{}.{}.{}", experts, e, names[part], leaf.theirs), t.type,
                      shape, t.file,
                      t.offset + static_cast<uint64_t>(e) * slab + (is_shared ? 0 : part * *bytes),
                      *bytes});
    }

    const GgufContents& contents_;
    std::string experts_key_;
    bool is_mixtral_ = false, is_permuted_ = false;
    std::vector<StoredTensor> tensors_;
};

}  // namespace

const GgufTensor* GgufContents::find(std::string_view name) const {
    const auto at = std::find_if(tensors.begin(), tensors.end(),
                                 [&](const GgufTensor& t) { return t.name == name; });
    return at == tensors.end() ? nullptr : &*at;
}

std::vector<StoredTensor> hugging_face_tensors(const GgufContents& contents) {
    return Renamer(contents).rename();
}

}  // namespace conclave::sharding
