// Llama (2, 3, 3.1 ...), dense: grouped-query attention, optional biases.
#include "runtime/engine/decoder.h"

namespace conclave::engine {
namespace {

ModelShape shape(const Json& c, const std::string& file) {
    ModelShape s = dense_shape(c, file);
    s.mlp_bias = get_bool_or(c, "mlp_bias", false, file);
    return s;
}

std::unique_ptr<Model> build(const ModelShape& s, sharding::WeightBuilder& b) {
    return dense_decoder(
        s, b, [](const ModelShape& model, int64_t layer) { return attention_shape(model, layer); });
}

}  // namespace

Architecture llama() { return {"LlamaForCausalLM", "llama", shape, build, standard_ignorable()}; }

}  // namespace conclave::engine
