#include "runtime/engine/conformance/runner.h"

#include <sys/mman.h>

#include <csignal>
#include <new>

#include "runtime/base/error.h"
#include "runtime/base/json.h"
#include "runtime/engine/plugins/child_process.h"

namespace conclave::engine::conformance {
namespace {

constexpr int kSecondsPerCase = 4;
constexpr double kSecondsPerLaw = 300;

/// Memory that a child shares with its parent.
class SharedRecord {
  public:
    SharedRecord() {
        void* const map = mmap(nullptr, sizeof(CaseRecord), PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED) throw Error(ErrorCode::kResource, "cannot map shared memory");
        record_ = new (map) CaseRecord;
    }
    ~SharedRecord() { munmap(record_, sizeof(CaseRecord)); }
    SharedRecord(const SharedRecord&) = delete;
    SharedRecord& operator=(const SharedRecord&) = delete;
    CaseRecord& get() { return *record_; }

  private:
    CaseRecord* record_;
};

std::string encode(const Outcome& outcome) {
    Json json = {{"tried", outcome.tried}};
    if (outcome.broken) json["law"] = outcome.broken->law, json["what"] = outcome.broken->what;
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Outcome decode_outcome(const std::string& text) {
    const Json json = Json::parse(text);
    Outcome out;
    out.tried = json.at("tried").get<int64_t>();
    if (json.contains("law")) out.broken = Broken{json.at("law"), json.at("what")};
    return out;
}

}  // namespace

Broken Runner::shrink(const std::string& law, const std::function<Outcome(const Trial&)>& search,
                      Trial trial, const CaseRecord& record, const std::string& fate) const {
    Broken broken{law, record.text + (": " + fate)};
    if (record.index < 0) return broken;
    trial.guarded = true;
    trial.seconds_per_case = 0;
    trial.record = nullptr;
    trial.first = record.index, trial.last = record.index + 1;
    if (Outcome again = search(trial); again.broken) return *std::move(again.broken);
    return broken;
}

bool Runner::run(const std::string& law, const std::string& subject,
                 const std::function<Outcome(const Trial&)>& search, int64_t cases) {
    if (!wanted(law)) return true;
    SharedRecord shared;
    Trial trial;
    trial.seed = options_.seed, trial.cases = cases > 0 ? cases : options_.cases;
    trial.record = &shared.get(), trial.seconds_per_case = kSecondsPerCase;
    const ChildResult child = run_in_child([&] { return encode(search(trial)); }, kSecondsPerLaw);
    Outcome outcome;
    if (child.finished && child.error.empty()) {
        outcome = decode_outcome(child.output);
    } else {
        std::string fate = child.finished ? "threw \"" + child.error + "\"" : child.fate();
        if (child.signal == SIGPROF)
            fate = "did not end within " + std::to_string(kSecondsPerCase) + " s of the CPU";
        outcome.broken = shrink(law, search, trial, shared.get(), fate);
        outcome.tried = shared.get().index + 1;
        if (child.signal == SIGILL) outcome.broken->law = "kernel.isa";
    }
    if (outcome.broken)
        add({outcome.broken->law, subject, ConformResult::State::kBroken, outcome.tried,
             outcome.broken->what});
    else if (outcome.tried > 0)
        add({law, subject, ConformResult::State::kHeld, outcome.tried});
    return !outcome.broken;
}

void Runner::skip(const std::string& law, const std::string& subject, const std::string& why) {
    const bool several = law.ends_with(".*");
    if (wanted(law) || (several && options_.law.starts_with(law.substr(0, law.size() - 1))))
        add({law, subject, ConformResult::State::kNotChecked, 0, why});
}

void Runner::add(ConformResult result) {
    if (options_.progress) options_.progress(result);
    report_.results.push_back(std::move(result));
}

}  // namespace conclave::engine::conformance
