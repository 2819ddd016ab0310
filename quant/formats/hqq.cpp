// HQQ: groups of g neighbours of the flattened matrix, float zeros. STEM.W_q keeps the codes,
// .scale and .zero one number a group, and every setting is a small tensor beside them.
#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include <nlohmann/json.hpp>

#include "quant/dummy.h"
#include "quant/formats/formats.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"
#include "runtime/base/json.h"

namespace conclave::quant {
namespace {

/// How codes of a number of bits share an element of W_q.
struct HqqPacking {
    const char* name;  ///< as the packing tensor spells it; null: no such format
    int parts;         ///< codes an element holds, one of each part of the rows
    int element_bytes;
    int first_shift;  ///< of the first part's code; each later part is `field` lower
    int field;        ///< bits from one part to the next
};
constexpr std::array<HqqPacking, 9> kPackings = {{{nullptr, 0, 0, 0, 0},
                                                  {"1bit_u8", 8, 1, 7, 1},
                                                  {"2bit_u8", 4, 1, 6, 2},
                                                  {"3bit_32", 10, 4, 27, 3},
                                                  {"4bit_u8", 2, 1, 4, 4},
                                                  {"8bit_u8", 1, 1, 0, 8},
                                                  {"8bit_u8", 1, 1, 0, 8},
                                                  {nullptr, 0, 0, 0, 0},
                                                  {"8bit_u8", 1, 1, 0, 8}}};

/// A matrix below this, as stored, is read at once; see HqqCodec::rows_per_read().
constexpr int64_t kReadWhole = 4 << 20;

/// How one matrix lies. The flattened matrix is cut into `parts` of `size` elements each (the last
/// may be padded), and element i of W_q holds element i of every part.
struct HqqLayout {
    HqqPacking packing;
    int64_t group = 0;        ///< stored
    int64_t columns = 0;      ///< of the logical matrix
    int64_t size = 0;         ///< elements of a part
    bool whole_rows = false;  ///< parts begin with a logical row, so that W_q has its columns

    /// W_q is seen as [size / unit, unit].
    int64_t unit() const { return whole_rows ? columns : 1; }
};

HqqLayout layout_of(int64_t rows, int64_t columns, int bits, int64_t group) {
    HqqLayout l;
    l.packing = kPackings[static_cast<size_t>(bits)];
    l.group = group;
    l.columns = columns;
    l.size = ceil_div(rows * columns / group, l.packing.parts) * group;
    l.whole_rows = l.size % columns == 0;
    return l;
}

/// Pieces: 0 and 1 W_q, 2 scales, 3 zeros.
///
/// The parts of a row range may be far apart in W_q, but its rows are neighbours: what they need of
/// the parts that they touch is one range of W_q, or two of which one is the end and one the
/// beginning, or (three parts, or two ranges that meet) all of W_q. So two pieces do, whatever the
/// number of parts, and no byte is read twice for one row range.
class HqqCodec final : public Codec {
  public:
    explicit HqqCodec(const HqqLayout& layout) : l_(layout) {}
    const char* name() const override { return "hqq"; }

    StoredRect needs(const StoredMatrix& m, size_t piece, Interval n, Interval k) const override {
        if (n.empty() || k.empty()) return {};
        const Interval elements = flat(m, n, k);
        if (piece >= 2) {
            if (m.pieces[piece].cols == 1)
                return {{elements.begin / l_.group, ceil_div(elements.end, l_.group)}, {0, 1}};
            return {{m.source.row_offset + n.begin, m.source.row_offset + n.end},
                    {k.begin / l_.group, ceil_div(k.end, l_.group)}};
        }
        const Interval cols = l_.whole_rows ? k : Interval{0, 1};
        const int64_t size = l_.size / l_.unit();
        const Interval units = {elements.begin / l_.unit(), ceil_div(elements.end, l_.unit())};
        const int64_t first = units.begin / size, last = (units.end - 1) / size;
        const Interval low = {0, units.end - last * size},
                       high = {units.begin - first * size, size};
        if (first == last) return piece ? StoredRect{} : StoredRect{{high.begin, low.end}, cols};
        if (last > first + 1 || low.end >= high.begin)
            return piece ? StoredRect{} : StoredRect{{0, size}, cols};
        return {piece ? high : low, cols};
    }

    /// Rows of different parts share their bytes: small matrices are read whole, so that a rank
    /// that holds them whole reads each byte once. Large ones would not fit staging: a byte of them
    /// is read once for every part that the rank holds.
    int64_t rows_per_read(const StoredMatrix& m) const override {
        return l_.packing.parts > 1 && l_.size * l_.packing.element_bytes <= kReadWhole ? m.source.n
                                                                                        : 1;
    }

    void generate(const StoredMatrix& m, size_t piece, const StoredRect& rect,
                  std::byte* out) const override {
        const StoredPiece& p = m.pieces[piece];
        const uint64_t seed = tensor_seed(p.tensor);
        const float scale = generated_scale(m.encoding.bits, l_.columns);
        const float zero = static_cast<float>((1 << m.encoding.bits) - 1) / 2;
        for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r)
            for (int64_t c = rect.cols.begin; c < rect.cols.end; ++c, out += p.element_bytes) {
                const uint64_t bits = mixed(seed + static_cast<uint64_t>(r * p.cols + c));
                if (piece < 2)
                    std::memcpy(out, &bits, static_cast<size_t>(p.element_bytes));
                else
                    write_factor(piece == 2 ? m.encoding.scale : m.encoding.zero,
                                 piece == 2 ? scale : zero, out);
            }
    }

    size_t scratch_bytes(const StoredMatrix& m, Interval n, Interval k) const override {
        return static_cast<size_t>(codes_bytes(n, k) +
                                   2 * n.size() * runs_of(m, k).size() * int64_t{sizeof(float)});
    }

    CodeTile decode(const StoredMatrix& m, Interval n, Interval k,
                    std::span<const StagedRect> staged, std::byte* scratch) const override {
        CodeTile tile;
        tile.rows = n.size(), tile.cols = tile.row_bytes = k.size();
        if (n.empty() || k.empty()) return tile;
        for (int64_t row = n.begin; row < n.end; ++row)
            decode_row(m, row, k, staged, scratch + (row - n.begin) * k.size());
        tile.codes = scratch;
        const Interval g = runs_of(m, k);
        auto* scales = reinterpret_cast<float*>(scratch + codes_bytes(n, k));
        auto* zeros = scales + n.size() * g.size();
        tile.scales = scales, tile.zeros = zeros;
        tile.factor_stride = g.size(), tile.first_group = g.begin;
        for (int64_t row = n.begin; row < n.end; ++row) {
            factors(m, row, g, 2, staged[2], m.encoding.scale, scales);
            factors(m, row, g, 3, staged[3], m.encoding.zero, zeros);
            scales += g.size(), zeros += g.size();
        }
        return tile;
    }

  private:
    static int64_t codes_bytes(Interval n, Interval k) { return round_up(n.size() * k.size(), 64); }

    /// From the first to the last element, in the flattened matrix.
    static Interval flat(const StoredMatrix& m, Interval n, Interval k) {
        const int64_t row = m.source.row_offset;
        return {(row + n.begin) * m.source.k + k.begin, (row + n.end - 1) * m.source.k + k.end};
    }

    /// Columns of a run of the encoding, of which stored groups are made.
    static int64_t run_width(const StoredMatrix& m) {
        return m.encoding.group ? m.encoding.group : m.source.k;
    }
    static Interval runs_of(const StoredMatrix& m, Interval k) {
        return {k.begin / run_width(m), ceil_div(k.end, run_width(m))};
    }

    /// The factors of one row's runs.
    void factors(const StoredMatrix& m, int64_t row, Interval runs, size_t piece,
                 const StagedRect& s, FactorType type, float* out) const {
        const int64_t stored_row = m.source.row_offset + row;
        for (int64_t i = runs.begin; i < runs.end; ++i) {
            int64_t r = stored_row, c = i;
            if (m.pieces[piece].cols == 1)
                r = (stored_row * m.source.k + i * run_width(m)) / l_.group, c = 0;
            *out++ = read_factor(type, s.data + (r - s.rect.rows.begin) * s.row_bytes +
                                           (c - s.rect.cols.begin) * factor_bytes(type));
        }
    }

    template <class Element>
    static void unpack(const std::byte* from, int64_t step, int64_t count, int shift, uint32_t mask,
                       std::byte* out) {
        int64_t i = 0;
        if (sizeof(Element) == 1 && step == 1)
            // Eight at a time: what a shift brings in from the next byte is masked away.
            for (; i + 8 <= count; i += 8) {
                uint64_t eight;
                std::memcpy(&eight, from + i, 8);
                eight = eight >> shift & mask * uint64_t{0x0101010101010101};
                std::memcpy(out + i, &eight, 8);
            }
        for (; i < count; ++i) {
            Element element;
            std::memcpy(&element, from + i * step, sizeof element);
            out[i] = static_cast<std::byte>(element >> shift & mask);
        }
    }

    void decode_row(const StoredMatrix& m, int64_t row, Interval k,
                    std::span<const StagedRect> staged, std::byte* out) const {
        const int64_t begin = (m.source.row_offset + row) * m.source.k;
        const uint32_t mask = (1u << m.encoding.bits) - 1;
        for (int64_t at = begin + k.begin; at < begin + k.end;) {
            const int64_t part = at / l_.size, inside = at % l_.size;
            const int64_t count = std::min(begin + k.end, (part + 1) * l_.size) - at;
            const int64_t unit = inside / l_.unit(), column = inside % l_.unit();
            // Which of the two holds it depends on the rows that were read together.
            const StagedRect& s =
                staged[0].rect.rows.begin <= unit && unit < staged[0].rect.rows.end ? staged[0]
                                                                                    : staged[1];
            const int64_t bytes = l_.packing.element_bytes;
            const int64_t step = l_.whole_rows ? bytes : s.row_bytes;
            const std::byte* from = s.data + (unit - s.rect.rows.begin) * s.row_bytes +
                                    (column - s.rect.cols.begin) * bytes;
            const int shift = l_.packing.first_shift - static_cast<int>(part) * l_.packing.field;
            if (bytes == 4)
                unpack<uint32_t>(from, step, count, shift, mask, out);
            else
                unpack<uint8_t>(from, step, count, shift, mask, out);
            out += count;
            at += count;
        }
    }

    HqqLayout l_;
};

/// The settings of a layer, from the config or from its tensors.
struct HqqSettings {
    std::optional<int64_t> bits, group;  ///< group 0: a whole row
};

class HqqConfig final : public QuantizationConfig {
  public:
    HqqConfig(const Json& config, const std::string& file) {
        const Json& settings = get_object(config, "quant_config", file);
        if (find_json(settings, "weight_quant_params", file)) {
            all_ = parse(settings, file);
            return;
        }
        for (const auto& [tag, layer] : settings.items())
            if (layer.is_object() && find_json(layer, "weight_quant_params", file))
                tagged_.emplace_back(tag, parse(layer, file));
    }

    const char* name() const override { return "hqq"; }

    /// Presence of W_q decides; skip_modules only informs.
    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        const std::string codes = source.stem + ".W_q";
        const auto header = tensors.header(codes);
        if (source.bare || !header) return describe_plain(source, tensors);
        refuse_flags(source.stem, tensors);
        const auto [bits, group] = settings_of(source, tensors);
        const HqqLayout l = layout_of(source.stored_n, source.k, bits, group);
        check_packing(source.stem, tensors, l.packing);
        expect_tensor(tensors, codes, {l.size / group, group},
                      l.packing.element_bytes == 4 ? "I32" : "U8");
        const int64_t groups = source.stored_n * source.k / group;
        const std::string scale = source.stem + ".scale", zero = source.stem + ".zero";
        const FactorType scale_type =
            float_factor(scale, expect_tensor(tensors, scale, {groups, 1}));
        const FactorType zero_type = float_factor(zero, expect_tensor(tensors, zero, {groups, 1}));
        StoredMatrix m = stored(source, bits, group, scale_type, zero_type);
        add_companions(m, tensors, source.stem,
                       {".nbits", ".group_size", ".axis", ".shape", ".packing", ".compute_dtype",
                        ".unpack_view_dtype", ".view_as_float", ".quant_scale", ".quant_zero",
                        ".offload_meta", ".encoded_state_dict", ".stores_quant_config",
                        ".channel_wise", ".optimize", ".round_zero"});
        return m;
    }

    std::optional<StoredMatrix> imagine(const MatrixSource& source,
                                        const Encoding& e) const override {
        if (!is_integer(e.code)) return plain_matrix(source, e.code);
        const int64_t group = e.group ? e.group : source.k;
        if (!kPackings[static_cast<size_t>(e.bits)].name || factor_bytes(e.zero) < 2 ||
            e.permuted || source.k % group != 0)
            throw Error(ErrorCode::kUnsupported, "hqq cannot store " + e.to_string())
                .tensor(source.stem);
        return stored(source, e.bits, group, e.scale, e.zero);
    }

  private:
    static HqqSettings parse(const Json& layer, const std::string& file) {
        for (const char* key : {"scale_quant_params", "zero_quant_params"})
            if (find_json(layer, key, file))
                throw Error(
                    ErrorCode::kUnsupported,
                    std::string("hqq with quantized scales or zeros ('") + key + "') is not served")
                    .file(file);
        const Json& weights = get_object(layer, "weight_quant_params", file);
        if (get_int_or(weights, "axis", 1, 0, 1, file) == 0)
            throw Error(ErrorCode::kUnsupported, "hqq with 'axis' 0 is not served")
                .file(file)
                .expected("1")
                .found("0");
        if (get_bool_or(weights, "view_as_float", false, file))
            throw Error(ErrorCode::kUnsupported, "hqq with 'view_as_float' is not served")
                .file(file);
        HqqSettings s;
        s.bits = get_int(weights, "nbits", 1, 8, file);
        s.group = get_int_or(weights, "group_size", 0, 0, int64_t{1} << 31, file);
        return s;
    }

    static void refuse_flags(const std::string& stem, const TensorLookup& tensors) {
        for (const char* flag : {".view_as_float", ".quant_scale", ".quant_zero"}) {
            const auto value = read_integers(tensors, stem + flag, 1);
            if (value && value->front() != 0)
                throw Error(ErrorCode::kUnsupported, "this kind of hqq is not served")
                    .tensor(stem + flag)
                    .expected("0")
                    .found(std::to_string(value->front()));
        }
        const auto axis = read_integers(tensors, stem + ".axis", 1);
        if (axis && axis->front() != 1)
            throw Error(ErrorCode::kUnsupported, "hqq along another axis is not served")
                .tensor(stem + ".axis")
                .expected("1")
                .found(std::to_string(axis->front()));
    }

    static void check_packing(const std::string& stem, const TensorLookup& tensors,
                              const HqqPacking& packing) {
        const std::string name = stem + ".packing";
        const auto header = tensors.header(name);
        if (!header || header->shape.size() != 1 || header->shape[0] > 32) return;
        const auto letters = read_integers(tensors, name, header->shape[0]);
        std::string found;
        for (const int64_t letter : *letters)
            found += letter >= 32 && letter < 127 ? static_cast<char>(letter) : '?';
        if (found != packing.name)
            throw Error(ErrorCode::kUnsupported, "hqq with this packing is not served")
                .tensor(name)
                .expected(packing.name)
                .found(found);
    }

    const HqqSettings& config_of(const std::string& stem) const {
        for (const auto& [tag, settings] : tagged_)
            if (stem == tag || stem.ends_with("." + tag)) return settings;
        return all_;
    }

    /// Bits and group of a layer, as its tensors and the config agree.
    std::pair<int, int64_t> settings_of(const MatrixSource& s, const TensorLookup& tensors) const {
        const HqqSettings& config = config_of(s.stem);
        const auto agreed = [&](const char* suffix, std::optional<int64_t> configured) {
            const auto stored = read_integers(tensors, s.stem + suffix, 1);
            if (!stored && !configured)
                throw Error(ErrorCode::kBadContent, "tensor is missing")
                    .tensor(s.stem + suffix)
                    .expected("it, or a setting of the config for this layer");
            if (stored && configured && stored->front() != *configured)
                throw Error(ErrorCode::kBadContent, "tensor contradicts the config")
                    .tensor(s.stem + suffix)
                    .expected(std::to_string(*configured))
                    .found(std::to_string(stored->front()));
            return stored ? stored->front() : *configured;
        };
        const int64_t bits = agreed(".nbits", config.bits);
        if (bits < 1 || bits > 8 || !kPackings[static_cast<size_t>(bits)].name)
            throw Error(ErrorCode::kUnsupported, "hqq with this number of bits is not served")
                .tensor(s.stem + ".nbits")
                .expected("1, 2, 3, 4, 5, 6 or 8")
                .found(std::to_string(bits));
        std::optional<int64_t> configured = config.group;
        if (configured == 0) configured = s.k;
        const int64_t group = agreed(".group_size", configured);
        if (group < 1 || s.stored_n * s.k % group != 0)
            throw Error(ErrorCode::kBadContent, "groups do not cut the matrix evenly")
                .tensor(s.stem + ".group_size")
                .expected("a divisor of " + std::to_string(s.stored_n * s.k))
                .found(std::to_string(group));
        const auto shape = read_integers(tensors, s.stem + ".shape", 2);
        if (shape && *shape != std::vector<int64_t>{s.stored_n, s.k})
            throw Error(ErrorCode::kBadContent, "tensor contradicts the model")
                .tensor(s.stem + ".shape")
                .expected(shape_text({s.stored_n, s.k}))
                .found(shape_text(*shape));
        return {static_cast<int>(bits), group};
    }

    static StoredMatrix stored(const MatrixSource& source, int bits, int64_t group,
                               FactorType scale, FactorType zero) {
        const HqqLayout l = layout_of(source.stored_n, source.k, bits, group);
        StoredMatrix m;
        m.source = source;
        m.codec = std::make_shared<const HqqCodec>(l);
        // A stored group that does not end with its row is cut there: runs of gcd columns are
        // whole in a row and of one group.
        const int64_t run = std::gcd(source.k, group);
        m.encoding = {bits <= 4 ? CodeType::kU4 : CodeType::kU8,
                      bits,
                      scale,
                      zero,
                      0,
                      run == source.k ? 0 : run,
                      false};
        StoredPiece codes{PieceRole::kCodes,
                          source.stem + ".W_q",
                          l.packing.element_bytes,
                          l.size / l.unit(),
                          l.unit(),
                          ""};
        const int64_t groups = source.stored_n * source.k / group;
        const int64_t per_row = source.k % group == 0 ? source.k / group : 1;
        m.pieces = {codes,
                    codes,
                    {PieceRole::kScales, source.stem + ".scale", factor_bytes(scale),
                     groups / per_row, per_row, ""},
                    {PieceRole::kZeros, source.stem + ".zero", factor_bytes(zero), groups / per_row,
                     per_row, ""}};
        return m;
    }

    HqqSettings all_;
    std::vector<std::pair<std::string, HqqSettings>> tagged_;
};

}  // namespace

QuantizationFormat hqq_format() {
    const auto kind = [](CodeType code, int bits) {
        return Encoding{code, bits, FactorType::kBF16, FactorType::kBF16, 0, 64, false};
    };
    return {"hqq",
            {},
            [](const Json& config, const std::string& file) {
                return std::make_unique<HqqConfig>(config, file);
            },
            {kind(CodeType::kU4, 4), kind(CodeType::kU8, 8)}};
}

}  // namespace conclave::quant
