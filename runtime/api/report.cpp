// What inspect, plan and plugins know, as JSON.
#include <nlohmann/json.hpp>

#include "runtime/api/conclave.hpp"

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

/// Names come from files: what is not UTF-8 in them must not throw.
std::string dump(const Json& json) {
    return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string to_json(const ModelSummary& m) {
    Json json = {{"path", m.path},
                 {"architecture", m.architecture},
                 {"model_type", m.model_type},
                 {"supported", m.supported},
                 {"unsupported_reason", m.unsupported_reason},
                 {"quantization", m.quantization},
                 {"parameters", m.parameters},
                 {"bytes", m.bytes},
                 {"layers", m.layers},
                 {"moe_layers", m.moe_layers},
                 {"hidden_size", m.hidden_size},
                 {"vocab_size", m.vocab_size},
                 {"experts", m.experts},
                 {"experts_per_token", m.experts_per_token},
                 {"attention_heads", m.attention_heads},
                 {"kv_heads", m.kv_heads},
                 {"head_dim", m.head_dim},
                 {"max_position_embeddings", m.max_position_embeddings},
                 {"tokenizer", m.tokenizer}};
    json["encodings"] = Json::array();
    for (const EncodingBytes& e : m.encodings)
        json["encodings"].push_back(
            {{"encoding", e.encoding}, {"tensors", e.tensors}, {"bytes", e.bytes}});
    json["matrices"] = Json::array();
    for (const EncodingBytes& e : m.matrices)
        json["matrices"].push_back(
            {{"encoding", e.encoding}, {"matrices", e.tensors}, {"memory_bytes", e.bytes}});
    json["parts"] = Json::array();
    for (const auto& [part, bytes] : m.parts)
        json["parts"].push_back({{"part", part}, {"bytes", bytes}});
    json["files"] = Json::array();
    for (const auto& [name, bytes] : m.files)
        json["files"].push_back({{"name", name}, {"bytes", bytes}});
    return dump(json);
}

std::string to_json(const LoadPlan& p) {
    Json json = {{"layout", p.layout},
                 {"layout_reason", p.layout_reason},
                 {"isa", p.isa},
                 {"gathers_per_layer", p.gathers_per_layer},
                 {"reductions_per_layer", p.reductions_per_layer},
                 {"communication_bytes_per_token", p.communication_bytes_per_token},
                 {"notices", p.notices}};
    json["ranks"] = Json::array();
    for (const RankPlan& r : p.ranks)
        json["ranks"].push_back({{"rank", r.rank},
                                 {"query_heads", r.query_heads},
                                 {"kv_heads", r.kv_heads},
                                 {"experts", r.experts},
                                 {"expert_width", r.expert_width},
                                 {"weight_bytes", r.weight_bytes},
                                 {"kv_bytes", r.kv_bytes},
                                 {"read_bytes", r.read_bytes},
                                 {"stripe_bytes", r.stripe_bytes}});
    json["kernels"] = Json::array();
    for (const KernelUse& k : p.kernels)
        json["kernels"].push_back({{"layer", k.layer},
                                   {"layers", k.layers},
                                   {"kernel", k.kernel},
                                   {"encoding", k.encoding},
                                   {"activations", k.activations},
                                   {"refused", k.refused}});
    return dump(json);
}

std::string to_json(const Plugins& plugins) {
    Json json = {{"directories", Json::array()}, {"searched", Json::array()}};
    for (const PluginDirectory& d : plugins.searched) {
        json["directories"].push_back(d.path);
        json["searched"].push_back(
            {{"directory", d.path}, {"there", d.there}, {"readable", d.readable}});
    }
    json["plugins"] = Json::array();
    for (const PluginReport& p : plugins.found)
        json["plugins"].push_back({{"name", p.name},
                                   {"version", p.version},
                                   {"file", p.file},
                                   {"description", p.description},
                                   {"formats", p.formats},
                                   {"indexers", p.indexers},
                                   {"kernels", p.kernels},
                                   {"readers", p.readers},
                                   {"notes", p.notes},
                                   {"refusal", p.refusal}});
    return dump(json);
}

}  // namespace conclave
