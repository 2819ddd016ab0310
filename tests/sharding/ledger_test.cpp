#include "sharding/ledger.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"

namespace conclave::sharding {
namespace {

std::string failure(const std::vector<Interval>& written) {
    CoverageLedger ledger;
    ledger.declare("other", {0, 4}, 2);
    const size_t p = ledger.declare("w", {16, 48}, 10);
    ledger.mark(0, {0, 4});
    for (const Interval& w : written) ledger.mark(p, w);
    try {
        EXPECT_EQ(ledger.verify(3), 4 * 2 + 32 * 10);
        return "";
    } catch (const Error& e) {
        return e.what();
    }
}

TEST(Ledger, AcceptsEveryOrderOfAnExactCover) {
    EXPECT_EQ(failure({{16, 48}}), "");
    EXPECT_EQ(failure({{32, 48}, {16, 20}, {20, 32}}), "");
}

TEST(Ledger, NamesWhatIsWrong) {
    for (const auto& [written, words] : std::vector<std::pair<std::vector<Interval>, std::string>>{
             {{}, "never written: rows [16, 48)"},
             {{{16, 40}}, "never written: rows [40, 48)"},
             {{{20, 48}}, "never written: rows [16, 20)"},
             {{{16, 30}, {31, 48}}, "never written: rows [30, 31)"},
             {{{16, 32}, {31, 48}}, "written twice: rows [31, 32)"},
             {{{16, 48}, {16, 48}}, "written twice"},
             {{{16, 48}, {48, 50}}, "written outside"}}) {
        const std::string what = failure(written);
        EXPECT_NE(what.find(words), std::string::npos) << what;
        EXPECT_NE(what.find("tensor w, rank 3"), std::string::npos) << what;
    }
}

}  // namespace
}  // namespace conclave::sharding
