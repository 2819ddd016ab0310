#include "sharding/foreign.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include <spdlog/fmt/fmt.h>

#include "sharding/indexed_piece.h"

namespace conclave::sharding {
namespace {

using quant::CodeType;
using quant::FactorType;

std::string encoding_fault(const quant::Encoding& e) {
    if (e.code > quant::kLastCode || e.scale > FactorType::kI8 || e.zero > FactorType::kE8M0)
        return "a type that there is not";
    if ((e.scale == FactorType::kI8) != (e.super > 0) ||
        (e.super > 0 &&
         (!std::has_single_bit(static_cast<unsigned>(e.super)) ||
          (e.zero != FactorType::kNone && (e.zero != FactorType::kU8 || !e.zero_added)))))
        return "super-scales that there are not";
    if (quant::is_scaled(e.code) != (e.scale != FactorType::kNone))
        return quant::is_scaled(e.code) ? "scaled codes without scales" : "numbers with scales";
    if (!quant::is_integer(e.code) && e.zero != FactorType::kNone)
        return "zeros for codes that are no integers";
    if ((e.code == CodeType::kT4) != (e.levels != nullptr))
        return e.levels ? "levels for codes that are no indices" : "4-bit indices without levels";
    if (e.group < 0 || e.group_rows < 0) return "groups of fewer than no columns or rows";
    if (e.bits < 0 || e.bits > 8) return fmt::format("codes of {} bits", e.bits);
    return "";
}

std::string matrix_fault(const quant::StoredMatrix& m, const quant::MatrixSource& s) {
    if (!m.codec) return "no codec";
    if (m.pieces.empty()) return "no stored tensor";
    if (m.source.n != s.n || m.source.k != s.k)
        return fmt::format("a matrix of {} x {}", m.source.n, m.source.k);
    if (const std::string fault = encoding_fault(m.encoding); !fault.empty()) return fault;
    const auto k = static_cast<size_t>(s.k);
    if (m.group_of && m.group_of->size() != k)
        return fmt::format("groups of {} columns", m.group_of->size());
    if (m.group_of && std::any_of(m.group_of->begin(), m.group_of->end(),
                                  [&](int32_t g) { return g < 0 || g >= s.k; }))
        return "a column in a group that there is not";
    if (m.column_scale && m.column_scale->size() != k)
        return fmt::format("scales of {} columns", m.column_scale->size());
    if (!std::isfinite(m.global.of(1)))
        return fmt::format("a global scale of {} / {}", m.global.multiplier, m.global.divisor);
    return "";
}

std::string piece_fault(const quant::StoredPiece& p, const StoredTensor* t) {
    const auto bytes = piece_bytes(p);
    if (t && bytes && *bytes <= t->bytes && (p.block == 1 || !p.indexer.empty())) return "";
    return fmt::format("{} x {} elements, {} bytes for {} of them", p.rows, p.cols, p.element_bytes,
                       p.block);
}

std::string tile_fault(const quant::CodeTile& tile, const quant::Encoding& e,
                       const quant::Grouping* groups, Interval rows, Interval cols) {
    if (tile.rows != rows.size() || tile.cols != cols.size())
        return fmt::format("{} x {} codes", tile.rows, tile.cols);
    const int64_t width = quant::is_scaled(e.code) ? 1 : quant::code_bits(e.code) / 8;
    if (!tile.codes || tile.row_bytes < tile.cols * width)
        return fmt::format("rows of {} bytes", tile.codes ? tile.row_bytes : 0);
    if (!groups) return "";
    if (!tile.scales) return "no scales";
    if (e.zero != FactorType::kNone && !tile.zeros) return "no zeros";
    const auto [least, most] =
        std::minmax_element(groups->runs.begin(), groups->runs.end(),
                            [](const auto& a, const auto& b) { return a.group < b.group; });
    if (least == groups->runs.end()) return "";
    if (least->group < tile.first_group || most->group - tile.first_group >= tile.factor_stride)
        return fmt::format("{} scales a row from group {} on, for groups {} to {}",
                           tile.factor_stride, tile.first_group, least->group, most->group);
    if (e.super == 0) return "";
    if (!tile.super_scales || (e.zero != FactorType::kNone && !tile.super_zeros))
        return "no super-scales";
    if (least->group / e.super < tile.first_super ||
        most->group / e.super - tile.first_super >= tile.super_stride)
        return fmt::format("{} super-scales a row from super-block {} on, for groups {} to {}",
                           tile.super_stride, tile.first_super, least->group, most->group);
    return "";
}

}  // namespace

void check_matrix(const Checkpoint& checkpoint, const quant::StoredMatrix& m,
                  const quant::MatrixSource& source, const std::string& format) {
    const auto wrong = [&](const std::string& tensor) {
        return Error(ErrorCode::kInternal, "format " + format + " describes what cannot be")
            .tensor(tensor);
    };
    if (const std::string fault = matrix_fault(m, source); !fault.empty())
        throw wrong(source.stem)
            .expected(fmt::format("a matrix of {} x {}", source.n, source.k))
            .found(fault);
    for (const quant::StoredPiece& p : m.pieces) {
        const StoredTensor* t = checkpoint.find(p.tensor);
        if (const std::string fault = piece_fault(p, t); !fault.empty())
            throw wrong(p.tensor).expected(t ? t->describe() : "no such tensor").found(fault);
    }
}

void check_tile(const quant::CodeTile& tile, const quant::StoredMatrix& m,
                const quant::Grouping* groups, Interval rows, Interval cols) {
    const std::string fault = tile_fault(tile, m.encoding, groups, rows, cols);
    if (fault.empty()) return;
    throw Error(ErrorCode::kInternal, std::string("codec ") + m.codec->name() +
                                          " decodes something else than it was asked for")
        .tensor(m.pieces[0].tensor)
        .expected("rows " + rows.to_string() + ", columns " + cols.to_string() + " in " +
                  m.encoding.to_string())
        .found(fault);
}

}  // namespace conclave::sharding
