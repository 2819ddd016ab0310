// Marlin as a checkpoint: 4-bit symmetric codes in the order in which a GPU kernel walks tiles of
// 16 columns (K) x 64 rows (N). STEM.B [K / 16, 2 N] and STEM.s, or the same as .qweight, .scales.
#include <algorithm>
#include <cstring>

#include <nlohmann/json.hpp>

#include "quant/dummy.h"
#include "quant/formats/formats.h"
#include "quant/formats/module_rules.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"
#include "runtime/base/json.h"

namespace conclave::quant {
namespace {

constexpr int64_t kTileColumns = 16, kTileRows = 64;
constexpr int64_t kTileWords = 128;     ///< of 8 codes; 1024 codes a tile, all in one stored row
constexpr int64_t kRowsPerRead = 1024;  ///< 8 bytes each of every stored row: reads of 8 KiB
constexpr int kZeroPoint = 8;

/// The 16 columns of row n of a tile. The kernel's warp has a lane for each row (mod 8) and pair of
/// columns (mod 8); a lane's word holds, for one quarter of the rows, the pairs of columns k and
/// k + 8 of rows n and n + 8, in the order of nibbles 0, 4, 1, 5 and 2, 6, 3, 7.
void decode_run(const std::byte* tile, int64_t n, std::byte* out) {
    const std::byte* words = tile + (n % 8 * 16 + n / 16) * 4;
    const int shift = static_cast<int>(n % 16 / 8) * 8;
    for (int pair = 0; pair < 4; ++pair) {
        uint32_t word;
        std::memcpy(&word, words + pair * 16, 4);
        word >>= shift;
        out[2 * pair] = static_cast<std::byte>(word & 15);
        out[2 * pair + 1] = static_cast<std::byte>(word >> 16 & 15);
        out[2 * pair + 8] = static_cast<std::byte>(word >> 4 & 15);
        out[2 * pair + 9] = static_cast<std::byte>(word >> 20 & 15);
    }
}

/// The stored column that keeps the scale of row n. One group per row: the order is another.
int64_t scale_column(int64_t n, bool channel) {
    if (!channel) return n / 64 * 64 + 8 * (n % 8) + n % 64 / 8;
    return n / 32 * 32 + 8 * (n % 8 / 2) + 2 * (n % 32 / 8) + n % 2;
}

Interval outward(Interval v, int64_t granule) {
    return {v.begin / granule * granule, round_up(v.end, granule)};
}

class MarlinCodec final : public Codec {
  public:
    const char* name() const override { return "marlin"; }

    StoredRect needs(const StoredMatrix& m, size_t piece, Interval n, Interval k) const override {
        if (n.empty() || k.empty()) return {};
        const Interval rows{m.source.row_offset + n.begin, m.source.row_offset + n.end};
        if (piece == 1) return {groups(m, k), outward(rows, m.encoding.group ? 64 : 32)};
        return {{k.begin / kTileColumns, ceil_div(k.end, kTileColumns)},
                {rows.begin / kTileRows * kTileWords, ceil_div(rows.end, kTileRows) * kTileWords}};
    }

    int64_t rows_per_read(const StoredMatrix&) const override { return kRowsPerRead; }

    void generate(const StoredMatrix& m, size_t piece, const StoredRect& rect,
                  std::byte* out) const override {
        const StoredPiece& p = m.pieces[piece];
        const uint64_t seed = tensor_seed(p.tensor);
        const float scale = generated_scale(m.encoding.bits, m.source.k);
        for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r)
            for (int64_t c = rect.cols.begin; c < rect.cols.end; ++c, out += p.element_bytes) {
                const uint64_t bits = mixed(seed + static_cast<uint64_t>(r * p.cols + c));
                if (piece == 0)
                    std::memcpy(out, &bits, 4);
                else
                    write_factor(m.encoding.scale, scale, out);
            }
    }

    size_t scratch_bytes(const StoredMatrix& m, Interval n, Interval k) const override {
        return static_cast<size_t>(codes_bytes(n, k) +
                                   n.size() * groups(m, k).size() * int64_t{sizeof(float)});
    }

    CodeTile decode(const StoredMatrix& m, Interval n, Interval k,
                    std::span<const StagedRect> staged, std::byte* scratch) const override {
        CodeTile tile;
        tile.rows = n.size(), tile.cols = k.size(), tile.row_bytes = decoded_row_bytes(k.size());
        if (n.empty() || k.empty()) return tile;
        decode_codes(m, n, k, staged[0], scratch);
        tile.codes = scratch;
        auto* scales = reinterpret_cast<float*>(scratch + codes_bytes(n, k));
        const Interval g = groups(m, k);
        tile.scales = scales, tile.factor_stride = g.size(), tile.first_group = g.begin;
        const StagedRect& s = staged[1];
        const int64_t width = m.pieces[1].element_bytes;
        for (int64_t row = n.begin; row < n.end; ++row) {
            const int64_t column =
                scale_column(m.source.row_offset + row, m.encoding.group == 0) - s.rect.cols.begin;
            for (int64_t i = g.begin; i < g.end; ++i)
                *scales++ =
                    read_factor(m.encoding.scale,
                                s.data + (i - s.rect.rows.begin) * s.row_bytes + column * width);
        }
        return tile;
    }

  private:
    static int64_t codes_bytes(Interval n, Interval k) {
        return n.size() * decoded_row_bytes(k.size());
    }

    static Interval groups(const StoredMatrix& m, Interval k) {
        const int64_t width = m.encoding.group;
        return width ? Interval{k.begin / width, ceil_div(k.end, width)} : Interval{0, 1};
    }

    static void decode_codes(const StoredMatrix& m, Interval n, Interval k, const StagedRect& s,
                             std::byte* out) {
        for (int64_t r = k.begin / kTileColumns; r * kTileColumns < k.end; ++r) {
            const std::byte* stored = s.data + (r - s.rect.rows.begin) * s.row_bytes;
            const int64_t first = std::max(k.begin, r * kTileColumns);
            const int64_t last = std::min(k.end, (r + 1) * kTileColumns);
            std::byte* codes = out + (first - k.begin);
            for (int64_t row = n.begin; row < n.end; ++row, codes += decoded_row_bytes(k.size())) {
                const int64_t at = m.source.row_offset + row;
                const std::byte* tile =
                    stored + (at / kTileRows * kTileWords - s.rect.cols.begin) * 4;
                if (last - first == kTileColumns) {
                    decode_run(tile, at % kTileRows, codes);
                } else {
                    std::byte run[kTileColumns];
                    decode_run(tile, at % kTileRows, run);
                    std::copy(run + (first - r * kTileColumns), run + (last - r * kTileColumns),
                              codes);
                }
            }
        }
    }
};

class MarlinConfig final : public QuantizationConfig {
  public:
    explicit MarlinConfig(int64_t group) : group_(group) {}

    const char* name() const override { return "marlin"; }

    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        const bool own_names = tensors.header(source.stem + ".B").has_value();
        if (source.bare || (!own_names && !tensors.header(source.stem + ".qweight")))
            return describe_plain(source, tensors);
        const std::string codes = source.stem + (own_names ? ".B" : ".qweight");
        const std::string scales = source.stem + (own_names ? ".s" : ".scales");
        check_size(source, codes);
        if (tensors.header(source.stem + ".qzeros"))
            throw Error(ErrorCode::kUnsupported, "marlin checkpoints have no zero points")
                .tensor(source.stem + ".qzeros");
        expect_tensor(tensors, codes, {source.k / kTileColumns, 2 * source.stored_n}, "I32");
        // A file says "128" and keeps one scale a row where K is 128.
        const int64_t groups = group_ ? ceil_div(source.k, group_) : 1;
        const TensorHeader header = expect_tensor(tensors, scales, {groups, source.stored_n});
        StoredMatrix m =
            stored(source, codes, scales, groups > 1 ? group_ : 0, float_factor(scales, header));
        add_companions(m, tensors, source.stem, {".workspace"});
        return m;
    }

    std::optional<StoredMatrix> imagine(const MatrixSource& source,
                                        const Encoding& e) const override {
        if (!is_integer(e.code)) return plain_matrix(source, e.code);
        if (e.bits != 4 || e.zero != FactorType::kNone || e.zero_point != kZeroPoint || e.permuted)
            throw Error(ErrorCode::kUnsupported, "marlin cannot store " + e.to_string())
                .tensor(source.stem);
        check_size(source, source.stem + ".B");
        const bool channel = e.group == 0 || e.group >= source.k;
        return stored(source, source.stem + ".B", source.stem + ".s", channel ? 0 : e.group,
                      e.scale);
    }

  private:
    static void check_size(const MatrixSource& s, const std::string& tensor) {
        if (s.k % kTileColumns == 0 && s.stored_n % kTileRows == 0) return;
        throw Error(ErrorCode::kUnsupported, "marlin tiles do not cut this matrix evenly")
            .tensor(tensor)
            .expected("rows a multiple of 64, columns of 16")
            .found(shape_text({s.stored_n, s.k}));
    }

    static StoredMatrix stored(const MatrixSource& source, const std::string& codes,
                               const std::string& scales, int64_t group, FactorType scale) {
        static const auto codec = std::make_shared<const MarlinCodec>();
        StoredMatrix m;
        m.source = source;
        m.codec = codec;
        m.encoding = {CodeType::kU4, 4, scale, FactorType::kNone, kZeroPoint, group, false};
        m.pieces = {{PieceRole::kCodes, codes, 4, source.k / kTileColumns, 2 * source.stored_n, ""},
                    {PieceRole::kScales, scales, factor_bytes(scale),
                     group ? ceil_div(source.k, group) : 1, source.stored_n, ""}};
        return m;
    }

    int64_t group_;  ///< columns; 0: a whole row
};

std::unique_ptr<QuantizationConfig> marlin_config(const Json& config, const std::string& file) {
    const int64_t group = read_group(config, 0, file);
    const char* key = find_json(config, "bits", file) ? "bits" : "w_bit";
    const int64_t bits = get_int_or(config, key, 4, 1, 64, file);
    if (bits != 4)
        throw Error(ErrorCode::kUnsupported, "marlin checkpoints have 4 bits a code")
            .file(file)
            .expected(std::string("'") + key + "' 4")
            .found(std::to_string(bits));
    if (!get_bool_or(config, "sym", true, file))
        throw Error(ErrorCode::kUnsupported, "marlin checkpoints are symmetric")
            .file(file)
            .expected("'sym' true")
            .found("false");
    return std::make_unique<MarlinConfig>(group);
}

/// The tensors of gptq and awq configs that name marlin, in whatever letters.
bool claims_marlin(const Json& config) {
    const auto is = [&](const char* key, std::string_view word) {
        const auto at = config.find(key);
        if (at == config.end() || !at->is_string()) return false;
        const auto& text = at->get_ref<const std::string&>();
        return std::equal(text.begin(), text.end(), word.begin(), word.end(), [](char a, char b) {
            return std::tolower(static_cast<unsigned char>(a)) == b;
        });
    };
    if (is("quant_method", "awq")) return is("version", "marlin");
    if (!is("quant_method", "gptq") && config.contains("quant_method")) return false;
    const auto old = config.find("is_marlin_format");
    return is("checkpoint_format", "marlin") || is("format", "marlin") ||
           (old != config.end() && *old == true);
}

}  // namespace

QuantizationFormat marlin_format() {
    return {"marlin",
            {"quantize_config.json"},
            marlin_config,
            {{CodeType::kU4, 4, FactorType::kF16, FactorType::kNone, kZeroPoint, 128, false}},
            claims_marlin};
}

}  // namespace conclave::quant
