// What `conclave conform` is asked and says: plain data, part of the public C++ interface
// (runtime/api/conclave_conform.hpp).
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace conclave {

struct ConformLaw {
    std::string name;  ///< "codec.interval"
    std::string what;  ///< what it asks, in a line
};

struct ConformResult {
    enum class State { kHeld, kBroken, kNotChecked };
    std::string law;
    std::string subject;  ///< "format nf4: samples", "kernel panel_bf16_avx512"
    State state = State::kHeld;
    int64_t cases = 0;  ///< that were tried
    /// kBroken: the smallest case found, what was expected and what was found; kNotChecked: why.
    std::string what = {};
};

struct ConformOptions {
    std::string plugin;      ///< a file; empty: what is built in
    std::string checkpoint;  ///< a model's directory; empty: none
    int64_t cases = 60;      ///< of each law and subject
    uint64_t seed = 1;
    std::string law;                                          ///< only laws that begin so
    std::string format;                                       ///< only this format; empty: all
    std::function<void(const ConformResult&)> progress = {};  ///< each result as it comes
};

struct ConformReport {
    std::vector<ConformResult> results;
    int64_t count(ConformResult::State state) const {
        int64_t n = 0;
        for (const ConformResult& r : results) n += r.state == state;
        return n;
    }
    /// At least one law was checked, and none is broken.
    bool sound() const {
        return count(ConformResult::State::kBroken) == 0 && count(ConformResult::State::kHeld) > 0;
    }
};

}  // namespace conclave
