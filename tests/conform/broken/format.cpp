// toy: 4-bit indices into 16 levels, two to a byte over the flattened matrix (rows of odd length
// begin within a byte), f32 scales of 16 columns.
#include <random>

#include "tests/conform/broken/toy.h"

namespace toy {
namespace {

using namespace conclave;
using namespace conclave::quant;

enum Piece : size_t { kCodes, kScales };

class ToyCodec final : public Codec {
  public:
    const char* name() const override { return "toy"; }
    StoredRect needs(const StoredMatrix& m, size_t piece, Interval n, Interval k) const override {
        if (n.empty() || k.empty()) return {};
        if (piece == kCodes) return {m.source.stored_rows(n), k};
        const int64_t end =
            has("needs-too-little") && k.end > kGroup ? k.end / kGroup : ceil_div(k.end, kGroup);
        return {m.source.stored_rows(n), {k.begin / kGroup, std::max(end, k.begin / kGroup)}};
    }
    void generate(const StoredMatrix&, size_t, const StoredRect&, std::byte*) const override {}
    size_t scratch_bytes(const StoredMatrix&, Interval n, Interval k) const override {
        const auto bytes = static_cast<size_t>(n.size() * (groups(k).size() * 4 + k.size()));
        return has("scratch") ? bytes - 1 : bytes;
    }
    CodeTile decode(const StoredMatrix& m, Interval n, Interval k,
                    std::span<const StagedRect> staged, std::byte* scratch) const override {
        const Interval g = groups(k);
        auto* scales = reinterpret_cast<float*>(scratch);
        std::byte* codes = scratch + n.size() * g.size() * 4;
        CodeTile tile{.codes = codes, .row_bytes = k.size(), .rows = n.size(), .cols = k.size()};
        tile.scales = scales, tile.factor_stride = g.size(), tile.first_group = g.begin;
        if (has("crash") && k.begin > 0 && k.size() == 1) *static_cast<volatile int*>(nullptr) = 1;
        const int64_t first = m.source.stored_rows(n).begin;
        for (int64_t r = 0; r < n.size(); ++r) {
            int64_t row = first + r;
            if (has("rows")) row = staged[kCodes].rect.rows.begin + r;
            for (int64_t i = g.begin; i < g.end; ++i) {
                int64_t from = i;
                if (has("group-boundary") && k.begin % kGroup && i > g.begin) from = i - 1;
                std::memcpy(scales++,
                            staged[kScales].row(row) + (from - staged[kScales].rect.cols.begin) * 4,
                            4);
            }
            const int64_t phase = has("phase") ? 0 : staged[kCodes].phase(row);
            for (int64_t c = k.begin; c < k.end; ++c) {
                const int64_t at = phase + c - staged[kCodes].rect.cols.begin;
                const std::byte two = staged[kCodes].row(row)[at / 2];
                *codes++ = at % 2 ? two >> 4 : two & std::byte{15};
            }
        }
        return tile;
    }

  private:
    static Interval groups(Interval k) { return {k.begin / kGroup, ceil_div(k.end, kGroup)}; }
};

std::array<float, 16> levels() {
    std::array<float, 16> all;
    for (size_t i = 0; i < 16; ++i) all[i] = static_cast<float>(i) - 7.5f;
    return all;
}

class Config final : public QuantizationConfig {
  public:
    explicit Config(const PluginHost& host) : host_(host) {}
    const char* name() const override { return "toy"; }
    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        const std::string codes = source.stem + ".codes", scales = source.stem + ".scales";
        if (!tensors.header(codes)) return std::nullopt;
        const int64_t n = source.stored_n, groups = ceil_div(source.k, kGroup);
        host_.expect_tensor(tensors, codes, {ceil_div(n * source.k, 2)}, "U8");
        if (!has("describe-beyond")) host_.expect_tensor(tensors, scales, {n, groups}, "F32");
        StoredMatrix m;
        m.source = source;
        m.encoding = {.code = CodeType::kT4,
                      .scale = FactorType::kF32,
                      .group = kGroup,
                      .levels = host_.codebook("toy", levels())};
        m.codec = std::make_shared<ToyCodec>();
        m.pieces = {{PieceRole::kCodes, codes, 1, n, source.k, "toy", 2},
                    {PieceRole::kScales, scales, 4, n, groups}};
        if (has("describe-values") && tensors.values())
            m.activation = ActivationRule{
                .code = ActivationCode::kInt8, .scale_rule = ScaleRule::kAbsMax, .top = 127};
        return m;
    }

  private:
    const PluginHost& host_;
};

StoredSample sample(int64_t n, int64_t k, uint64_t seed) {
    std::mt19937_64 random(seed);
    const int64_t groups = ceil_div(k, kGroup);
    std::vector<std::byte> codes(static_cast<size_t>(ceil_div(n * k, 2)));
    std::vector<float> scales(static_cast<size_t>(n * groups)), weights;
    for (float& s : scales) s = static_cast<float>(random() % 1000 + 1) / 512;
    for (int64_t i = 0; i < n * k; ++i) {
        const uint64_t code = random() % 16;
        codes[static_cast<size_t>(i / 2)] |= static_cast<std::byte>(code << (i % 2 * 4));
        weights.push_back(levels()[code] *
                          scales[static_cast<size_t>(i / k * groups + i % k / kGroup)]);
    }
    if (has("sample")) weights.back() *= 2;
    std::vector<std::byte> bytes(scales.size() * 4);
    std::memcpy(bytes.data(), scales.data(), bytes.size());
    return {{{"quant_method", "toy"}, {"group", kGroup}},
            {{"layer.codes", {"U8", {static_cast<int64_t>(codes.size())}}, codes},
             {"layer.scales", {"F32", {n, groups}}, bytes}},
            {.stem = "layer", .n = n, .k = k, .stored_n = n},
            weights};
}

/// Rows lie where the flattened matrix has them; a byte that two rows share is read once.
class ToyIndexer final : public sharding::ShardIndexer {
  public:
    sharding::OffsetTable index(const StoredPiece& p, const StoredRect& rect) const override {
        sharding::OffsetTable t;
        uint64_t total = 0;
        for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r) {
            const int64_t first = r * p.cols + rect.cols.begin, last = first + rect.cols.size();
            auto begin = static_cast<uint64_t>(first / 2);
            auto end = static_cast<uint64_t>(ceil_div(last, 2));
            if (has("indexer-extra") && rect.cols.begin > 3) --begin;
            const bool shared = !t.ranges.empty() && begin < t.ranges.back().end();
            const uint64_t at = shared && !has("indexer-overlap") ? total - 1 : total;
            t.rows.push_back({static_cast<int64_t>(at), first % 2});
            if (shared && !has("indexer-overlap")) ++begin;
            if (end > begin) t.ranges.push_back({begin, end - begin});
            total = at + (end - static_cast<uint64_t>(first / 2));
            if (has("indexer-extra") && rect.cols.begin > 3) ++total;
        }
        spoil(p, rect, t);
        return t;
    }

  private:
    void spoil(const StoredPiece& p, const StoredRect& rect, sharding::OffsetTable& t) const {
        const bool all = rect.rows.end == p.rows && rect.cols.end == p.cols;
        if (has("indexer-outside") && all) ++t.ranges.back().bytes;
        if (has("indexer-unordered") && t.ranges.size() > 2) std::swap(t.ranges[0], t.ranges[1]);
        if (has("indexer-missing") && t.ranges.back().bytes > 1) --t.ranges.back().bytes;
        if (has("indexer-impure") && calls_++ % 2 && t.ranges.back().bytes > 1) {
            sharding::ByteRange& last = t.ranges.back();
            --last.bytes;
            t.ranges.push_back({last.end(), 1});
        }
    }
    mutable int calls_ = 0;
};

}  // namespace

QuantizationFormat format(const PluginHost& host) {
    QuantizationFormat f;
    f.name = "toy";
    f.from_config = [&host](const Json& config, const std::string& file) {
        const int64_t group =
            has("config-type") ? config.at("group").get<int64_t>()
                               : host.get_int(config, "group", nullptr, INT64_MIN, INT64_MAX, file);
        for (volatile int64_t i = group; has("config-loop") && i < 0;) i = group;
        if (group != kGroup)
            throw Error(ErrorCode::kUnsupported, "toy has groups of 16").file(file);
        return std::make_unique<Config>(host);
    };
    f.claims = [](const Json& config) {
        if (has("claims")) return config.at("quant_method").get<std::string>() == "toy2";
        return false;
    };
    f.sample = sample;
    return f;
}

std::shared_ptr<const sharding::ShardIndexer> indexer() { return std::make_shared<ToyIndexer>(); }

}  // namespace toy
