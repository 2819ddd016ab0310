// From a file to packed weights on ranks: every loader shape, parts stored apart and fused, against
// the matrices that were written. Identity slicing makes no offset table; an indexer does.
#include "sharding/loader.h"

#include <gtest/gtest.h>

#include <random>

#include "quant/quantization_config.h"
#include "runtime/base/half.h"
#include "runtime/exec/arenas.h"
#include "sharding/weight_builder.h"
#include "sharding/weight_store.h"
#include "tests/support/local_ranks.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace conclave::sharding {
namespace {

using testing::TensorToWrite;

/// Values that bf16, f16 and f32 hold exactly, so that one number stands for the stored weight.
std::vector<float> random_weights(std::mt19937& random, int64_t n) {
    std::vector<float> v(n);
    for (float& x : v) x = static_cast<float>(static_cast<int>(random() % 255) - 127) / 64;
    return v;
}

TensorToWrite tensor(const std::string& name, const std::string& dtype, std::vector<int64_t> shape,
                     const std::vector<float>& v) {
    std::vector<uint16_t> half;
    for (float x : v) half.push_back(dtype == "F16" ? f32_to_f16(x) : f32_to_bf16(x));
    return {name, dtype, std::move(shape),
            dtype == "F32" ? testing::raw_bytes(v) : testing::raw_bytes(half)};
}

/// Multiplies the rank's part of a layer with x and compares with rows and columns of `w`.
struct Rig {
    exec::Arenas executor{exec::Topology::pretend(2, 1), 2};
    WeightStore store{{0.5, 0.5}};
    quant::KernelRegistry kernels = quant::KernelRegistry::built_in();
    std::unique_ptr<quant::QuantizationConfig> format = quant::unquantized_config();
    Workspace workspace;

    StepContext context(comm::Communicator& comm) {
        return {comm,    comm,         executor, workspace, quant::vector_ops(detect_cpu()),
                nullptr, store.bases()};
    }
};

std::vector<float> product(const std::vector<float>& x, const std::vector<float>& w, int64_t n,
                           int64_t k) {
    std::vector<float> y(n);
    for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t i = 0; i < k; ++i) sum += static_cast<double>(x[i]) * w[j * k + i];
        y[j] = static_cast<float>(sum);
    }
    return y;
}

void expect_near(const std::vector<float>& got, const float* want, const std::string& what) {
    for (size_t i = 0; i < got.size(); ++i)
        ASSERT_NEAR(got[i], want[i], 2e-4) << what << " element " << i;
}

class Shapes : public ::testing::TestWithParam<std::tuple<int, bool, bool, std::string>> {};

TEST_P(Shapes, LoadTheirPart) {
    const auto& [ranks, fused, deterministic, dtype] = GetParam();
    std::mt19937 random(ranks * 2 + fused);
    // Columns wide enough that a cut leaves more than 4 KiB of a row once (o), and less (d).
    const int64_t hidden = 72, heads = 5, kv = 5, d = 24, width = 104, wide = 6000;
    const auto q = random_weights(random, heads * d * hidden),
               k = random_weights(random, kv * d * hidden),
               v = random_weights(random, kv * d * hidden),
               gate = random_weights(random, width * hidden),
               up = random_weights(random, width * hidden),
               down = random_weights(random, hidden * width), o = random_weights(random, 40 * wide),
               norm = random_weights(random, hidden);
    const auto joined = [](std::initializer_list<const std::vector<float>*> parts) {
        std::vector<float> all;
        for (const auto* p : parts) all.insert(all.end(), p->begin(), p->end());
        return all;
    };
    std::vector<TensorToWrite> tensors = {
        tensor("a.o_proj.weight", dtype, {40, wide}, o),
        tensor("m.down_proj.weight", dtype, {hidden, width}, down),
        tensor("norm.weight", dtype, {hidden}, norm)};
    if (fused) {
        tensors.push_back(tensor("a.qkv_proj.weight", dtype, {(heads + 2 * kv) * d, hidden},
                                 joined({&q, &k, &v})));
        tensors.push_back(
            tensor("m.gate_up_proj.weight", dtype, {2 * width, hidden}, joined({&gate, &up})));
    } else {
        tensors.push_back(tensor("a.q_proj.weight", dtype, {heads * d, hidden}, q));
        tensors.push_back(tensor("a.k_proj.weight", dtype, {kv * d, hidden}, k));
        tensors.push_back(tensor("a.v_proj.weight", dtype, {kv * d, hidden}, v));
        tensors.push_back(tensor("m.gate_proj.weight", dtype, {width, hidden}, gate));
        tensors.push_back(tensor("m.up_proj.weight", dtype, {width, hidden}, up));
    }
    testing::TempDir dir;
    testing::write_safetensors(dir / "model.safetensors", tensors);

    test::run_ranks(ranks, [&, deterministic = deterministic](comm::Communicator& comm) {
        const auto checkpoint = Checkpoint::open(dir.path());
        Rig rig;
        WeightBuilder b({*checkpoint,
                         *rig.format,
                         rig.kernels,
                         detect_cpu(),
                         quant::Activations::kF32,
                         deterministic,
                         comm.rank(),
                         rig.store,
                         {}},
                        {comm.size(), comm.size(), 1});
        const ParallelLinear qkv = b.qkv_parallel("a", heads, kv, d, hidden, false);
        const ParallelLinear gate_up = b.merged_column_parallel(
            "m", {"gate_proj", "up_proj"}, "gate_up_proj", width, hidden, false);
        const RowParallelLinear down_proj = b.row_parallel(
            "m.down_proj", hidden, width, b.plan().over_ranks(width, kColumnGranule), false);
        const RowParallelLinear o_proj =
            b.row_parallel("a.o_proj", 40, wide, b.plan().over_ranks(wide, kColumnGranule), false);
        const std::vector<float> norm_vector = b.vector("norm.weight", hidden);
        EXPECT_TRUE(b.finish({}).empty());
        b.plan().check();
        rig.store.map();
        PackingSink sink(rig.store.bases());
        const LoadStats stats =
            load_weights(*checkpoint, {}, b.items(), sink, rig.executor, comm, nullptr);
        EXPECT_EQ(stats.offset_tables, 0u);
        EXPECT_EQ(stats.requested_bytes, stats.needed_bytes);
        EXPECT_EQ(norm_vector, norm);

        StepContext context = rig.context(comm);
        std::mt19937 same(99);
        std::vector<float> x = random_weights(same, hidden);
        quant::PreparedInput input(x.data(), hidden, 1, hidden, context.ops, rig.executor,
                                   rig.workspace);
        std::vector<std::vector<float>> parts;
        std::vector<float*> out;
        for (int p = 0; p < 3; ++p) parts.emplace_back(qkv.local_n(p), NAN);
        for (auto& p : parts) out.push_back(p.data());
        if (qkv.local_n(0) > 0) qkv.apply(context, input, out);
        const Interval rows = (*b.plan().query_heads(heads, d))[comm.rank()];
        expect_near(parts[0], product(x, q, heads * d, hidden).data() + rows.begin, "q");
        expect_near(parts[1], product(x, k, kv * d, hidden).data() + rows.begin, "k");
        expect_near(parts[2], product(x, v, kv * d, hidden).data() + rows.begin, "v");

        const Interval cut = (*b.plan().over_ranks(width, kColumnGranule))[comm.rank()];
        std::vector<float> g(cut.size(), NAN), u(cut.size(), NAN);
        float* const gu[] = {g.data(), u.data()};
        if (!cut.empty()) gate_up.apply(context, input, gu);
        expect_near(g, product(x, gate, width, hidden).data() + cut.begin, "gate");
        expect_near(u, product(x, up, width, hidden).data() + cut.begin, "up");

        const std::vector<float> xw = random_weights(same, width), xo = random_weights(same, wide);
        std::vector<float> y(hidden, NAN), z(40, NAN);
        down_proj.apply(context, xw.data() + cut.begin, 1, y.data());
        expect_near(y, product(xw, down, hidden, width).data(), "down");
        const Interval oc = (*b.plan().over_ranks(wide, kColumnGranule))[comm.rank()];
        o_proj.apply(context, xo.data() + oc.begin, 1, z.data());
        for (int i = 0; i < 40; ++i) EXPECT_NEAR(z[i], product(xo, o, 40, wide)[i], 2e-2);
    });
}

INSTANTIATE_TEST_SUITE_P(All, Shapes,
                         ::testing::Combine(::testing::Values(1, 2, 3, 5, 8), ::testing::Bool(),
                                            ::testing::Bool(),
                                            ::testing::Values("BF16", "F16", "F32")));

TEST(Loader, ANarrowCutReadsWholeStripesAndSaysSo) {
    std::mt19937 random(5);
    const auto w = random_weights(random, 64 * 128);
    testing::TempDir dir;
    testing::write_safetensors(dir / "model.safetensors",
                               {tensor("w.weight", "BF16", {64, 128}, w)});
    test::run_ranks(2, [&](comm::Communicator& comm) {
        const auto checkpoint = Checkpoint::open(dir.path());
        Rig rig;
        WeightBuilder b({*checkpoint,
                         *rig.format,
                         rig.kernels,
                         detect_cpu(),
                         quant::Activations::kF32,
                         false,
                         comm.rank(),
                         rig.store,
                         {}},
                        {2, 2, 1});
        const RowParallelLinear layer =
            b.row_parallel("w", 64, 128, b.plan().over_ranks(128, 32), false);
        const LoadStats s = predict_load(*checkpoint, {}, b.items());
        EXPECT_EQ(s.needed_bytes, 64u * 128 * 2);
        EXPECT_EQ(s.stripe_bytes, 64u * 64 * 2);
    });
}

/// Reads each row of the tensor whole, in two ranges.
class HalvesIndexer final : public ShardIndexer {
  public:
    OffsetTable index(const quant::StoredPiece& p, const quant::StoredRect& rect) const override {
        OffsetTable t;
        const int64_t row_bytes = p.cols * p.element_bytes;
        for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r) {
            const auto row = static_cast<uint64_t>(r * row_bytes);
            const auto half = static_cast<uint64_t>(row_bytes / 2);
            t.ranges.push_back({row, half});
            t.ranges.push_back({row + half, static_cast<uint64_t>(row_bytes) - half});
            t.rows.push_back(
                {(r - rect.rows.begin) * row_bytes + rect.cols.begin * p.element_bytes, 0});
        }
        return t;
    }
};

/// F32 rows from where an indexer placed them.
class PlacedCodec final : public quant::Codec {
  public:
    const char* name() const override { return "placed"; }
    quant::StoredRect needs(const quant::StoredMatrix&, size_t, Interval n,
                            Interval k) const override {
        return {n, k};
    }
    void generate(const quant::StoredMatrix&, size_t, const quant::StoredRect&,
                  std::byte*) const override {}
    size_t scratch_bytes(const quant::StoredMatrix&, Interval n, Interval k) const override {
        return static_cast<size_t>(n.size() * k.size() * 4);
    }
    quant::CodeTile decode(const quant::StoredMatrix&, Interval n, Interval k,
                           std::span<const quant::StagedRect> staged,
                           std::byte* scratch) const override {
        for (int64_t r = n.begin; r < n.end; ++r)
            std::memcpy(scratch + (r - n.begin) * k.size() * 4,
                        staged[0].row(r) + staged[0].phase(r) * 4,
                        static_cast<size_t>(k.size() * 4));
        return {scratch, k.size() * 4, n.size(), k.size()};
    }
};

/// The plain format, but every tensor goes through an indexer.
class IndexedConfig final : public quant::QuantizationConfig {
  public:
    explicit IndexedConfig(std::string indexer) : indexer_(std::move(indexer)) {}
    const char* name() const override { return "indexed"; }
    CpuFeatures minimum_capability() const override { return needed; }
    CpuFeatures needed;
    std::optional<quant::StoredMatrix> describe(const quant::MatrixSource& s,
                                                const quant::TensorLookup& t) const override {
        auto m = quant::describe_plain(s, t);
        if (m) m->pieces[0].indexer = indexer_;
        if (m) m->codec = std::make_shared<PlacedCodec>();
        return m;
    }

    std::optional<quant::StoredMatrix> imagine(const quant::MatrixSource& s,
                                               const quant::Encoding& e) const override {
        return quant::plain_matrix(s, e.code);
    }

  private:
    std::string indexer_;
};

class OutsideIndexer final : public ShardIndexer {
  public:
    OffsetTable index(const quant::StoredPiece&, const quant::StoredRect&) const override {
        return {{{1u << 30, 10}}, {}};
    }
};

TEST(Loader, FormatsThatTheCpuCannotRunAreRefusedBeforeAnythingIsBuilt) {
    const auto checkpoint = Checkpoint::none();
    IndexedConfig format("");
    format.needed.mask |= 1u << static_cast<int>(Isa::kAvx512Bf16);
    Rig rig;
    const auto build = [&](CpuFeatures cpu) {
        WeightBuilder({*checkpoint,
                       format,
                       rig.kernels,
                       cpu,
                       quant::Activations::kF32,
                       false,
                       0,
                       rig.store,
                       {}},
                      {1, 1, 1});
    };
    EXPECT_NO_THROW(build({~0u}));
    try {
        build({1});
        FAIL() << "was not refused";
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
        EXPECT_NE(std::string(e.what()).find("avx512bf16"), std::string::npos) << e.what();
    }
}

TEST(Loader, IndexersPlugIn) {
    std::mt19937 random(6);
    const auto w = random_weights(random, 50 * 70);
    testing::TempDir dir;
    testing::write_safetensors(dir / "model.safetensors", {tensor("w.weight", "F32", {50, 70}, w)});
    const IndexerRegistry registry = {{"halves", std::make_shared<HalvesIndexer>()},
                                      {"outside", std::make_shared<OutsideIndexer>()}};
    const auto load = [&](const std::string& indexer, comm::Communicator& comm) {
        const auto checkpoint = Checkpoint::open(dir.path());
        const IndexedConfig format(indexer);
        Rig rig;
        WeightBuilder b({*checkpoint,
                         format,
                         rig.kernels,
                         detect_cpu(),
                         quant::Activations::kF32,
                         false,
                         comm.rank(),
                         rig.store,
                         {}},
                        {comm.size(), comm.size(), 1});
        const RowParallelLinear l =
            b.row_parallel("w", 50, 70, b.plan().over_ranks(70, kColumnGranule), false);
        rig.store.map();
        PackingSink sink(rig.store.bases());
        const LoadStats s =
            load_weights(*checkpoint, registry, b.items(), sink, rig.executor, comm, nullptr);
        EXPECT_GT(s.offset_tables, 0u);
        StepContext context = rig.context(comm);
        std::mt19937 same(99);
        const std::vector<float> x = random_weights(same, 70);
        std::vector<float> y(50, NAN);
        const Interval cut = (*b.plan().over_ranks(70, kColumnGranule))[comm.rank()];
        l.apply(context, x.data() + cut.begin, 1, y.data());
        expect_near(y, product(x, w, 50, 70).data(), "indexed");
    };
    test::run_ranks(3, [&](comm::Communicator& comm) { load("halves", comm); });
    EXPECT_THROW(test::run_ranks(2, [&](comm::Communicator& comm) { load("outside", comm); }),
                 Error);
}

TEST(Loader, AFileThatShrinksIsAnErrorOnAllRanks) {
    std::mt19937 random(7);
    testing::TempDir dir;
    testing::write_safetensors(
        dir / "model.safetensors",
        {tensor("w.weight", "F32", {256, 64}, random_weights(random, 256 * 64))});
    const auto failures = test::run_ranks_collect(2, [&](comm::Communicator& comm) {
        const auto checkpoint = Checkpoint::open(dir.path());
        Rig rig;
        WeightBuilder b({*checkpoint,
                         *rig.format,
                         rig.kernels,
                         detect_cpu(),
                         quant::Activations::kF32,
                         false,
                         comm.rank(),
                         rig.store,
                         {}},
                        {2, 2, 1});
        const ParallelLinear layer = b.column_parallel("w", 256, 64);
        rig.store.map();
        comm.barrier();
        if (comm.rank() == 0) std::filesystem::resize_file(dir / "model.safetensors", 40000);
        comm.barrier();
        PackingSink sink(rig.store.bases());
        load_weights(*checkpoint, {}, b.items(), sink, rig.executor, comm, nullptr);
    });
    for (const auto& f : failures) {
        ASSERT_TRUE(f);
        try {
            std::rethrow_exception(f);
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kBadContent) << e.what();
            EXPECT_NE(std::string(e.what()).find("model.safetensors"), std::string::npos);
        }
    }
}

}  // namespace
}  // namespace conclave::sharding
