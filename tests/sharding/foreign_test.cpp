// Formats, codecs and indexers that say or throw what they must not: each is an Error that names
// the part, on all ranks, and nothing is read where it should not be.
#include "sharding/foreign.h"

#include <gtest/gtest.h>

#include "quant/quantization_config.h"
#include "runtime/exec/arenas.h"
#include "sharding/weight_builder.h"
#include "sharding/weight_store.h"
#include "tests/support/local_ranks.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace conclave::sharding {
namespace {

using quant::CodeTile;
using quant::StoredMatrix;

/// Bytes as codes of unsigned integers, one scale a row; both spoiled as the test wants.
class Bytes final : public quant::Codec {
  public:
    std::function<void(CodeTile&)> spoil;
    const char* name() const override { return "bytes"; }
    quant::StoredRect needs(const StoredMatrix&, size_t, Interval n, Interval k) const override {
        return {n, k};
    }
    size_t scratch_bytes(const StoredMatrix&, Interval n, Interval) const override {
        return static_cast<size_t>(n.size()) * 4;
    }
    CodeTile decode(const StoredMatrix&, Interval n, Interval k,
                    std::span<const quant::StagedRect> staged, std::byte* scratch) const override {
        auto* scales = reinterpret_cast<float*>(scratch);
        std::fill_n(scales, n.size(), 1.0f);
        CodeTile tile{staged[0].row(n.begin), staged[0].row_bytes, n.size(), k.size(), scales};
        tile.factor_stride = 1;
        if (spoil) spoil(tile);
        return tile;
    }
};

class Format final : public quant::QuantizationConfig {
  public:
    explicit Format(std::function<void(StoredMatrix&)> spoil) : spoil_(std::move(spoil)) {}
    const char* name() const override { return "spoiled"; }
    std::optional<StoredMatrix> describe(const quant::MatrixSource& s,
                                         const quant::TensorLookup&) const override {
        StoredMatrix m;
        m.source = s;
        m.encoding.code = quant::CodeType::kU8;
        m.encoding.bits = 8;
        m.encoding.scale = quant::FactorType::kF32;
        m.codec = std::make_shared<Bytes>();
        m.pieces = {{quant::PieceRole::kCodes, s.stem + ".weight", 1, s.n, s.k}};
        spoil_(m);
        return m;
    }

  private:
    std::function<void(StoredMatrix&)> spoil_;
};

/// Rows as they lie, in blocks of 8 elements, placed as the test wants.
class Placed final : public ShardIndexer {
  public:
    std::function<void(OffsetTable&)> spoil;
    OffsetTable index(const quant::StoredPiece& p, const quant::StoredRect& rect) const override {
        OffsetTable t;
        t.ranges.push_back({static_cast<uint64_t>(rect.rows.begin * p.cols),
                            static_cast<uint64_t>(rect.rows.size() * p.cols)});
        for (int64_t r = 0; r < rect.rows.size(); ++r) t.rows.push_back({r * p.cols, 0});
        spoil(t);
        return t;
    }
};

/// What loading a [48, 64] matrix over two ranks ends with; empty: it loads.
std::string outcome(const std::function<void(StoredMatrix&)>& spoil,
                    const IndexerRegistry& indexers = {}) {
    testing::TempDir dir;
    testing::write_safetensors(dir / "model.safetensors",
                               {{"w.weight", "U8", {48, 64}, std::string(48 * 64, 7)}});
    const auto failures = test::run_ranks_collect(2, [&](comm::Communicator& comm) {
        const auto checkpoint = Checkpoint::open(dir.path());
        const Format format(spoil);
        const quant::KernelRegistry kernels = quant::KernelRegistry::built_in();
        exec::Arenas executor(exec::Topology::pretend(1, 1), 1);
        WeightStore store({1.0});
        std::unique_ptr<WeightBuilder> b;
        ParallelLinear layer;
        comm::together(comm, [&] {
            b = std::make_unique<WeightBuilder>(
                BuildContext{*checkpoint, format, kernels, detect_cpu(), quant::Activations::kF32,
                             false, comm.rank(), store},
                RankGrid{2, 2, 1});
            layer = b->column_parallel("w", 48, 64);
            store.map();
        });
        PackingSink sink(store.bases());
        load_weights(*checkpoint, indexers, b->items(), sink, executor, comm, nullptr);
    });
    std::string first;
    for (const auto& f : failures) {
        EXPECT_EQ(static_cast<bool>(f), static_cast<bool>(failures[0])) << "on one rank only";
        if (!f) continue;
        try {
            std::rethrow_exception(f);
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kInternal) << e.what();
            if (first.empty()) first = e.what();
        }
    }
    return first;
}

void expect_names(const std::string& outcome, std::initializer_list<const char*> words) {
    for (const char* w : words)
        EXPECT_NE(outcome.find(w), std::string::npos) << w << ": " << outcome;
}

TEST(Foreign, WhatIsTrueLoads) {
    EXPECT_EQ(outcome([](StoredMatrix&) {}), "");
}

TEST(Foreign, MatricesThatCannotBeAreRefusedByName) {
    const std::pair<const char*, std::function<void(StoredMatrix&)>> cases[] = {
        {"no codec", [](auto& m) { m.codec = nullptr; }},
        {"no stored tensor", [](auto& m) { m.pieces.clear(); }},
        {"without levels", [](auto& m) { m.encoding.code = quant::CodeType::kT4; }},
        {"without scales", [](auto& m) { m.encoding.scale = quant::FactorType::kNone; }},
        {"fewer than no", [](auto& m) { m.encoding.group = -32; }},
        {"9 bits", [](auto& m) { m.encoding.bits = 9; }},
        {"47 x 64", [](auto& m) { m.source.n = 47; }},
        {"groups of 3 columns",
         [](auto& m) { m.group_of = std::make_shared<std::vector<int32_t>>(3, 0); }},
        {"a group that there is not",
         [](auto& m) { m.group_of = std::make_shared<std::vector<int32_t>>(64, -1); }},
        {"scales of 63 columns",
         [](auto& m) { m.column_scale = std::make_shared<std::vector<float>>(63, 1.0f); }},
        {"a global scale", [](auto& m) { m.global.divisor = 0; }},
        {"no such tensor", [](auto& m) { m.pieces[0].tensor = "other"; }},
        {"49 x 64", [](auto& m) { m.pieces[0].rows = 49; }},
        {"4611686018427387904 x 64", [](auto& m) { m.pieces[0].rows = int64_t{1} << 62; }},
        {"-1 bytes", [](auto& m) { m.pieces[0].element_bytes = -1; }},
        {"for 0 of them", [](auto& m) { m.pieces[0].block = 0; }},
    };
    for (const auto& [words, spoil] : cases)
        expect_names(outcome(spoil), {"format spoiled", words, "model.safetensors"});
}

TEST(Foreign, WhateverIsThrownNamesWhoThrewIt) {
    expect_names(outcome([](StoredMatrix&) { throw std::runtime_error("oops"); }),
                 {"format spoiled throws: oops"});
    expect_names(outcome([](StoredMatrix&) { throw 7; }), {"format spoiled throws something"});
    expect_names(outcome([](StoredMatrix& m) {
                     const auto codec = std::make_shared<Bytes>();
                     codec->spoil = [](CodeTile&) { throw 7; };
                     m.codec = codec;
                 }),
                 {"codec bytes throws something"});
}

TEST(Foreign, TilesThatCannotBeReadAreRefusedByName) {
    const std::pair<const char*, std::function<void(CodeTile&)>> cases[] = {
        {"x 63 codes", [](CodeTile& t) { --t.cols; }},
        {"x 64 codes", [](CodeTile& t) { ++t.rows; }},
        {"rows of 0 bytes", [](CodeTile& t) { t.codes = nullptr; }},
        {"rows of 63 bytes", [](CodeTile& t) { t.row_bytes = 63; }},
        {"no scales", [](CodeTile& t) { t.scales = nullptr; }},
        {"from group 1 on", [](CodeTile& t) { t.first_group = 1; }},
        {"0 scales a row", [](CodeTile& t) { t.factor_stride = 0; }},
    };
    for (const auto& [words, spoil] : cases)
        expect_names(outcome([&spoil = spoil](StoredMatrix& m) {
                         const auto codec = std::make_shared<Bytes>();
                         codec->spoil = spoil;
                         m.codec = codec;
                     }),
                     {"codec bytes", words, "w.weight"});
}

TEST(Foreign, RowsThatAnIndexerPutsOutsideAreRefusedByName) {
    const std::pair<const char*, std::function<void(OffsetTable&)>> cases[] = {
        {"phase 8", [](OffsetTable& t) { t.rows.back().phase = 8; }},
        {"phase 1", [](OffsetTable& t) { t.rows.back().phase = 1; }},
        {"byte -1", [](OffsetTable& t) { t.rows[0].at = -1; }},
        {"is placed at byte", [](OffsetTable& t) { t.rows.back().at += 1; }},
        {"rows are placed", [](OffsetTable& t) { t.rows.pop_back(); }},
        {"is outside the tensor", [](OffsetTable& t) { t.ranges[0].bytes = 1 << 20; }},
        {"is empty", [](OffsetTable& t) { t.ranges[0].bytes = 0; }},
        {"begins before", [](OffsetTable& t) { t.ranges.push_back(t.ranges[0]); }},
    };
    for (const auto& [words, spoil] : cases) {
        const auto indexer = std::make_shared<Placed>();
        indexer->spoil = spoil;
        expect_names(outcome(
                         [](StoredMatrix& m) {
                             m.pieces[0].indexer = "placed";
                             m.pieces[0].block = 8;
                             m.pieces[0].element_bytes = 8;
                         },
                         {{"placed", indexer}}),
                     {"shard indexer placed", words, "w.weight"});
    }
    expect_names(outcome([](StoredMatrix& m) { m.pieces[0].indexer = "none"; }),
                 {"no shard indexer is named none"});
}

}  // namespace
}  // namespace conclave::sharding
