#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/format.h"

namespace conclave::launch {
namespace {

using Json = nlohmann::ordered_json;
using State = ConformResult::State;

const char* state_name(State state) {
    return state == State::kHeld ? "held" : state == State::kBroken ? "broken" : "not checked";
}

int list_laws(bool json) {
    Json laws = Json::array();
    std::string text;
    for (const ConformLaw& law : conform_laws()) {
        laws.push_back({{"law", law.name}, {"what", law.what}});
        text += fmt::format("{:<18} {}\n", law.name, law.what);
    }
    print(json ? laws.dump(2) + "\n" : text);
    return 0;
}

void print_json(const ConformReport& report) {
    Json json = {{"sound", report.sound()},
                 {"held", report.count(State::kHeld)},
                 {"broken", report.count(State::kBroken)},
                 {"not_checked", report.count(State::kNotChecked)}};
    json["results"] = Json::array();
    for (const ConformResult& r : report.results)
        json["results"].push_back({{"law", r.law},
                                   {"subject", r.subject},
                                   {"state", state_name(r.state)},
                                   {"cases", r.cases},
                                   {"what", r.what}});
    print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

void print_result(const ConformResult& r) {
    std::string line = fmt::format("{:<18} {}: ", r.law, terminal_safe(r.subject));
    if (r.state == State::kHeld) line += fmt::format("held ({} cases)", r.cases);
    if (r.state == State::kNotChecked) line += "not checked: " + terminal_safe(r.what);
    if (r.state == State::kBroken) line += "BROKEN\n    " + terminal_safe(r.what);
    print(line + "\n");
}

}  // namespace

int conform(const Invocation& invocation) {
    if (invocation.conform_list) return list_laws(invocation.json);
    ConformOptions options = invocation.conform;
    // What is built in has some 250 laws and subjects: those that hold are only counted.
    const bool quiet = options.plugin.empty() && !invocation.verbose;
    if (!invocation.json)
        options.progress = [quiet](const ConformResult& r) {
            if (!quiet || r.state == State::kBroken) print_result(r);
        };
    const ConformReport report = conclave::conform(options);
    if (invocation.json)
        print_json(report);
    else
        print(fmt::format("{} held, {} broken, {} not checked\n", report.count(State::kHeld),
                          report.count(State::kBroken), report.count(State::kNotChecked)));
    return report.sound() ? 0 : 1;
}

}  // namespace conclave::launch
