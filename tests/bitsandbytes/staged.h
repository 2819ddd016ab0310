// Matrices of the plugin's samples in memory, staged as the loader does it: through the plugin's
// own offset tables, with nothing else in memory.
#pragma once
#include <bitsandbytes/config.h>
#include <bitsandbytes/flat_indexer.h>
#include <bitsandbytes/quant_state.h>
#include <bitsandbytes/sample.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "runtime/engine/plugins/host.h"
#include "sharding/indexed_piece.h"
#include "tests/quant/formats/memory_tensors.h"

namespace bitsandbytes::test {

using namespace conclave;
using namespace conclave::quant;
using conclave::quant::test::MemoryTensor;
using conclave::quant::test::MemoryTensors;

inline MemoryTensors tensors_of(const StoredSample& sample) {
    MemoryTensors tensors;
    for (const auto& t : sample.tensors) tensors.all[t.name] = {t.header, t.bytes};
    return tensors;
}

inline std::optional<StoredMatrix> describe(const MatrixSource& source, const TensorLookup& tensors,
                                            const Json& config = Json::object()) {
    return Config(engine::plugin_host(), config, "config.json").describe(source, tensors);
}

/// What a rectangle of one piece needs, and no byte more.
struct StagedBytes {
    std::vector<std::byte> bytes;
    sharding::OffsetTable table;
    StagedRect rect;
};

inline void stage(const StoredPiece& p, const StoredRect& rect, const std::vector<std::byte>& from,
                  StagedBytes& out) {
    out.rect.rect = rect;
    if (rect.rows.empty() || rect.cols.empty()) return;
    if (p.indexer.empty()) {
        const int64_t width = rect.cols.size() * p.element_bytes;
        for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r) {
            const auto* at = from.data() + (r * p.cols + rect.cols.begin) * p.element_bytes;
            out.bytes.insert(out.bytes.end(), at, at + width);
        }
        out.rect.row_bytes = width;
    } else {
        ASSERT_EQ(p.indexer, FlatIndexer::kName);
        out.table = FlatIndexer().index(p, rect);
        ASSERT_EQ(sharding::table_fault(out.table, p, rect, from.size()), "") << p.tensor;
        for (const sharding::ByteRange& r : out.table.ranges)
            out.bytes.insert(out.bytes.end(), from.data() + r.offset, from.data() + r.end());
        out.rect.places = out.table.rows;
    }
    out.bytes.shrink_to_fit();  // a sanitizer then sees a read behind it
    out.rect.data = out.bytes.data();
}

/// The numbers of rows n x columns k, decoded a few rows at a time.
inline std::vector<float> decode(const StoredMatrix& m, const MemoryTensors& tensors, Interval n,
                                 Interval k, std::mt19937& rng) {
    std::vector<StagedBytes> pieces(m.pieces.size());
    std::vector<StagedRect> staged;
    for (size_t i = 0; i < pieces.size(); ++i) {
        stage(m.pieces[i], m.codec->needs(m, i, n, k), tensors.all.at(m.pieces[i].tensor).bytes,
              pieces[i]);
        staged.push_back(pieces[i].rect);
    }
    std::vector<float> values;
    for (int64_t r = n.begin; r < n.end;) {
        const Interval part{r, std::min(n.end, r + 1 + static_cast<int64_t>(rng() % 9))};
        const size_t bytes = m.codec->scratch_bytes(m, part, k);
        std::vector<std::byte> room(bytes + 128, std::byte{0xa5});
        std::byte* scratch =
            room.data() + (64 - reinterpret_cast<uintptr_t>(room.data()) % 64) % 64;
        const CodeTile tile = m.codec->decode(m, part, k, staged, scratch);
        for (size_t i = bytes; i < bytes + 64; ++i) EXPECT_EQ(scratch[i], std::byte{0xa5});
        EXPECT_EQ(tile.rows, part.size());
        quant::test::append_values(m, k, tile, values);
        r = part.end;
    }
    return values;
}

/// Rows from `first` on of `whole`, all of k.
inline void expect_cut(const StoredMatrix& m, const MemoryTensors& tensors,
                       const std::vector<float>& whole, int64_t first, Interval n, Interval k,
                       std::mt19937& rng) {
    const std::vector<float> got = decode(m, tensors, n, k, rng);
    ASSERT_EQ(static_cast<int64_t>(got.size()), n.size() * k.size());
    for (int64_t r = 0; r < n.size(); ++r)
        for (int64_t c = 0; c < k.size(); ++c) {
            const float want =
                whole[static_cast<size_t>((first + n.begin + r) * m.source.k + k.begin + c)];
            const float have = got[static_cast<size_t>(r * k.size() + c)];
            ASSERT_EQ(std::memcmp(&want, &have, 4), 0)
                << m.encoding.to_string() << " " << m.source.n << " x " << m.source.k << ", rows "
                << n.to_string() << ", columns " << k.to_string() << ": [" << r << ", " << c
                << "] is " << have << ", not " << want;
        }
}

/// The sample's n x k matrix as `leads` of a 3-D parameter.
inline StoredSample stacked(StoredSample s, int64_t leads) {
    const int64_t rows = s.source.n / leads;
    for (auto& t : s.tensors) {
        if (t.name == "layer.weight" && t.header.dtype == "I8")
            t.header.shape = {leads, rows, s.source.k};
        if (t.name == "layer.SCB") t.name = "layer.weight.SCB", t.header.shape = {leads, rows};
        if (t.name == "layer.weight_format") t.name = "layer.weight.weight_format";
        if (t.name.find("quant_state") == std::string::npos) continue;
        Json state =
            Json::parse(std::string(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size()));
        state["shape"] = {leads, rows, s.source.k};
        const std::string text = state.dump();
        t.bytes.assign(reinterpret_cast<const std::byte*>(text.data()),
                       reinterpret_cast<const std::byte*>(text.data()) + text.size());
        t.header.shape = {static_cast<int64_t>(text.size())};
    }
    s.source.stem = "layer.weight", s.source.bare = true;
    s.source.stored_n = rows, s.source.lead_count = leads;
    return s;
}

}  // namespace bitsandbytes::test
