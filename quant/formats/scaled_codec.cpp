#include "quant/formats/scaled_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "quant/dequantize.h"
#include "quant/dummy.h"
#include "quant/formats/bits.h"
#include "quant/formats/int_codec.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"

namespace conclave::quant {
namespace {

enum Piece : size_t { kCodesPiece, kScalesPiece };

using Table = std::array<float, 256>;

const Table& e4m3_table() {
    static const Table table = [] {
        Table t{};
        for (int c = 0; c < 256; ++c) {
            const float v = e4m3_value(static_cast<uint8_t>(c));
            t[static_cast<size_t>(c)] = (c & 127) == 127 ? std::copysign(std::nanf(""), v) : v;
        }
        return t;
    }();
    return table;
}

const Table& e8m0_table() {
    static const Table table = [] {
        Table t{};
        for (int c = 0; c < 255; ++c) t[static_cast<size_t>(c)] = std::ldexp(1.0f, c - 127);
        t[255] = std::nanf("");
        return t;
    }();
    return table;
}

/// Rows of the scale grid for one index of a leading axis.
int64_t grid_rows(const MatrixSource& s, const Encoding& e) {
    return e.group_rows > 0 ? ceil_div(s.stored_n, e.group_rows) : 1;
}

/// The grid's row for row `row` of the part.
int64_t grid_row(const MatrixSource& s, const Encoding& e, int64_t row) {
    const int64_t inside = e.group_rows > 0 ? (s.row_offset + row) / e.group_rows : 0;
    return std::max<int64_t>(s.lead, 0) * grid_rows(s, e) + inside;
}

Interval groups_of(const Encoding& e, Interval k) {
    if (k.empty()) return {0, 0};
    if (e.group <= 0) return {0, 1};
    return {k.begin / e.group, ceil_div(k.end, e.group)};
}

void widen_scales(FactorType type, const std::byte* from, int64_t count, float* out) {
    if (type == FactorType::kE4M3 || type == FactorType::kE8M0) {
        const Table& table = type == FactorType::kE4M3 ? e4m3_table() : e8m0_table();
        for (int64_t i = 0; i < count; ++i) out[i] = table[static_cast<size_t>(from[i])];
        return;
    }
    const int64_t bytes = factor_bytes(type);
    for (int64_t i = 0; i < count; ++i) out[i] = read_factor(type, from + i * bytes);
}

/// Columns [k.begin, k.end) of a row of nibbles, whose byte 0 holds column `first`, an even one.
void nibbles_to_codes(const std::byte* from, int64_t first, Interval k, std::byte* out) {
    int64_t c = k.begin;
    const auto one = [&] {
        const auto byte = static_cast<uint32_t>(from[(c - first) / 2]);
        *out++ = static_cast<std::byte>(c & 1 ? byte >> 4 : byte & 15);
        ++c;
    };
    if (c & 1 && c < k.end) one();
    for (; k.end - c >= 8; c += 8, out += 8) {
        uint32_t word;
        std::memcpy(&word, from + (c - first) / 2, 4);
        const uint64_t codes = spread_stream4(word);
        std::memcpy(out, &codes, 8);
    }
    while (c < k.end) one();
}

/// A positive finite number as its nearest E4M3, never 0.
std::byte to_e4m3(float v) {
    const Table& table = e4m3_table();
    const auto* at = std::lower_bound(table.data() + 1, table.data() + 126, v);
    if (at > table.data() + 1 && v - at[-1] < at[0] - v) --at;
    return static_cast<std::byte>(at - table.data());
}

/// The E4M3 bytes of the 64 codes of a 6-bit type.
std::array<std::byte, 64> fp6_table(CodeStorage storage) {
    const int mantissa_bits = storage == CodeStorage::kE3M2 ? 2 : 3;
    const int bias = storage == CodeStorage::kE3M2 ? 3 : 1;
    std::array<std::byte, 64> table{};
    for (int c = 0; c < 64; ++c) {
        const int exponent = (c & 31) >> mantissa_bits, mantissa = c & ((1 << mantissa_bits) - 1);
        const float v =
            std::ldexp(static_cast<float>(mantissa + (exponent ? 1 << mantissa_bits : 0)),
                       std::max(exponent, 1) - bias - mantissa_bits);
        table[static_cast<size_t>(c)] =
            (v == 0 ? std::byte{0} : to_e4m3(v)) | static_cast<std::byte>(c & 32 ? 0x80 : 0);
    }
    return table;
}

class ScaledCodec final : public Codec {
  public:
    explicit ScaledCodec(CodeStorage storage) : storage_(storage) {
        if (storage != CodeStorage::kWhole) fp6_ = fp6_table(storage);
    }
    const char* name() const override { return "scaled"; }

    StoredRect needs(const StoredMatrix& m, size_t piece, Interval n, Interval k) const override {
        const MatrixSource& s = m.source;
        const Encoding& e = m.encoding;
        if (piece == kScalesPiece) {
            const int64_t first = grid_row(s, e, n.begin);
            const int64_t end = n.empty() ? first : grid_row(s, e, n.end - 1) + 1;
            return {{first, end}, groups_of(e, k)};
        }
        const Interval rows = s.stored_rows(n);
        if (k.empty()) return {rows, {0, 0}};
        if (storage_ != CodeStorage::kWhole)
            return {rows, {k.begin / 4 * 3, ceil_div(k.end, 4) * 3}};
        if (e.code != CodeType::kT4) return {rows, k};
        return {rows, {k.begin / 2, ceil_div(k.end, 2)}};
    }

    size_t scratch_bytes(const StoredMatrix& m, Interval n, Interval k) const override {
        return static_cast<size_t>(n.size() * ((unpacks(m) ? decoded_row_bytes(k.size()) : 0) +
                                               groups_of(m.encoding, k).size() * 4));
    }

    CodeTile decode(const StoredMatrix& m, Interval n, Interval k,
                    std::span<const StagedRect> staged, std::byte* scratch) const override {
        const StoredRect want = needs(m, kCodesPiece, n, k);
        const StagedRect& codes = staged[kCodesPiece];
        const std::byte* from = codes.data +
                                (want.rows.begin - codes.rect.rows.begin) * codes.row_bytes +
                                (want.cols.begin - codes.rect.cols.begin);
        CodeTile tile;
        tile.rows = n.size(), tile.cols = k.size();
        if (unpacks(m)) {
            tile.row_bytes = decoded_row_bytes(k.size());
            for (int64_t r = 0; r < n.size(); ++r) {
                std::byte* out = scratch + r * tile.row_bytes;
                if (storage_ == CodeStorage::kWhole)
                    nibbles_to_codes(from + r * codes.row_bytes, 2 * want.cols.begin, k, out);
                else
                    fp6_to_codes(from + r * codes.row_bytes, k, out);
            }
            tile.codes = scratch;
            scratch += n.size() * tile.row_bytes;
        } else {
            tile.codes = from;
            tile.row_bytes = codes.row_bytes;
        }
        const Interval groups = groups_of(m.encoding, k);
        tile.first_group = groups.begin, tile.factor_stride = groups.size();
        auto* scales = reinterpret_cast<float*>(scratch);
        tile.scales = scales;
        spread_scales(m, n, groups, staged[kScalesPiece], scales);
        return tile;
    }

    void generate(const StoredMatrix& m, size_t i, const StoredRect& rect,
                  std::byte* out) const override {
        CONCLAVE_CHECK(storage_ == CodeStorage::kWhole);
        const StoredPiece& p = m.pieces[i];
        const uint64_t seed = tensor_seed(p.tensor);
        const double size = dummy_scale(m);
        for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r)
            for (int64_t c = rect.cols.begin; c < rect.cols.end; ++c, out += p.element_bytes) {
                const uint64_t random = mixed(seed + static_cast<uint64_t>(r * p.cols + c));
                if (i == kScalesPiece)
                    generate_scale(m.encoding.scale, size, random, out);
                else if (m.encoding.code == CodeType::kT4)
                    *out = static_cast<std::byte>(random);
                else
                    *out = static_cast<std::byte>((random & 0x80) | kLeastCode | (random & 31));
            }
    }

  private:
    /// Generated bytes have exponents of 4 to 7: 2^-3 <= |value| < 2, as evenly spread as E4M3 has
    /// them, and the same under kE4M3N.
    static constexpr uint64_t kLeastCode = 0x20;

    bool unpacks(const StoredMatrix& m) const {
        return storage_ != CodeStorage::kWhole || m.encoding.code == CodeType::kT4;
    }

    /// `from` begins with the three bytes that hold column k.begin.
    void fp6_to_codes(const std::byte* from, Interval k, std::byte* out) const {
        from -= k.begin / 4 * 3;
        for (int64_t c = k.begin; c < k.end; ++c) {
            const std::byte* three = from + c / 4 * 3;
            const uint32_t word = static_cast<uint32_t>(three[0]) |
                                  static_cast<uint32_t>(three[1]) << 8 |
                                  static_cast<uint32_t>(three[2]) << 16;
            *out++ = fp6_[word >> 6 * (c % 4) & 63];
        }
    }

    static void spread_scales(const StoredMatrix& m, Interval n, Interval groups,
                              const StagedRect& staged, float* out) {
        const int64_t count = groups.size(), bytes = factor_bytes(m.encoding.scale);
        int64_t last = -1;
        for (int64_t r = n.begin; r < n.end; ++r, out += count) {
            const int64_t row = grid_row(m.source, m.encoding, r);
            if (row == last) {
                std::copy_n(out - count, count, out);
                continue;
            }
            widen_scales(m.encoding.scale,
                         staged.data + (row - staged.rect.rows.begin) * staged.row_bytes +
                             (groups.begin - staged.rect.cols.begin) * bytes,
                         count, out);
            last = row;
        }
    }

    /// The scale that gives random codes the variance 1 / k.
    static double dummy_scale(const StoredMatrix& m) {
        double square = 0;
        if (m.encoding.code == CodeType::kT4) {
            for (const float v : m.encoding.levels->levels) square += double{v} * v / 16;
        } else {
            for (size_t c = kLeastCode; c < kLeastCode + 32; ++c)
                square += double{e4m3_table()[c]} * e4m3_table()[c] / 32;
        }
        return 1 / std::sqrt(square * static_cast<double>(std::max<int64_t>(m.source.k, 1)));
    }

    static void generate_scale(FactorType type, double size, uint64_t random, std::byte* out) {
        const double u = static_cast<double>(random >> 40) * 0x1p-24;
        if (type == FactorType::kE8M0) {
            // One of the two powers of two beside `size`, so often that the mean of their squares
            // is size^2.
            const int exponent = static_cast<int>(std::floor(std::log2(size)));
            const double up = (size * size / std::ldexp(1.0, 2 * exponent) - 1) / 3;
            *out = static_cast<std::byte>(std::clamp(127 + exponent + (u < up ? 1 : 0), 0, 254));
        } else if (type == FactorType::kE4M3) {
            *out = to_e4m3(static_cast<float>(size * (0.75 + 0.5 * u)));
        } else {
            write_factor(type, static_cast<float>(size * (0.75 + 0.5 * u)), out);
        }
    }

    CodeStorage storage_;
    std::array<std::byte, 64> fp6_{};
};

FactorType scale_type(const std::string& name, const std::string& dtype) {
    if (dtype == "F32") return FactorType::kF32;
    if (dtype == "F16") return FactorType::kF16;
    if (dtype == "BF16") return FactorType::kBF16;
    if (dtype == "F8_E4M3") return FactorType::kE4M3;
    if (dtype == "F8_E8M0" || dtype == "U8") return FactorType::kE8M0;
    throw Error(ErrorCode::kUnsupported, "tensor has a type that is not served for scales")
        .tensor(name)
        .expected("F32, F16, BF16, F8_E4M3, F8_E8M0 or U8")
        .found(dtype);
}

}  // namespace

StoredMatrix scaled_matrix(const MatrixSource& source, const Encoding& encoding,
                           const std::string& codes, const std::string& scales,
                           CodeStorage storage) {
    CONCLAVE_CHECK(is_scaled(encoding.code) && !is_integer(encoding.code));
    CONCLAVE_CHECK(factor_bytes(encoding.scale) > 0 && encoding.scale != FactorType::kU8);
    CONCLAVE_CHECK((encoding.code == CodeType::kT4) == (encoding.levels != nullptr));
    const bool whole = storage == CodeStorage::kWhole;
    CONCLAVE_CHECK(whole || encoding.code == CodeType::kE4M3);
    const int64_t codes_at_once = !whole ? 4 : encoding.code == CodeType::kT4 ? 2 : 1;
    const int64_t bytes_at_once = whole ? 1 : 3;
    if (source.k % codes_at_once != 0)
        throw Error(ErrorCode::kUnsupported, "codes that share bytes need rows of whole bytes")
            .tensor(codes)
            .expected("columns in multiples of " + std::to_string(codes_at_once))
            .found(std::to_string(source.k));
    const int64_t leads = source.leads();
    StoredMatrix m;
    m.source = source;
    m.encoding = encoding;
    m.codec = std::make_shared<const ScaledCodec>(storage);
    m.pieces.push_back({PieceRole::kCodes, codes, 1, leads * source.stored_n,
                        source.k / codes_at_once * bytes_at_once, ""});
    m.pieces.push_back({PieceRole::kScales, scales, factor_bytes(encoding.scale),
                        leads * grid_rows(source, encoding), group_count(source.k, encoding.group),
                        ""});
    return m;
}

void expect_scale_grid(const MatrixSource& source, const TensorLookup& tensors,
                       const std::string& scales, Encoding& encoding) {
    const int64_t rows = grid_rows(source, encoding),
                  groups = group_count(source.k, encoding.group);
    std::vector<int64_t> shape = {rows, groups};
    if (const auto header = tensors.header(scales)) {
        const size_t lead = source.lead >= 0 ? 1 : 0, axes = header->shape.size();
        if (axes == lead + 4)
            shape = {rows, 1, groups, 1};
        else if (axes == lead + 1 && groups == 1)
            shape = {rows};
        else if (axes == lead && rows == 1 && groups == 1)
            shape = {};
    }
    if (source.lead >= 0) shape.insert(shape.begin(), source.lead_count);
    encoding.scale = scale_type(scales, expect_tensor(tensors, scales, shape).dtype);
}

StoredMatrix imagined_scaled_matrix(const MatrixSource& source, const Encoding& encoding) {
    return scaled_matrix(source, encoding, source.bare ? source.stem : source.stem + ".weight",
                         source.stem + (source.bare ? "_scale" : ".weight_scale"));
}

}  // namespace conclave::quant
