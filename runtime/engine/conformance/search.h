// Looks for the smallest case in which a law does not hold.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/interval.h"
#include "runtime/engine/conformance/laws.h"

namespace conclave::engine::conformance {

/// What is being tried, where a parent process can read it after this one has died.
struct CaseRecord {
    int64_t index = -1;
    char text[2000] = {};
};

/// How far to look, and where to note it.
struct Trial {
    uint64_t seed = 1;
    int64_t cases = 100;                  ///< from small to large
    int64_t first = 0, last = INT64_MAX;  ///< of these, cases [first, last) only
    CaseRecord* record = nullptr;
    /// > 0: a case that takes more of the CPU ends this process (SIGPROF); only for processes that
    /// were made for the trial.
    int seconds_per_case = 0;
    /// Each case in a process of its own: for shrinking a case that ends processes.
    bool guarded = false;

    void enter(int64_t index, const std::string& text) const;
    void leave() const;
};

/// Thrown by make and check for a case that says nothing about the law.
struct Skip {};
/// Thrown by what checks call, where that alone breaks the law.
struct Found {
    std::string what;
};

struct Outcome {
    int64_t tried = 0;
    std::optional<Broken> broken;
};

/// One check of one case: nothing, or what was expected and found. What is thrown breaks the law,
/// too.
using Verdict = std::optional<std::string>;

/// Calls `check` under the trial's rules; guarded: in a process of its own.
Verdict attempt(const Trial& trial, int64_t index, const std::string& text,
                const std::function<Verdict()>& check, bool* skipped);

template <class Case>
struct Search {
    std::string law;
    std::function<Case(int64_t index)> make;  ///< of `cases`, small ones first
    std::function<Verdict(const Case&)> check;
    std::function<std::string(const Case&)> text;
    /// Simpler cases to try, the simplest first.
    std::function<std::vector<Case>(const Case&)> simpler;
};

/// Tries cases in turn, and shrinks the first that fails as long as it fails.
template <class Case>
Outcome search(const Search<Case>& s, const Trial& trial) {
    Outcome out;
    for (int64_t i = trial.first; i < std::min(trial.cases, trial.last); ++i) {
        Case smallest;
        bool skipped = false;
        const std::string making = "making case " + std::to_string(i);
        const auto make = [&] { return smallest = s.make(i), Verdict(); };
        if (const Verdict v = attempt(trial, i, making, make, &skipped)) {
            out.broken = Broken{s.law, making + ": " + *v};
            return out;
        }
        if (skipped) continue;
        if (trial.guarded) smallest = s.make(i);  // what was made above was made elsewhere
        const auto fails = [&](const Case& c) {
            return attempt(
                trial, i, s.text(c), [&] { return s.check(c); }, &skipped);
        };
        Verdict verdict = fails(smallest);
        if (!skipped) ++out.tried;
        if (!verdict) continue;
        // What never ends takes long to shrink.
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(12);
        int left = 2000;
        for (bool again = true; again && left > 0;) {
            again = false;
            for (const Case& c : s.simpler(smallest)) {
                if (left-- <= 0 || std::chrono::steady_clock::now() > until) break;
                const Verdict v = fails(c);
                if (!v) continue;
                smallest = c, verdict = v, again = true;
                break;
            }
        }
        out.broken = Broken{s.law, s.text(smallest) + ": " + *verdict};
        return out;
    }
    return out;
}

/// Values between `least` and `value` to try in its place: the least, the halves, one less.
std::vector<int64_t> smaller_than(int64_t value, int64_t least);

/// Sub-intervals that are simpler than `i`: halves, and without either end; none is empty.
std::vector<Interval> simpler_intervals(Interval i);

class Random;
/// A part of [0, size), never empty: often all of it, one element, or at its ends.
Interval random_part(int64_t size, Random& random);

}  // namespace conclave::engine::conformance
