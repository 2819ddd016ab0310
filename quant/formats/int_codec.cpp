#include "quant/formats/int_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "quant/dummy.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"

namespace conclave::quant {
namespace {

enum Piece : size_t { kCodesPiece, kScalesPiece, kZerosPiece };

/// The bytes that a cut of a stored row should have where stored rows hold a column of each logical
/// row: shorter pieces are read as whole stripes.
constexpr int64_t kCutBytes = 4096;

/// Byte j of row i becomes byte i of row j.
void transpose8(uint64_t* r) {
    for (int i = 0; i < 4; ++i) {
        const uint64_t t = (r[i] >> 32 ^ r[i + 4]) & 0xffffffffu;
        r[i + 4] ^= t, r[i] ^= t << 32;
    }
    for (const int i : {0, 1, 4, 5}) {
        const uint64_t t = (r[i] >> 16 ^ r[i + 2]) & 0x0000ffff0000ffffu;
        r[i + 2] ^= t, r[i] ^= t << 16;
    }
    for (const int i : {0, 2, 4, 6}) {
        const uint64_t t = (r[i] >> 8 ^ r[i + 1]) & 0x00ff00ff00ff00ffu;
        r[i + 1] ^= t, r[i] ^= t << 8;
    }
}

const std::byte* cell(const StagedRect& s, int64_t row, int64_t col, int64_t element_bytes) {
    return s.data + (row - s.rect.rows.begin) * s.row_bytes +
           (col - s.rect.cols.begin) * element_bytes;
}

class IntCodec final : public Codec {
  public:
    explicit IntCodec(const IntStorage& storage) : s_(storage) {}
    const char* name() const override { return "int"; }

    StoredRect needs(const StoredMatrix& m, size_t piece, Interval n, Interval k) const override {
        const Interval rows = m.source.stored_rows(n), groups = groups_of(m, k);
        if (piece == kCodesPiece) return code_rect(rows, k);
        if (m.encoding.group_rows == 0) return shared_factors(m.source, groups);
        if (piece == kZerosPiece && zero_words(m)) {
            const Interval words = word_interval(rows);
            return s_.scales_transposed ? StoredRect{groups, words} : StoredRect{words, groups};
        }
        return s_.scales_transposed ? StoredRect{groups, rows} : StoredRect{rows, groups};
    }

    int64_t rows_per_read(const StoredMatrix&) const override {
        if (s_.row_pairs) return 2;
        if (s_.words_along_n) return ceil_div(kCutBytes * 8, s_.bits);
        return s_.transposed ? kCutBytes / 4 : 1;
    }

    size_t scratch_bytes(const StoredMatrix& m, Interval n, Interval k) const override {
        const int64_t factors = m.encoding.zero == FactorType::kNone ? 1 : 2;
        return static_cast<size_t>(
            n.size() * (decoded_row_bytes(k.size()) + factors * groups_of(m, k).size() * 4));
    }

    CodeTile decode(const StoredMatrix& m, Interval n, Interval k,
                    std::span<const StagedRect> staged, std::byte* scratch) const override {
        const Interval rows = m.source.stored_rows(n), groups = groups_of(m, k);
        CodeTile tile;
        tile.rows = n.size(), tile.cols = k.size();
        tile.row_bytes = decoded_row_bytes(k.size());
        tile.codes = scratch;
        tile.first_group = groups.begin, tile.factor_stride = groups.size();
        if (s_.row_pairs)
            pairs_to_codes(staged[kCodesPiece], rows, k, scratch, tile.row_bytes);
        else if (s_.bytes)
            bytes_to_codes(staged[kCodesPiece], rows, k, scratch, tile.row_bytes);
        else if (s_.words_along_n)
            words_along_n(staged[kCodesPiece], rows, k, scratch, tile.row_bytes);
        else
            words_along_k(staged[kCodesPiece], rows, k, scratch, tile.row_bytes);
        if (s_.is_signed && !s_.bytes)
            for (int64_t i = 0; i < tile.rows * tile.row_bytes; ++i)
                scratch[i] ^= static_cast<std::byte>(half());
        float* scales = reinterpret_cast<float*>(scratch + tile.rows * tile.row_bytes);
        floats(shown(m, staged[kScalesPiece], rows), m.encoding.scale, rows, groups, scales);
        tile.scales = scales;
        if (m.encoding.zero == FactorType::kNone) return tile;
        float* zeros = scales + tile.rows * tile.factor_stride;
        if (m.encoding.zero != FactorType::kU8)
            floats(shown(m, staged[kZerosPiece], rows), m.encoding.zero, rows, groups, zeros);
        else if (s_.bytes)
            byte_zeros(shown(m, staged[kZerosPiece], rows), rows, groups, zeros);
        else
            word_zeros(staged[kZerosPiece], rows, groups, zeros);
        tile.zeros = zeros;
        return tile;
    }

    void generate(const StoredMatrix& m, size_t i, const StoredRect& rect,
                  std::byte* out) const override {
        const StoredPiece& p = m.pieces[i];
        const uint64_t seed = tensor_seed(p.tensor);
        const bool scale = i == kScalesPiece;
        const bool number = scale || (i == kZerosPiece && m.encoding.zero != FactorType::kU8);
        const float size = dummy_scale(m);
        for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r)
            for (int64_t c = rect.cols.begin; c < rect.cols.end; ++c, out += p.element_bytes) {
                const uint64_t random = mixed(seed + static_cast<uint64_t>(r * p.cols + c));
                if (number) {
                    const float u = static_cast<float>(random >> 40) * 0x1p-24f;
                    write_factor(scale ? m.encoding.scale : m.encoding.zero,
                                 scale ? size * (0.75f + 0.5f * u) : static_cast<float>(half()),
                                 out);
                } else if (s_.row_pairs && i == kCodesPiece) {
                    *out = static_cast<std::byte>(random);
                } else if (s_.bytes) {
                    *out = static_cast<std::byte>((random & mask()) - half());
                } else {
                    const auto word = static_cast<uint32_t>(random);
                    std::memcpy(out, &word, 4);
                }
            }
    }

  private:
    uint32_t mask() const { return (1u << s_.bits) - 1; }
    uint32_t half() const { return 1u << (s_.bits - 1); }
    bool zero_words(const StoredMatrix& m) const {
        return m.encoding.zero == FactorType::kU8 && !s_.bytes;
    }

    Interval word_interval(Interval codes) const {
        const WordRange w = words_of(s_.packing, s_.bits, codes.begin, codes.end);
        return {w.begin, w.end};
    }

    /// The one row of factors of all rows; a leading axis has one for each index.
    static StoredRect shared_factors(const MatrixSource& source, Interval groups) {
        const int64_t at = std::max<int64_t>(source.lead, 0);
        return {{at, at + 1}, groups};
    }

    /// Factors with a row for each of `rows`; a shared one is shown for all of them.
    static StagedRect shown(const StoredMatrix& m, StagedRect s, Interval rows) {
        if (m.encoding.group_rows != 0) return s;
        s.data += (std::max<int64_t>(m.source.lead, 0) - s.rect.rows.begin) * s.row_bytes;
        s.rect.rows = rows;
        s.row_bytes = 0;
        return s;
    }

    StoredRect code_rect(Interval rows, Interval k) const {
        if (s_.row_pairs) return {{rows.begin / 2, ceil_div(rows.end, 2)}, k};
        if (s_.bytes) return {rows, k};
        if (s_.words_along_n) return {k, word_interval(rows)};
        return s_.transposed ? StoredRect{word_interval(k), rows}
                             : StoredRect{rows, word_interval(k)};
    }

    /// The stored groups that columns k are of; all of them under act-order.
    Interval groups_of(const StoredMatrix& m, Interval k) const {
        if (k.empty()) return {0, 0};
        const StoredPiece& scales = m.pieces[kScalesPiece];
        if (m.group_of) return {0, s_.scales_transposed ? scales.rows : scales.cols};
        if (m.encoding.group <= 0) return {0, 1};
        return {k.begin / m.encoding.group, ceil_div(k.end, m.encoding.group)};
    }

    /// The scale that gives random codes the variance 1 / k.
    float dummy_scale(const StoredMatrix& m) const {
        const double codes = std::ldexp(1.0, s_.bits), spread = (codes * codes - 1) / 12;
        const bool random_zeros = m.encoding.zero == FactorType::kU8;
        const double zero = m.encoding.zero == FactorType::kNone ? m.encoding.zero_point : half();
        const double off = random_zeros ? 0 : (codes - 1) / 2 - zero;
        const double square = (random_zeros ? 2 * spread : spread) + off * off;
        return static_cast<float>(1 / std::sqrt(square * static_cast<double>(m.source.k)));
    }

    void bytes_to_codes(const StagedRect& s, Interval rows, Interval k, std::byte* out,
                        int64_t stride) const {
        for (int64_t n = rows.begin; n < rows.end; ++n, out += stride) {
            const std::byte* in = cell(s, n, k.begin, 1);
            for (int64_t c = 0; c < k.size(); ++c)
                out[c] = static_cast<std::byte>((static_cast<uint32_t>(in[c]) + half()) & mask());
        }
    }

    void pairs_to_codes(const StagedRect& s, Interval rows, Interval k, std::byte* out,
                        int64_t stride) const {
        for (int64_t n = rows.begin; n < rows.end; ++n, out += stride) {
            const std::byte* in = cell(s, n / 2, k.begin, 1);
            const int shift = n & 1 ? 4 : 0;
            for (int64_t c = 0; c < k.size(); ++c)
                out[c] = static_cast<std::byte>((static_cast<uint32_t>(in[c]) >> shift & 15) ^ 8);
        }
    }

    void words_along_k(const StagedRect& s, Interval rows, Interval k, std::byte* out,
                       int64_t stride) const {
        // Transposed: so few stored rows at a time that the walk along n stays in the cache.
        const int64_t width = s_.transposed ? 128 : k.size();
        for (int64_t k0 = k.begin; k0 < k.end;) {
            const int64_t k1 = std::min(k.end, s_.transposed ? (k0 / width + 1) * width : k.end);
            const int64_t first = words_of(s_.packing, s_.bits, k0, k1).begin;
            for (int64_t n = rows.begin; n < rows.end; ++n)
                unpack(s_.packing, s_.bits,
                       s_.transposed ? cell(s, first, n, 4) : cell(s, n, first, 4),
                       s_.transposed ? s.row_bytes : 4, first, k0, k1,
                       out + (n - rows.begin) * stride + (k0 - k.begin), 1);
            k0 = k1;
        }
    }

    void words_along_n(const StagedRect& s, Interval rows, Interval k, std::byte* out,
                       int64_t stride) const {
        const auto simple = [&](Interval n, Interval columns) {
            if (n.empty()) return;
            const int64_t first = words_of(s_.packing, s_.bits, n.begin, n.end).begin;
            for (int64_t c = columns.begin; c < columns.end; ++c)
                unpack(s_.packing, s_.bits, cell(s, c, first, 4), 4, first, n.begin, n.end,
                       out + (n.begin - rows.begin) * stride + (c - k.begin), stride);
        };
        const Interval words{ceil_div(rows.begin, 8), rows.end / 8};
        if (s_.bits != 4 || words.empty()) {
            constexpr int64_t kRows = 128;  // their current lines fit the first cache
            for (int64_t n = rows.begin; n < rows.end; n += kRows)
                simple({n, std::min(n + kRows, rows.end)}, k);
            return;
        }
        const int64_t square = k.begin + k.size() / 8 * 8;
        simple({rows.begin, words.begin * 8}, k);
        simple({words.end * 8, rows.end}, k);
        simple({words.begin * 8, words.end * 8}, {square, k.end});
        constexpr int64_t kWords = 16;  // of a stored row: one cache line
        for (int64_t w0 = words.begin; w0 < words.end; w0 += kWords)
            for (int64_t c = k.begin; c < square; c += 8)
                for (int64_t w = w0; w < std::min(w0 + kWords, words.end); ++w)
                    square8(s, c, w, out + (w * 8 - rows.begin) * stride + (c - k.begin), stride);
    }

    /// Word `w` of the stored rows c ... c + 7: eight columns of eight logical rows.
    void square8(const StagedRect& s, int64_t c, int64_t w, std::byte* out, int64_t stride) const {
        uint64_t r[8];
        for (int i = 0; i < 8; ++i) {
            uint32_t word;
            std::memcpy(&word, cell(s, c + i, w, 4), 4);
            r[i] = s_.packing == Packing::kAwq ? spread_awq(word) : spread_stream4(word);
        }
        transpose8(r);
        for (int i = 0; i < 8; ++i) std::memcpy(out + i * stride, &r[i], 8);
    }

    void floats(const StagedRect& s, FactorType type, Interval rows, Interval groups,
                float* out) const {
        const int64_t bytes = factor_bytes(type), count = groups.size();
        for (int64_t n = rows.begin; n < rows.end; ++n)
            for (int64_t g = groups.begin; g < groups.end; ++g)
                out[(n - rows.begin) * count + g - groups.begin] = read_factor(
                    type, s_.scales_transposed ? cell(s, g, n, bytes) : cell(s, n, g, bytes));
    }

    void byte_zeros(const StagedRect& s, Interval rows, Interval groups, float* out) const {
        for (int64_t n = rows.begin; n < rows.end; ++n)
            for (int64_t g = groups.begin; g < groups.end; ++g) {
                const std::byte b = *(s_.scales_transposed ? cell(s, g, n, 1) : cell(s, n, g, 1));
                *out++ = static_cast<float>((static_cast<uint32_t>(b) + half()) & mask());
            }
    }

    void word_zeros(const StagedRect& s, Interval rows, Interval groups, float* out) const {
        constexpr int64_t kCodes = 256;
        std::array<uint32_t, 80> words;
        std::array<std::byte, kCodes> codes;
        for (int64_t n = rows.begin; n < rows.end; n += kCodes) {
            const Interval part{n, std::min(n + kCodes, rows.end)};
            const Interval range = word_interval(part);
            for (int64_t g = groups.begin; g < groups.end; ++g) {
                for (int64_t w = range.begin; w < range.end; ++w)
                    words[w - range.begin] =
                        zero_word(s_.scales_transposed ? cell(s, g, w, 4) : cell(s, w, g, 4), w);
                unpack(s_.packing, s_.bits, reinterpret_cast<const std::byte*>(words.data()), 4,
                       range.begin, part.begin, part.end, codes.data(), 1);
                const uint32_t more = s_.zero_rule == ZeroRule::kPlusOne ? 1 : 0;
                const uint32_t sign = s_.is_signed ? half() : 0;
                for (int64_t i = 0; i < part.size(); ++i)
                    out[(n - rows.begin + i) * groups.size() + g - groups.begin] =
                        static_cast<float>(((static_cast<uint32_t>(codes[i]) + more) & mask()) ^
                                           sign);
            }
        }
    }

    uint32_t zero_word(const std::byte* at, int64_t index) const {
        uint32_t word;
        std::memcpy(&word, at, 4);
        return s_.zero_rule == ZeroRule::kWordsAdd
                   ? word + s_.zero_words[index % s_.zero_word_count]
                   : word;
    }

    IntStorage s_;
};

}  // namespace

std::shared_ptr<const Codec> int_codec(const IntStorage& storage) {
    CONCLAVE_CHECK(storage.bits >= 1 && storage.bits <= 8);
    CONCLAVE_CHECK(storage.packing != Packing::kAwq || storage.bits == 4);
    return std::make_shared<const IntCodec>(storage);
}

StoredMatrix int_matrix(const MatrixSource& source, const Encoding& encoding,
                        const IntStorage& storage, const std::array<const char*, 3>& suffixes) {
    CONCLAVE_CHECK(encoding.bits == storage.bits);
    CONCLAVE_CHECK(!storage.row_pairs ||
                   (storage.bytes && storage.bits == 4 && source.stored_n % 2 == 0));
    const bool shared = encoding.group_rows == 0;
    CONCLAVE_CHECK(!shared || (!storage.scales_transposed &&
                               (encoding.zero != FactorType::kU8 || storage.bytes)));
    StoredMatrix m;
    m.source = source;
    m.encoding = encoding;
    m.codec = int_codec(storage);
    const int64_t n = source.all_rows(), k = source.k, groups = group_count(k, encoding.group);
    const auto words = [&](int64_t count) {
        return packed_words(storage.packing, storage.bits, count);
    };
    const auto add = [&](PieceRole role, int bytes, int64_t rows, int64_t cols, bool transposed) {
        if (transposed) std::swap(rows, cols);
        m.pieces.push_back({role, source.stem + suffixes[m.pieces.size()], bytes, rows, cols, ""});
    };
    const int64_t factor_rows = shared ? source.leads() : n;
    if (storage.bytes)
        add(PieceRole::kCodes, 1, storage.row_pairs ? n / 2 : n, k, false);
    else if (storage.words_along_n)
        add(PieceRole::kCodes, 4, words(n), k, true);
    else
        add(PieceRole::kCodes, 4, n, words(k), storage.transposed);
    const bool transposed = storage.scales_transposed;
    add(PieceRole::kScales, factor_bytes(encoding.scale), factor_rows, groups, transposed);
    if (encoding.zero == FactorType::kU8 && !storage.bytes)
        add(PieceRole::kZeros, 4, words(n), groups, transposed);
    else if (encoding.zero != FactorType::kNone)
        add(PieceRole::kZeros, factor_bytes(encoding.zero), factor_rows, groups, transposed);
    return m;
}

StoredMatrix imagined_int_matrix(const MatrixSource& source, const Encoding& encoding) {
    CONCLAVE_CHECK(is_integer(encoding.code) && encoding.scale != FactorType::kNone);
    IntStorage storage;
    storage.bits = encoding.bits;
    StoredMatrix m = int_matrix(source, encoding, storage,
                                {".weight_packed", ".weight_scale", ".weight_zero_point"});
    if (!encoding.permuted) return m;
    // One order for all matrices of a width, as those that share an input have.
    const int64_t k = source.k, group = encoding.group > 0 ? encoding.group : k;
    std::vector<int32_t> order(static_cast<size_t>(k));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [](int32_t a, int32_t b) {
        return mixed(static_cast<uint64_t>(a)) < mixed(static_cast<uint64_t>(b));
    });
    for (int32_t& c : order) c = static_cast<int32_t>(c / group);
    m.group_of = std::make_shared<const std::vector<int32_t>>(std::move(order));
    return m;
}

}  // namespace conclave::quant
