// bitsandbytes: 4-bit checkpoints (nf4, fp4, double quantization), whose blocks run over the
// flattened tensor, and int8 ones (LLM.int8). What is served and what is refused: config.h.
#include <bitsandbytes/codec4.h>
#include <bitsandbytes/config.h>
#include <bitsandbytes/flat_indexer.h>
#include <bitsandbytes/sample.h>
#include <conclave/plugin.h>

using namespace conclave;

namespace {

/// Codes, absmax and nested absmax of matrices of odd and of usual widths.
std::vector<quant::StoredPiece> examples() {
    std::vector<quant::StoredPiece> all;
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{7, 33}, {40, 96}, {96, 192}})
        for (const auto& [block, bytes] :
             {std::pair<int64_t, int>{2, 1}, {64, 4}, {64, 1}, {128, 4}, {64 * 256, 4}})
            all.push_back({quant::PieceRole::kCodes, "example", bytes, rows, cols,
                           bitsandbytes::FlatIndexer::kName, block});
    return all;
}

}  // namespace

CONCLAVE_PLUGIN("bitsandbytes", "1.0", "bitsandbytes checkpoints: nf4, fp4, LLM.int8") {
    const PluginHost& host = plugin.host();
    plugin.add_indexer(bitsandbytes::FlatIndexer::kName,
                       std::make_shared<const bitsandbytes::FlatIndexer>(), examples());
    quant::QuantizationFormat format;
    format.name = "bitsandbytes";
    format.from_config = [&host](const Json& config, const std::string& file) {
        return std::make_unique<bitsandbytes::Config>(host, config, file);
    };
    format.encodings = bitsandbytes::encodings(host);
    format.claims = bitsandbytes::claims;
    format.sample = bitsandbytes::sample;
    plugin.add_format(std::move(format));
}
