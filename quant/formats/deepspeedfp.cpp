// DeepSpeedFP: the checkpoint keeps plain weights, which become 8- or 6-bit floats as they are
// loaded. Groups run over the flattened weight, whole or not in a row, wherever ranks cut it.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "quant/formats/formats.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"
#include "runtime/base/half.h"
#include "runtime/base/json.h"

namespace conclave::quant {
namespace {

/// Bounds what is read and searched for the scale of one element; real files have 128 to 2048.
constexpr int64_t kMostColumns = 65536;

/// The numbers of a bit width: largest, smallest, and bits of the mantissa. All are numbers of
/// E4M3N too. 0 stays 0, and what is below the smallest becomes that.
struct FloatRange {
    float top, least;
    int mantissa;
};
constexpr FloatRange kFp8{480, 0x1p-6f, 3}, kFp6{28, 0x1p-2f, 2};

/// One piece, the weight as stored. What `columns` of a row need is their groups whole: wider
/// columns of that row where rows have whole groups, else rows before and behind as well.
class DeepSpeedCodec final : public Codec {
  public:
    DeepSpeedCodec(CodeType stored, int bits, int64_t group)
        : stored_(stored), range_(bits == 8 ? kFp8 : kFp6), group_(group) {}
    const char* name() const override { return "deepspeedfp"; }

    StoredRect needs(const StoredMatrix& m, size_t, Interval n, Interval k) const override {
        if (n.empty() || k.empty()) return {};
        const int64_t width = m.source.k;
        const Interval rows = m.source.stored_rows(n);
        if (width % group_ == 0)
            return {rows, {k.begin / group_ * group_, ceil_div(k.end, group_) * group_}};
        const int64_t begin = (rows.begin * width + k.begin) / group_ * group_;
        const int64_t end = ceil_div((rows.end - 1) * width + k.end, group_) * group_;
        return {{begin / width, std::min(ceil_div(end, width), m.pieces[0].rows)}, {0, width}};
    }

    void generate(const StoredMatrix& m, size_t piece, const StoredRect& rect,
                  std::byte* out) const override {
        StoredMatrix plain = m;
        plain.encoding = {};
        plain.encoding.code = stored_;
        plain_codec()->generate(plain, piece, rect, out);
    }

    size_t scratch_bytes(const StoredMatrix& m, Interval n, Interval k) const override {
        return static_cast<size_t>(n.size() *
                                   (decoded_row_bytes(k.size()) + runs_of(m, k).size() * 4));
    }

    CodeTile decode(const StoredMatrix& m, Interval n, Interval k,
                    std::span<const StagedRect> staged, std::byte* scratch) const override {
        CodeTile tile;
        tile.rows = n.size(), tile.cols = k.size();
        if (n.empty() || k.empty()) return tile;
        const Interval runs = runs_of(m, k), rows = m.source.stored_rows(n);
        tile.row_bytes = decoded_row_bytes(k.size());
        tile.codes = scratch;
        tile.first_group = runs.begin, tile.factor_stride = runs.size();
        auto* scales = reinterpret_cast<float*>(scratch + n.size() * tile.row_bytes);
        tile.scales = scales;
        Group group;
        for (int64_t row = rows.begin; row < rows.end; ++row) {
            quantize_row(m, row, k, staged[0], group, scratch, scales);
            scratch += tile.row_bytes, scales += runs.size();
        }
        return tile;
    }

  private:
    struct Group {
        int64_t index = -1;
        float scale = 0, inverse = 0;
    };

    static int64_t run_columns(const StoredMatrix& m) {
        return m.encoding.group > 0 ? m.encoding.group : m.source.k;
    }
    static Interval runs_of(const StoredMatrix& m, Interval k) {
        if (k.empty()) return {0, 0};
        return {k.begin / run_columns(m), ceil_div(k.end, run_columns(m))};
    }

    /// Bits of an f32.
    uint32_t element(const std::byte* from) const {
        if (stored_ == CodeType::kF32) {
            uint32_t bits;
            std::memcpy(&bits, from, 4);
            return bits;
        }
        uint16_t half;
        std::memcpy(&half, from, 2);
        if (stored_ == CodeType::kBF16) return static_cast<uint32_t>(half) << 16;
        return std::bit_cast<uint32_t>(f16_to_f32(half));
    }

    /// The stored group `index`: elements [index * group_, (index + 1) * group_) of the flattened
    /// tensor. Throws kBadContent for a weight that is no number.
    Group group_at(const StoredMatrix& m, int64_t index, const StagedRect& s) const {
        const int64_t width = m.source.k, bytes = m.pieces[0].element_bytes;
        const int64_t end = std::min((index + 1) * group_, m.pieces[0].rows * width);
        uint32_t most = 0;
        for (int64_t e = index * group_; e < end;) {
            const int64_t row = e / width, column = e % width;
            const int64_t count = std::min(end - e, width - column);
            const std::byte* from = s.data + (row - s.rect.rows.begin) * s.row_bytes +
                                    (column - s.rect.cols.begin) * bytes;
            for (int64_t i = 0; i < count; ++i)
                most = std::max(most, element(from + i * bytes) & 0x7fffffffu);
            e += count;
        }
        const auto amax = std::bit_cast<float>(most);
        if (!std::isfinite(amax))
            throw Error(ErrorCode::kBadContent, "a weight is not a finite number")
                .tensor(m.pieces[0].tensor)
                .found(std::to_string(amax) + " in row " + std::to_string(index * group_ / width) +
                       " or behind");
        return {index, amax / range_.top, amax == 0 ? 0 : range_.top / amax};
    }

    /// The code of E4M3N. The quotient is rounded half up at the last bit of its mantissa.
    std::byte code_of(uint32_t bits, float inverse) const {
        const auto sign = static_cast<uint32_t>(bits >> 24 & 0x80);
        const uint32_t magnitude = bits & 0x7fffffffu;
        if (magnitude == 0) return static_cast<std::byte>(sign);
        const auto scaled =
            std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * inverse) & 0x7fffffffu;
        const uint32_t half = 1u << (22 - range_.mantissa);
        const uint32_t rounded =
            std::clamp((scaled + half) & ~(2 * half - 1), std::bit_cast<uint32_t>(range_.least),
                       std::bit_cast<uint32_t>(range_.top));
        return static_cast<std::byte>(sign | ((rounded >> 20) - ((127 - 7) << 3)));
    }

    void quantize_row(const StoredMatrix& m, int64_t row, Interval k, const StagedRect& s,
                      Group& group, std::byte* codes, float* scales) const {
        const int64_t bytes = m.pieces[0].element_bytes, start = row * m.source.k;
        const int64_t run = run_columns(m), first = k.begin / run;
        const std::byte* from =
            s.data + (row - s.rect.rows.begin) * s.row_bytes - s.rect.cols.begin * bytes;
        for (int64_t c = k.begin; c < k.end;) {
            const int64_t index = (start + c) / group_;
            if (index != group.index) group = group_at(m, index, s);
            const int64_t end = std::min(k.end, (index + 1) * group_ - start);
            for (int64_t r = c / run; r < ceil_div(end, run); ++r) scales[r - first] = group.scale;
            for (; c < end; ++c) *codes++ = code_of(element(from + c * bytes), group.inverse);
        }
    }

    CodeType stored_;
    FloatRange range_;
    int64_t group_;
};

class DeepSpeedConfig final : public QuantizationConfig {
  public:
    DeepSpeedConfig(const Json& config, const std::string& file) {
        bits_ = static_cast<int>(get_int(config, "bits", 1, 64, file));
        if (bits_ != 6 && bits_ != 8)
            throw Error(ErrorCode::kUnsupported,
                        "deepspeedfp with this number of bits is not served")
                .file(file)
                .expected("6 or 8")
                .found(std::to_string(bits_));
        group_ = get_int_or(config, "group_size", 512, 1, kMostColumns, file);
    }
    const char* name() const override { return "deepspeedfp"; }

    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        auto m = describe_plain(source, tensors);
        if (!m || stays_plain(source.stem)) return m;
        const int64_t run = std::gcd(source.k, group_);
        m->codec = std::make_shared<const DeepSpeedCodec>(m->encoding.code, bits_, group_);
        m->encoding = {};
        m->encoding.code = CodeType::kE4M3N;
        m->encoding.bits = bits_;
        m->encoding.scale = FactorType::kF32;
        m->encoding.group = run == source.k ? 0 : run;
        return m;
    }

  private:
    /// Embeddings, the head, and what chooses or weighs experts.
    static bool stays_plain(const std::string& stem) {
        if (stem.ends_with(".gate") || stem.ends_with("shared_expert_gate")) return true;
        for (const char* part : {"lm_head", "embed", ".gate.", "router"})
            if (stem.find(part) != std::string::npos) return true;
        return false;
    }

    int bits_ = 8;
    int64_t group_ = 512;
};

}  // namespace

QuantizationFormat deepspeedfp_format() {
    const auto kind = [](int bits) {
        Encoding e;
        e.code = CodeType::kE4M3N, e.bits = bits, e.scale = FactorType::kF32, e.group = 512;
        return e;
    };
    return {"deepspeedfp",
            {},
            [](const Json& config, const std::string& file) {
                return std::make_unique<DeepSpeedConfig>(config, file);
            },
            {kind(8), kind(6)}};
}

}  // namespace conclave::quant
