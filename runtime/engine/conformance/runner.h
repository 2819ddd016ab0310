// Runs laws, each in a process of its own, and keeps what came of them.
#pragma once
#include <functional>
#include <string>

#include "runtime/engine/conformance/report.h"
#include "runtime/engine/conformance/search.h"

namespace conclave::engine::conformance {

class Runner {
  public:
    explicit Runner(const ConformOptions& options) : options_(options) {}

    /// Whether it is asked for; what is not leaves no result.
    bool wanted(const std::string& law) const { return law.starts_with(options_.law); }
    /// False: the law is broken. `cases`: 0 stands for options.cases.
    bool run(const std::string& law, const std::string& subject,
             const std::function<Outcome(const Trial&)>& search, int64_t cases = 0);
    void skip(const std::string& law, const std::string& subject, const std::string& why);
    void add(ConformResult result);

    ConformReport& report() { return report_; }

  private:
    /// The case that ended the process, made smaller in processes of its own.
    Broken shrink(const std::string& law, const std::function<Outcome(const Trial&)>& search,
                  Trial trial, const CaseRecord& record, const std::string& fate) const;

    const ConformOptions& options_;
    ConformReport report_;
};

}  // namespace conclave::engine::conformance
