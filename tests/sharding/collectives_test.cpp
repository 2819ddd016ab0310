// Dynamic activation scales of rows whose columns are on several ranks: quantized there as if one
// rank had the whole row.
#include "sharding/collectives.h"

#include <gtest/gtest.h>

#include <random>

#include "runtime/exec/arenas.h"
#include "tests/support/local_ranks.h"

namespace conclave::sharding {
namespace {

using quant::ActivationCode, quant::ActivationRule, quant::PartDescriptor, quant::ScaleRule;

const std::vector<ActivationRule> kRules = {
    {.code = ActivationCode::kInt8, .scale_rule = ScaleRule::kAbsMax, .top = 127},
    {.code = ActivationCode::kInt8, .scale_rule = ScaleRule::kMinMax},
    {.code = ActivationCode::kE4M3, .scale_rule = ScaleRule::kAbsMax, .top = 448},
    {.code = ActivationCode::kE4M3, .scale_rule = ScaleRule::kAbsMax, .group = 128, .top = 448},
    {.code = ActivationCode::kE4M3, .scale_rule = ScaleRule::kCeilPow2, .group = 32, .top = 448},
    {.code = ActivationCode::kE2M1, .scale_rule = ScaleRule::kEvenPow2, .group = 32, .top = 2},
    {.code = ActivationCode::kE2M1,
     .scale_rule = ScaleRule::kE4M3Over,
     .group = 16,
     .scale = 100.0f}};

/// Columns of each rank: granules of 32 as layers cut, or anywhere, ranks without columns included.
std::vector<Interval> random_cut(int64_t width, int ranks, bool granules, std::mt19937& random) {
    std::vector<int64_t> at = {0, width};
    for (int i = 1; i < ranks; ++i) {
        const int64_t c = static_cast<int64_t>(random() % (width + 1));
        at.push_back(granules ? c / 32 * 32 : c);
    }
    std::sort(at.begin(), at.end());
    std::vector<Interval> cut;
    for (int i = 0; i < ranks; ++i) cut.push_back({at[i], at[i + 1]});
    return cut;
}

/// The fake-quantized [rows, width]: rows of even number under `even`, the others under `odd`.
std::vector<float> quantized(const std::vector<float>& x, int64_t width,
                             const std::vector<Interval>& cut, const PartDescriptor& even,
                             const PartDescriptor& odd) {
    const int64_t rows = static_cast<int64_t>(x.size()) / width;
    std::vector<float> out(x.size(), -12345);
    const bool spans = scale_spans_ranks(even.rule, cut) || scale_spans_ranks(odd.rule, cut);
    test::run_ranks(static_cast<int>(cut.size()), [&](comm::Communicator& comm) {
        const Interval held = cut[static_cast<size_t>(comm.rank())];
        exec::Arenas executor(exec::Topology::pretend(1, 1), 1);
        Workspace workspace;
        StepContext context{comm,    comm, executor, workspace, quant::vector_ops(detect_cpu()),
                            nullptr, {}};
        std::vector<float> local;
        for (int64_t r = 0; r < rows; ++r)
            local.insert(local.end(), x.begin() + r * width + held.begin,
                         x.begin() + r * width + held.end);
        quant::PreparedInput input(local.data(), held.size(), rows, held.size(), context.ops,
                                   executor, workspace);
        input.place({held, width});
        const auto matrix_of = [&](int64_t r) -> const PartDescriptor& {
            return r % 2 ? odd : even;
        };
        if (spans)
            share_statistics(comm, context, input,
                             std::max(quant::statistics_per_row(even.rule, width),
                                      quant::statistics_per_row(odd.rule, width)),
                             [&](int64_t r) -> const PartDescriptor* {
                                 const PartDescriptor& m = matrix_of(r);
                                 return scale_spans_ranks(m.rule, cut) ? &m : nullptr;
                             });
        if (held.empty()) return;
        quant::MatrixLayout layout;
        layout.k = held.size();
        for (int32_t r = 0; r < rows; ++r) {
            const auto form = input.form(matrix_of(r).rule, quant::XType::kF32, layout,
                                         std::span<const int32_t>(&r, 1));
            std::copy_n(static_cast<const float*>(form[0]), held.size(),
                        out.begin() + r * width + held.begin);
        }
    });
    return out;
}

TEST(SharedStatistics, CutRowsAreQuantizedAsWholeOnes) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (const ActivationRule& rule : kRules)
        for (const int ranks : {2, 3, 5, 8})
            for (const bool granules : {true, false}) {
                const int64_t width = 1 + static_cast<int64_t>(random() % 500), rows = 5;
                std::vector<float> x(static_cast<size_t>(rows * width));
                for (size_t i = 0; i < x.size(); ++i) {
                    const auto row = static_cast<int64_t>(i) / width;
                    x[i] = row == 3 ? 0 : normal(random) * (row == 2 ? 1000.0f : 1.0f);
                }
                PartDescriptor even, odd;
                even.rule = rule;
                odd.rule = kRules[random() % kRules.size()];
                const auto whole = quantized(x, width, {{0, width}}, even, odd);
                const auto cut = random_cut(width, ranks, granules, random);
                EXPECT_TRUE(quantized(x, width, cut, even, odd) == whole)
                    << rule.to_string() << " and " << odd.rule.to_string() << ", " << ranks
                    << " ranks, " << width << " columns";
                EXPECT_FALSE(whole == x);
            }
}

TEST(SharedStatistics, AreExchangedOnlyWhereAScaleSpansRanks) {
    const ActivationRule token = kRules[0], group = kRules[3];
    const ActivationRule fixed{
        .code = ActivationCode::kInt8, .scale_rule = ScaleRule::kStatic, .scale = 1};
    const std::vector<Interval> even = {{0, 128}, {128, 256}}, odd = {{0, 96}, {96, 192}},
                                one = {{0, 0}, {0, 192}};
    EXPECT_TRUE(scale_spans_ranks(token, even));
    EXPECT_FALSE(scale_spans_ranks(group, even));
    EXPECT_TRUE(scale_spans_ranks(group, odd));
    EXPECT_FALSE(scale_spans_ranks(token, one));
    EXPECT_FALSE(scale_spans_ranks(fixed, odd));
    EXPECT_FALSE(scale_spans_ranks(quant::kInt8Input, odd));
}

}  // namespace
}  // namespace conclave::sharding
