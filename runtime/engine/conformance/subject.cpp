#include "runtime/engine/conformance/subject.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <spdlog/fmt/fmt.h>

#include "quant/dequantize.h"
#include "runtime/base/error.h"
#include "runtime/engine/conformance/indexer_laws.h"
#include "sharding/indexed_piece.h"

namespace conclave::engine::conformance {

using quant::CodeTile;
using quant::Encoding;
using quant::FactorType;
using quant::StoredMatrix;
using quant::StoredPiece;
using quant::StoredRect;

std::vector<std::byte> Tensors::read(const std::string& name, uint64_t max_bytes) const {
    if (!header(name)) throw Error(ErrorCode::kBadContent, "tensor is missing").tensor(name);
    if (bytes(name) > max_bytes)
        throw Error(ErrorCode::kBadContent, "tensor is too large").tensor(name);
    std::vector<std::byte> out(bytes(name));
    read_at(name, 0, out);
    return out;
}

uint64_t header_bytes(const quant::TensorHeader& header) {
    for (const sharding::StoredTypeInfo& type : sharding::kStoredTypes)
        if (header.dtype == type.name)
            return sharding::stored_bytes(type.type, header.shape).value_or(0);
    return 0;
}

SampleTensors::SampleTensors(std::vector<quant::StoredSample::Tensor> tensors)
    : tensors_(std::move(tensors)) {}

const quant::StoredSample::Tensor* SampleTensors::find(const std::string& name) const {
    for (const auto& t : tensors_)
        if (t.name == name) return &t;
    return nullptr;
}

std::optional<quant::TensorHeader> SampleTensors::header(const std::string& name) const {
    const auto* t = find(name);
    return t ? std::optional(t->header) : std::nullopt;
}

std::vector<std::string> SampleTensors::names() const {
    std::vector<std::string> out;
    for (const auto& t : tensors_) out.push_back(t.name);
    return out;
}

uint64_t SampleTensors::bytes(const std::string& name) const {
    const auto* t = find(name);
    return t ? t->bytes.size() : 0;
}

void SampleTensors::read_at(const std::string& name, uint64_t offset,
                            std::span<std::byte> out) const {
    const auto* t = find(name);
    if (!t || offset > t->bytes.size() || out.size() > t->bytes.size() - offset)
        throw Error(ErrorCode::kBadContent, "a read is outside the tensor").tensor(name);
    std::copy_n(t->bytes.begin() + static_cast<int64_t>(offset), out.size(), out.begin());
}

CheckpointTensors::CheckpointTensors(std::shared_ptr<const sharding::Checkpoint> checkpoint,
                                     std::vector<std::string> names)
    : checkpoint_(std::move(checkpoint)), names_(std::move(names)) {}

std::optional<quant::TensorHeader> CheckpointTensors::header(const std::string& name) const {
    const sharding::StoredTensor* t = checkpoint_->find(name);
    if (!t) return std::nullopt;
    return quant::TensorHeader{sharding::stored_type_name(t->type), t->shape};
}

std::optional<std::string> CheckpointTensors::metadata(const std::string& key) const {
    return checkpoint_->metadata(key);
}

uint64_t CheckpointTensors::bytes(const std::string& name) const {
    const sharding::StoredTensor* t = checkpoint_->find(name);
    return t ? t->bytes : 0;
}

void CheckpointTensors::read_at(const std::string& name, uint64_t offset,
                                std::span<std::byte> out) const {
    const sharding::StoredTensor* t = checkpoint_->find(name);
    if (!t || offset > t->bytes || out.size() > t->bytes - offset)
        throw Error(ErrorCode::kBadContent, "a read is outside the tensor").tensor(name);
    checkpoint_->read(t->file, t->offset + offset, out);
}

namespace {

std::shared_ptr<Subject> sample_of(const quant::QuantizationFormat& format, int64_t n, int64_t k,
                                   uint64_t seed) {
    quant::StoredSample sample = format.sample(n, k, seed);
    auto s = std::make_shared<Subject>();
    s->name = fmt::format("sample({}, {}, {})", n, k, seed);
    s->format = &format;
    s->config = std::move(sample.config);
    s->source = sample.source;
    s->weights = std::move(sample.weights);
    if (s->source.n < n || s->source.k < k)
        throw Found{
            fmt::format("{} is of {} x {} weights only", s->name, s->source.n, s->source.k)};
    if (static_cast<int64_t>(s->weights.size()) != s->source.n * s->source.k)
        throw Found{fmt::format("{} has {} weights for {} x {}", s->name, s->weights.size(),
                                s->source.n, s->source.k)};
    for (const auto& t : sample.tensors)
        if (t.bytes.size() != header_bytes(t.header))
            throw Found{fmt::format("{}: tensor {} has {} bytes, its header is of {}", s->name,
                                    t.name, t.bytes.size(), header_bytes(t.header))};
    s->tensors = std::make_shared<SampleTensors>(std::move(sample.tensors));
    return s;
}

}  // namespace

Subjects samples_of(const quant::QuantizationFormat& format,
                    const sharding::IndexerRegistry& indexers, bool described) {
    Subjects subjects;
    if (!format.sample) return subjects;
    subjects.sample = [&format, &indexers, described](int64_t n, int64_t k, uint64_t seed) {
        const auto s = sample_of(format, n, k, seed);
        s->indexers = &indexers;
        if (!described) return std::shared_ptr<const Subject>(s);
        const auto config = format.from_config(s->config, "sample");
        auto m = config ? config->describe(s->source, *s->tensors) : std::nullopt;
        if (!m) throw Found{"describe() does not know the tensors of " + s->name};
        s->matrix = *std::move(m);
        return std::shared_ptr<const Subject>(s);
    };
    return subjects;
}

std::string description_fault(const StoredMatrix& m, const quant::MatrixSource& source,
                              const Tensors& tensors, const sharding::IndexerRegistry& indexers) {
    if (!m.codec) return "the description has no codec";
    if (m.pieces.empty()) return "the description has no pieces";
    if (m.source.n != source.n || m.source.k != source.k || m.source.stem != source.stem)
        return fmt::format("the description is of {} ({} x {}), asked was for {} ({} x {})",
                           m.source.stem, m.source.n, m.source.k, source.stem, source.n, source.k);
    if (m.group_of && static_cast<int64_t>(m.group_of->size()) != source.k)
        return fmt::format("group_of has {} columns, not {}", m.group_of->size(), source.k);
    if (m.column_scale && static_cast<int64_t>(m.column_scale->size()) != source.k)
        return fmt::format("column_scale has {} columns, not {}", m.column_scale->size(), source.k);
    if (m.encoding.code == quant::CodeType::kT4 && !m.encoding.levels)
        return "the encoding has no levels";
    for (size_t i = 0; i < m.pieces.size(); ++i) {
        const StoredPiece& p = m.pieces[i];
        const auto header = tensors.header(p.tensor);
        if (!header) return "piece " + p.tensor + " is of no tensor";
        const auto bytes = sharding::piece_bytes(p);
        if (!bytes || *bytes > tensors.bytes(p.tensor))
            return fmt::format(
                "piece {} of {} x {} elements, {} bytes for {}, is larger than its tensor of {} "
                "bytes",
                p.tensor, p.rows, p.cols, p.element_bytes, p.block, tensors.bytes(p.tensor));
        if (p.block != 1 && p.indexer.empty())
            return fmt::format("piece {} has blocks of {} elements, but no indexer", p.tensor,
                               p.block);
        if (!p.indexer.empty() && !indexers.contains(p.indexer))
            return "piece " + p.tensor + " names no registered indexer: " + p.indexer;
        const StoredRect r = m.codec->needs(m, i, {0, source.n}, {0, source.k});
        if (r.rows.begin < 0 || r.rows.end > p.rows || r.cols.begin < 0 || r.cols.end > p.cols)
            return fmt::format("of piece {}, {} x {}, all of the matrix needs {}", p.tensor, p.rows,
                               p.cols, rect_text(r));
    }
    return "";
}

StoredRect needs_of(const Subject& s, size_t piece, Interval n, Interval k) {
    const StoredPiece& p = s.matrix.pieces[piece];
    const StoredRect r = s.matrix.codec->needs(s.matrix, piece, n, k);
    const auto inside = [](Interval part, int64_t extent) {
        return part.begin >= 0 && part.begin <= part.end && part.end <= extent;
    };
    if (!inside(r.rows, p.rows) || !inside(r.cols, p.cols))
        throw Found{fmt::format(
            "rows {} columns {} of the matrix: needs() asks for {} of piece {}, which is {} x {}",
            n.to_string(), k.to_string(), rect_text(r), p.tensor, p.rows, p.cols)};
    return r;
}

namespace {

void stage_indexed(const Subject& s, const StoredPiece& p, const StoredRect& rect, std::byte poison,
                   Staged& out) {
    sharding::OffsetTable& table = out.tables.emplace_back();
    const auto indexer = s.indexers->find(p.indexer);
    if (indexer == s.indexers->end()) throw Found{"there is no indexer " + p.indexer};
    if (rect.rows.empty() || rect.cols.empty())
        table.rows.resize(static_cast<size_t>(std::max<int64_t>(0, rect.rows.size())));
    else
        table = indexer->second->index(p, rect);
    const std::string fault = sharding::table_fault(table, p, rect, s.tensors->bytes(p.tensor));
    if (!fault.empty() && !rect.rows.empty() && !rect.cols.empty())
        throw Found{"indexer " + p.indexer + ", " + rect_text(rect) + ": " + fault};
    size_t total = 0;
    for (const auto& r : table.ranges) total += r.bytes;
    std::byte* to = out.memory.emplace_back(total, poison).data();
    for (const auto& r : table.ranges) {
        s.tensors->read_at(p.tensor, r.offset, {to, r.bytes});
        to += r.bytes;
    }
    out.rects.push_back({rect, out.memory.back().data(), 0, table.rows});
}

}  // namespace

Staged stage(const Subject& s, Interval n, Interval k, std::byte poison, int64_t gap) {
    Staged out;
    const size_t pieces = s.matrix.pieces.size();
    out.memory.reserve(pieces);
    out.tables.reserve(pieces);
    for (size_t i = 0; i < pieces; ++i) {
        const StoredPiece& p = s.matrix.pieces[i];
        const StoredRect rect = needs_of(s, i, n, k);
        if (!p.indexer.empty()) {
            stage_indexed(s, p, rect, poison, out);
            continue;
        }
        out.tables.emplace_back();
        const int64_t width = rect.cols.size() * p.element_bytes, rows = rect.rows.size();
        const int64_t pitch = width + gap * p.element_bytes;
        const bool none = rows == 0 || width == 0;
        const auto bytes = static_cast<size_t>(none ? 0 : (rows - 1) * pitch + width);
        std::byte* to = out.memory.emplace_back(bytes, poison).data();
        for (int64_t r = 0; r < rows && !none; ++r)
            s.tensors->read_at(
                p.tensor,
                static_cast<uint64_t>(((rect.rows.begin + r) * p.cols + rect.cols.begin) *
                                      p.element_bytes),
                {to + r * pitch, static_cast<size_t>(width)});
        out.rects.push_back({rect, to, pitch, {}});
    }
    return out;
}

namespace {

void append_row(const Subject& s, Interval k, const CodeTile& tile, int64_t r,
                const quant::RowDecoder& decoder, Decoded& d) {
    const StoredMatrix& m = s.matrix;
    const size_t at = d.values.size();
    d.values.resize(at + static_cast<size_t>(k.size()));
    decoder.decode(tile, r, d.values.data() + at);
    if (!quant::is_scaled(m.encoding.code)) return;
    for (int64_t c = 0; c < k.size(); ++c) {
        const int64_t col = k.begin + c;
        const int64_t group = m.group_of             ? (*m.group_of)[static_cast<size_t>(col)]
                              : m.encoding.group > 0 ? col / m.encoding.group
                                                     : 0;
        const int64_t g = r * tile.factor_stride + group - tile.first_group;
        d.codes.push_back(static_cast<uint32_t>(tile.codes[r * tile.row_bytes + c]));
        d.scales.push_back(tile.scales[g]);
        d.zeros.push_back(tile.zeros ? tile.zeros[g] : 0);
    }
}

void check_tile(const Subject& s, const CodeTile& tile, Interval n, Interval k) {
    const Encoding& e = s.matrix.encoding;
    const bool scaled = quant::is_scaled(e.code);
    const std::string cut =
        fmt::format("rows {} columns {}: decode() gives ", n.to_string(), k.to_string());
    if (tile.rows != n.size() || tile.cols != k.size())
        throw Found{fmt::format("{}a tile of {} x {}", cut, tile.rows, tile.cols)};
    if (!tile.codes) throw Found{cut + "no codes"};
    if (scaled != (tile.scales != nullptr))
        throw Found{cut + (scaled ? "no scales" : "scales, the encoding has none")};
    if ((e.zero != FactorType::kNone) != (tile.zeros != nullptr))
        throw Found{cut + (tile.zeros ? "zeros, the encoding has none" : "no zeros")};
    if (reinterpret_cast<uintptr_t>(tile.scales) % 4 || reinterpret_cast<uintptr_t>(tile.zeros) % 4)
        throw Found{cut + "scales or zeros that are not 4-byte aligned"};
}

}  // namespace

Decoded decode(const Subject& s, Interval n, Interval k, const Staged& staged, std::byte poison) {
    const StoredMatrix& m = s.matrix;
    GuardedBytes scratch(m.codec->scratch_bytes(m, n, k), poison, 64);
    const CodeTile tile = m.codec->decode(m, n, k, staged.rects, scratch.data());
    if (const std::string beside = scratch.written_beside(); !beside.empty())
        throw Found{fmt::format("rows {} columns {}: decode() {}: scratch_bytes() is too little",
                                n.to_string(), k.to_string(), beside)};
    check_tile(s, tile, n, k);
    quant::MatrixLayout layout;
    layout.k = k.size();
    layout.encoding = m.encoding;
    layout.groups = quant::local_grouping(m, k);
    layout.global = m.global;
    if (m.column_scale)
        layout.column_scale = std::make_shared<const std::vector<float>>(
            m.column_scale->begin() + k.begin, m.column_scale->begin() + k.end);
    const quant::RowDecoder decoder(layout);
    Decoded d;
    d.n = n, d.k = k;
    for (int64_t r = 0; r < n.size(); ++r) append_row(s, k, tile, r, decoder, d);
    return d;
}

Decoded decode(const Subject& s, Interval n, Interval k) {
    return decode(s, n, k, stage(s, n, k, std::byte{0x5a}, 0), std::byte{0xa5});
}

std::string difference(const Subject& s, const Decoded& part, const Decoded& all,
                       const std::string& part_name, const std::string& all_name) {
    const auto text = [&](const Decoded& d, size_t i) {
        std::string t = fmt::format("{:.9g}", d.values[i]);
        if (d.codes.empty()) return t;
        t += fmt::format(" (code {}, scale {:.9g}", d.codes[i], d.scales[i]);
        if (s.matrix.encoding.zero != FactorType::kNone) t += fmt::format(", zero {}", d.zeros[i]);
        return t + ")";
    };
    const auto same = [](float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; };
    for (int64_t r = part.n.begin; r < part.n.end; ++r)
        for (int64_t c = part.k.begin; c < part.k.end; ++c) {
            const auto i =
                static_cast<size_t>((r - part.n.begin) * part.k.size() + c - part.k.begin);
            const auto j = static_cast<size_t>((r - all.n.begin) * all.k.size() + c - all.k.begin);
            const bool values = same(part.values[i], all.values[j]);
            const bool made =
                part.codes.empty() || all.codes.empty() ||
                (part.codes[i] == all.codes[j] && same(part.scales[i], all.scales[j]) &&
                 same(part.zeros[i], all.zeros[j]));
            if (values && made) continue;
            return fmt::format("row {}, column {}: {} {}, {} {}", r, c, part_name, text(part, i),
                               all_name, text(all, j));
        }
    return "";
}

}  // namespace conclave::engine::conformance
