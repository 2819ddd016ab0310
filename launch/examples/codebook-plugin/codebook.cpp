// codebook16: a quantization format that Conclave learns from this plugin. A weight is one of 16
// levels, which the whole checkpoint shares, times the scale of its group of columns:
//
//     W[row][col] = levels[code(row, col)] * scale(row, col / group_size)       rounded to f32
//
//     STEM.codes    U8  [n, ceil(k / 2)]           two codes a byte, even columns in the low half
//     STEM.scales   F16 [n, ceil(k / group_size)]
//     config.json   "quantization_config":
//                   {"quant_method": "codebook16", "group_size": 32, "levels": [16 numbers]}
#include <conclave/plugin.h>

#include <algorithm>
#include <cstring>
#include <random>

namespace {

using namespace conclave;
using namespace conclave::quant;

enum Piece : size_t { kCodes, kScales };  // in the order of StoredMatrix::pieces

float scale_at(const std::byte* at) {
    uint16_t half;
    std::memcpy(&half, at, 2);
    return f16_to_f32(half);
}

/// Reads what Config describes. Rows are whole bytes, so the loader's own slicing serves: no
/// shard indexer is needed.
class Codebook16Codec final : public Codec {
  public:
    const char* name() const override { return "codebook16"; }

    StoredRect needs(const StoredMatrix& m, size_t piece, Interval n, Interval k) const override {
        const int64_t columns = piece == kCodes ? 2 : m.encoding.group;  // that share an element
        const Interval cols = {k.begin / columns, ceil_div(k.end, columns)};
        return {m.source.stored_rows(n), k.empty() ? Interval{} : cols};
    }

    size_t scratch_bytes(const StoredMatrix& m, Interval n, Interval k) const override {
        const int64_t groups = needs(m, kScales, n, k).cols.size();
        return size_t(n.size() * (groups * 4 + k.size()));
    }

    /// Scratch: the scales of all rows in f32, then one byte a code. What is staged may be more
    /// than was asked for, so places count from the staged rectangle.
    CodeTile decode(const StoredMatrix& m, Interval n, Interval k,
                    std::span<const StagedRect> staged, std::byte* scratch) const override {
        const StoredRect groups = needs(m, kScales, n, k);
        const StagedRect &codes = staged[kCodes], &scales = staged[kScales];
        auto* scale = reinterpret_cast<float*>(scratch);
        std::byte* code = scratch + n.size() * groups.cols.size() * 4;
        CodeTile tile{.codes = code, .row_bytes = k.size(), .rows = n.size(), .cols = k.size()};
        tile.scales = scale;
        tile.factor_stride = groups.cols.size(), tile.first_group = groups.cols.begin;
        for (int64_t row = groups.rows.begin; row < groups.rows.end; ++row) {
            for (int64_t g = groups.cols.begin; g < groups.cols.end; ++g)
                *scale++ = scale_at(scales.row(row) + (g - scales.rect.cols.begin) * 2);
            for (int64_t c = k.begin; c < k.end; ++c) {
                const std::byte two = codes.row(row)[c / 2 - codes.rect.cols.begin];
                *code++ = c % 2 ? two >> 4 : two & std::byte{15};
            }
        }
        return tile;
    }
};

/// What one checkpoint's config says.
class Config final : public QuantizationConfig {
  public:
    Config(const PluginHost& host, const Json& config, const std::string& file)
        : host_(host), group_(host.get_int(config, "group_size", nullptr, 1, 1 << 20, file)) {
        const Json levels = config.value("levels", Json());
        const auto is_number = [](const Json& level) { return level.is_number(); };
        if (!levels.is_array() || levels.size() != 16 ||
            !std::all_of(levels.begin(), levels.end(), is_number))
            throw Error(ErrorCode::kBadContent, "levels must be a list of 16 numbers").file(file);
        levels_ = host.codebook("codebook16", levels.get<std::array<float, 16>>());
    }

    const char* name() const override { return "codebook16"; }

    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        const std::string codes = source.stem + ".codes", scales = source.stem + ".scales";
        // Layers that were left alone; experts in one tensor, which codebook16 does not have.
        if (source.lead >= 0 || !tensors.header(codes))
            return host_.describe_plain(source, tensors);
        const int64_t n = source.stored_n, bytes = ceil_div(source.k, 2),
                      groups = ceil_div(source.k, group_);
        host_.expect_tensor(tensors, codes, {n, bytes}, "U8");
        host_.expect_tensor(tensors, scales, {n, groups}, "F16");
        StoredMatrix m;
        m.source = source;
        m.encoding = {
            .code = CodeType::kT4, .scale = FactorType::kF16, .group = group_, .levels = levels_};
        m.codec = std::make_shared<const Codebook16Codec>();
        m.pieces = {{PieceRole::kCodes, codes, 1, n, bytes},
                    {PieceRole::kScales, scales, 2, n, groups}};
        return m;
    }

  private:
    const PluginHost& host_;  // stays until the process ends
    int64_t group_;
    std::shared_ptr<const Codebook> levels_;
};

/// A random matrix for `conclave conform`, its weights made beside the codec, not with it.
StoredSample sample(int64_t n, int64_t k, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::array<float, 16> levels;
    for (float& level : levels) level = float(random() % 2001) / 1000 - 1;
    const int64_t group = int64_t{8} << random() % 4;
    const int64_t bytes = ceil_div(k, 2), groups = ceil_div(k, group);
    std::vector<std::byte> codes(size_t(n * bytes)), scales(size_t(n * groups * 2));
    std::vector<float> weights;
    for (int64_t i = 0; i < n * k; ++i) {
        const int64_t row = i / k, col = i % k;
        std::byte* scale = scales.data() + (row * groups + col / group) * 2;
        const uint16_t half = f32_to_f16(float(random() % 1000 + 1) / 4096);
        if (col % group == 0) std::memcpy(scale, &half, 2);
        const uint64_t code = random() % 16;
        codes[size_t(row * bytes + col / 2)] |= std::byte(code << (col % 2 * 4));
        weights.push_back(levels[code] * scale_at(scale));
    }
    return {{{"quant_method", "codebook16"}, {"group_size", group}, {"levels", levels}},
            {{"layer.codes", {"U8", {n, bytes}}, codes},
             {"layer.scales", {"F16", {n, groups}}, scales}},
            {.stem = "layer", .n = n, .k = k, .stored_n = n},
            weights};
}

}  // namespace

CONCLAVE_PLUGIN("codebook", "1.0", "codebook16: 16 levels for a checkpoint, a scale per group") {
    const auto from_config = [&host = plugin.host()](const Json& config, const std::string& file) {
        return std::make_unique<Config>(host, config, file);
    };
    plugin.add_format(
        {.name = "codebook16", .config_files = {}, .from_config = from_config, .sample = sample});
}
