// Proof that every element of every parameter of this rank was written exactly once.
#pragma once
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/base/interval.h"

namespace conclave::sharding {

class CoverageLedger {
  public:
    /// Declares a parameter of this rank: rows [0, rows) x cols elements. Returns its number.
    size_t declare(std::string tensor, Interval rows, int64_t cols);
    /// Whole rows were written. Any thread.
    void mark(size_t parameter, Interval rows);
    /// Throws kInternal naming tensor, rank and interval of the first element that was not written,
    /// or was written twice. Returns the number of elements written.
    int64_t verify(int rank) const;

  private:
    struct Parameter {
        std::string tensor;
        Interval rows;
        int64_t cols;
        std::vector<Interval> written;
    };
    mutable std::mutex mutex_;
    std::vector<Parameter> parameters_;
};

}  // namespace conclave::sharding
