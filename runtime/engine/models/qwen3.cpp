// Qwen3, dense: a norm on each head's q and k.
#include "runtime/engine/decoder.h"

namespace conclave::engine {
namespace {

ModelShape shape(const Json& c, const std::string& file) {
    ModelShape s = dense_shape(c, file);
    set_windows(s, c, file, [](int64_t i, int64_t from) { return i >= from; });
    return s;
}

std::unique_ptr<Model> build(const ModelShape& s, sharding::WeightBuilder& b) {
    return dense_decoder(s, b, [](const ModelShape& model, int64_t layer) {
        AttentionShape a = attention_shape(model, layer);
        a.qk_norm = QkNorm::kPerHead;
        return a;
    });
}

}  // namespace

Architecture qwen3() { return {"Qwen3ForCausalLM", "qwen3", shape, build, standard_ignorable()}; }

}  // namespace conclave::engine
