// quantization_config and the tensors that go with it. The input is a JSON object: "config", and
// "tensors", which maps names to [dtype, shape] or [dtype, shape, numbers]: the first numbers of a
// small tensor, as int32 or int64; perhaps "metadata", names to texts. What a format describes must
// lie inside those tensors and decode, and rows must go through its rule for inputs.
#include <cstring>
#include <map>

#include "quant/dequantize.h"
#include "quant/quantization_config.h"
#include "quant/quantize_row.h"
#include "runtime/base/json.h"
#include "tests/fuzz/target.h"

using namespace conclave;

namespace {

constexpr int64_t kN = 64, kK = 96;
const char* const kFile = "config.json";

uint64_t element_bytes(const std::string& dtype) {
    if (dtype == "I64" || dtype == "F64") return 8;
    if (dtype == "I32" || dtype == "F32") return 4;
    return dtype == "BF16" || dtype == "F16" || dtype == "I16" ? 2 : 1;
}

class Tensors final : public quant::TensorLookup {
  public:
    Tensors(const Json& json, const Json& metadata) : metadata_(metadata) {
        for (const auto& [name, t] : json.items()) {
            if (!t.is_array() || t.size() < 2 || !t[0].is_string() || !t[1].is_array()) continue;
            Tensor tensor;
            tensor.header.dtype = t[0].get<std::string>();
            uint64_t elements = 1;
            for (const Json& d : t[1]) {
                if (!d.is_number_integer() || d < 0 || d > 4096) return;
                tensor.header.shape.push_back(d.get<int64_t>());
                elements *= d.get<uint64_t>();
                if (elements > (1 << 20)) return;  // larger than any that is asked for here
            }
            tensor.bytes.resize(elements * element_bytes(tensor.header.dtype));
            if (t.size() > 2 && t[2].is_array()) fill(t[2], tensor);
            all_[name] = std::move(tensor);
        }
    }
    std::optional<quant::TensorHeader> header(const std::string& name) const override {
        const auto at = all_.find(name);
        return at == all_.end() ? std::nullopt : std::optional(at->second.header);
    }
    std::vector<std::byte> read(const std::string& name, uint64_t max_bytes) const override {
        const auto at = all_.find(name);
        if (at == all_.end() || at->second.bytes.size() > max_bytes)
            throw Error(ErrorCode::kBadContent, "tensor is missing or too large").tensor(name);
        return at->second.bytes;
    }
    std::optional<std::string> metadata(const std::string& key) const override {
        const auto at = metadata_.find(key);
        if (at == metadata_.end() || !at->is_string()) return std::nullopt;
        return at->get<std::string>();
    }
    const std::vector<std::byte>& bytes(const std::string& name) const {
        const auto at = all_.find(name);
        CONCLAVE_CHECK(at != all_.end());
        return at->second.bytes;
    }

  private:
    struct Tensor {
        quant::TensorHeader header;
        std::vector<std::byte> bytes;
    };
    static void fill(const Json& numbers, Tensor& t) {
        const size_t width = element_bytes(t.header.dtype);
        for (size_t i = 0; i < numbers.size() && (i + 1) * width <= t.bytes.size(); ++i) {
            if (!numbers[i].is_number_integer()) return;
            const int64_t v = numbers[i].get<int64_t>();
            std::memcpy(t.bytes.data() + i * width, &v, width);
        }
    }
    std::map<std::string, Tensor> all_;
    const Json& metadata_;
};

/// Stages what rows n and columns k need, and nothing beside it, and decodes.
void decode(const quant::StoredMatrix& m, const Tensors& tensors, Interval n, Interval k) {
    std::vector<std::vector<std::byte>> staging;
    std::vector<quant::StagedRect> staged;
    for (size_t i = 0; i < m.pieces.size(); ++i) {
        const quant::StoredPiece& p = m.pieces[i];
        const std::vector<std::byte>& from = tensors.bytes(p.tensor);
        CONCLAVE_CHECK(static_cast<uint64_t>(p.rows * p.cols * p.element_bytes) == from.size());
        const quant::StoredRect r = m.codec->needs(m, i, n, k);
        CONCLAVE_CHECK(r.rows.begin >= 0 && r.rows.end <= p.rows && r.cols.begin >= 0 &&
                       r.cols.end <= p.cols && r.rows.begin <= r.rows.end);
        const int64_t width = r.cols.size() * p.element_bytes;
        staging.emplace_back(static_cast<size_t>(r.rows.size() * width));
        for (int64_t row = 0; row < r.rows.size(); ++row)
            std::memcpy(
                staging.back().data() + row * width,
                from.data() + ((r.rows.begin + row) * p.cols + r.cols.begin) * p.element_bytes,
                static_cast<size_t>(width));
        staged.push_back({r, staging.back().data(), width});
    }
    std::vector<std::byte> scratch(m.codec->scratch_bytes(m, n, k));
    const quant::CodeTile tile = m.codec->decode(m, n, k, staged, scratch.data());
    CONCLAVE_CHECK(tile.rows == n.size() && tile.cols == k.size());
    quant::MatrixLayout layout{k.size(), m.encoding, quant::local_grouping(m, k), m.global};
    if (layout.groups)
        for (const quant::Run& run : layout.groups->runs)
            CONCLAVE_CHECK(run.group >= tile.first_group);
    if (m.column_scale) {
        CONCLAVE_CHECK(static_cast<int64_t>(m.column_scale->size()) == kK);
        const auto first = m.column_scale->begin() + k.begin;
        layout.column_scale = std::make_shared<const std::vector<float>>(first, first + k.size());
    }
    std::vector<float> row(static_cast<size_t>(k.size()));
    const quant::RowDecoder decoder(layout);
    for (const int64_t r : {int64_t{0}, tile.rows - 1}) decoder.decode(tile, r, row.data());
    if (!m.activation || m.activation->scale_rule == quant::ScaleRule::kBlocks) return;
    const quant::VectorOps& ops = quant::vector_ops({});
    const quant::RowSpan span{k, kK};
    std::vector<float> statistics(
        static_cast<size_t>(quant::statistics_per_row(*m.activation, kK)));
    if (m.activation->dynamic())
        quant::row_statistics(*m.activation, row.data(), span, ops, statistics.data());
    quant::quantize_row(*m.activation, row.data(), span, statistics.data(), ops, row.data());
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz::attempt([&] {
        const Json input = parse_json(fuzz::text(data, size), {.file = kFile});
        if (!input.is_object() || !input.contains("config") || !input.contains("tensors")) return;
        const Json& config = input["config"];
        if (!config.is_object() || !input["tensors"].is_object()) return;
        static const auto registry = quant::QuantizationRegistry::built_in();
        static const Json none = Json::object();
        const bool described = input.contains("metadata") && input["metadata"].is_object();
        const Tensors tensors(input["tensors"], described ? input["metadata"] : none);
        const auto* format = registry.find(get_string(config, "quant_method", kFile));
        if (!format) return;
        const auto made = format->from_config(config, kFile);
        for (const char* stem : {"model.layers.0.self_attn.q_proj", "m", "experts"}) {
            quant::MatrixSource source;
            source.stem = stem;
            source.n = source.stored_n = kN;
            source.k = kK;
            if (source.stem == "experts")
                source.bare = true, source.lead = 1, source.lead_count = 3;
            fuzz::attempt([&] {
                const auto m = made->describe(source, tensors);
                if (!m) return;
                for (const auto& [n, k] : {std::pair<Interval, Interval>{{0, kN}, {0, kK}},
                                           {{16, 48}, {32, 96}},
                                           {{5, 6}, {31, 33}}})
                    decode(*m, tensors, n, k);
            });
        }
    });
}
