// Qwen2 and Qwen2.5, dense: biases on q, k and v.
#include "runtime/engine/decoder.h"

namespace conclave::engine {
namespace {

ModelShape shape(const Json& c, const std::string& file) {
    ModelShape s = dense_shape(c, file);
    s.attention_bias = true;
    set_windows(s, c, file, [](int64_t i, int64_t from) { return i >= from; });
    return s;
}

std::unique_ptr<Model> build(const ModelShape& s, sharding::WeightBuilder& b) {
    return dense_decoder(s, b, [](const ModelShape& model, int64_t layer) {
        AttentionShape a = attention_shape(model, layer);
        a.output_bias = false;
        return a;
    });
}

}  // namespace

Architecture qwen2() { return {"Qwen2ForCausalLM", "qwen2", shape, build, standard_ignorable()}; }

}  // namespace conclave::engine
