#include "sharding/ledger.h"

#include <algorithm>

#include "runtime/base/error.h"

namespace conclave::sharding {

size_t CoverageLedger::declare(std::string tensor, Interval rows, int64_t cols) {
    parameters_.push_back({std::move(tensor), rows, cols, {}});
    return parameters_.size() - 1;
}

void CoverageLedger::mark(size_t parameter, Interval rows) {
    const std::lock_guard lock(mutex_);
    parameters_.at(parameter).written.push_back(rows);
}

int64_t CoverageLedger::verify(int rank) const {
    const auto fail = [&](const Parameter& p, const char* what, Interval rows) {
        throw Error(ErrorCode::kInternal, what + (" rows " + rows.to_string()))
            .tensor(p.tensor)
            .rank(rank)
            .expected("rows " + p.rows.to_string() + " written exactly once");
    };
    int64_t elements = 0;
    for (const Parameter& p : parameters_) {
        std::vector<Interval> written = p.written;
        std::sort(written.begin(), written.end(),
                  [](const Interval& a, const Interval& b) { return a.begin < b.begin; });
        int64_t reached = p.rows.begin;
        for (const Interval& w : written) {
            if (w.begin < reached) fail(p, "a weight was written twice:", {w.begin, reached});
            if (w.begin > reached) fail(p, "a weight was never written:", {reached, w.begin});
            reached = w.end;
        }
        if (reached > p.rows.end) fail(p, "a weight was written outside:", {p.rows.end, reached});
        if (reached < p.rows.end) fail(p, "a weight was never written:", {reached, p.rows.end});
        elements += p.rows.size() * p.cols;
    }
    return elements;
}

}  // namespace conclave::sharding
