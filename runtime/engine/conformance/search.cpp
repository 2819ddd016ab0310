#include "runtime/engine/conformance/search.h"

#include <sys/time.h>

#include <csignal>
#include <cstring>

#include "runtime/base/error.h"
#include "runtime/engine/conformance/random.h"
#include "runtime/engine/plugins/child_process.h"

namespace conclave::engine::conformance {
namespace {

void limit_cpu(int seconds) {
    itimerval limit{};
    limit.it_value.tv_sec = seconds;
    setitimer(ITIMER_PROF, &limit, nullptr);
}

std::string hint(int signal) {
    if (signal == SIGSEGV || signal == SIGBUS)
        return ": what it is given ends at a page that must not be touched";
    if (signal == SIGILL) return ": an instruction that this CPU lacks, or a trap";
    return "";
}

Verdict caught(const std::function<Verdict()>& check, bool* skipped) {
    try {
        return check();
    } catch (const Skip&) {
        *skipped = true;
        return std::nullopt;
    } catch (const Found& f) {
        return f.what;
    } catch (const std::exception& e) {
        return std::string("threw \"") + e.what() + "\"";
    } catch (...) {
        return std::string("threw what is not a std::exception");
    }
}

}  // namespace

void Trial::enter(int64_t index, const std::string& text) const {
    if (record) {
        record->index = index;
        std::strncpy(record->text, text.c_str(), sizeof record->text - 1);
    }
    if (seconds_per_case > 0) limit_cpu(seconds_per_case);
}

void Trial::leave() const {
    if (seconds_per_case > 0) limit_cpu(0);
}

Verdict attempt(const Trial& trial, int64_t index, const std::string& text,
                const std::function<Verdict()>& check, bool* skipped) {
    *skipped = false;
    if (!trial.guarded) {
        trial.enter(index, text);
        const Verdict v = caught(check, skipped);
        trial.leave();
        return v;
    }
    constexpr double kSeconds = 2;
    const ChildResult child = run_in_child(
        [&] {
            bool none = false;
            const Verdict v = caught(check, &none);
            return none ? "s" : v ? "b" + *v : "h";
        },
        kSeconds);
    if (!child.finished) return child.fate() + hint(child.signal);
    if (!child.error.empty()) return child.error;
    *skipped = child.output == "s";
    if (child.output.empty() || child.output[0] != 'b') return std::nullopt;
    return child.output.substr(1);
}

std::vector<int64_t> smaller_than(int64_t value, int64_t least) {
    std::vector<int64_t> out;
    if (value > least) out.push_back(least);
    const int64_t half = least + (value - least) / 2;
    if (half > least && half < value - 1) out.push_back(half);
    if (value - 1 > least) out.push_back(value - 1);
    return out;
}

std::vector<Interval> simpler_intervals(Interval i) {
    std::vector<Interval> out;
    const int64_t n = i.size();
    if (n < 2) return out;
    if (n > 3) out.push_back({i.begin, i.begin + n / 2}), out.push_back({i.begin + n / 2, i.end});
    out.push_back({i.begin, i.end - 1});
    out.push_back({i.begin + 1, i.end});
    return out;
}

Interval random_part(int64_t size, Random& random) {
    const int64_t kind = random.in(0, 7);
    if (kind < 2) return {0, size};
    const int64_t a = random.in(0, size - 1), b = random.in(0, size - 1);
    if (kind == 2) return {a, a + 1};
    if (kind == 3) return {0, a + 1};
    if (kind == 4) return {a, size};
    if (kind == 5) return {a, std::min(size, a + random.in(1, 9))};
    return {std::min(a, b), std::max(a, b) + 1};
}

}  // namespace conclave::engine::conformance
