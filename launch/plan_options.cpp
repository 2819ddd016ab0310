#include "launch/plan_options.h"

#include <charconv>

namespace conclave::launch {
namespace {

CLI::Validator from_1_to(int64_t most) { return CLI::Range(int64_t{1}, most).description(""); }

}  // namespace

void add_plan(CLI::App& app, Invocation& to, PlanText& text) {
    const char* const group = "Prediction";
    app.add_option("--ranks", text.ranks, "Ranks to plan for; with --link also 1,2,4 or 1-8")
        ->type_name("N")
        ->capture_default_str();
    const auto take = [&text](const CLI::results_t& links) {
        text.links = links;
        return true;
    };
    app.add_option("--link", take,
                   "Predict tokens/s over this link between hosts, as 10Gbit,50us; measures here. "
                   "May be given again")
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->type_name("BANDWIDTH,LATENCY")
        ->group(group);
    const auto add = [&](const char* name, auto& value, const CLI::Validator& check,
                         const char* what) {
        text.measuring.push_back(app.add_option(name, value, what)
                                     ->check(check)
                                     ->type_name("N")
                                     ->group(group)
                                     ->capture_default_str());
    };
    add("--ranks-per-host", to.predict.ranks_per_host, from_1_to(1024), "Ranks on each host");
    add("--hosts-here", to.predict.hosts_here, from_1_to(64),
        "How many of the hosts are this machine (test hosts): measured at the same time");
    add("--batch", to.predict.batch, from_1_to(65536), "Sequences that generate together");
    text.measuring.push_back(
        app.add_option("--measure-memory", to.predict.memory_bytes,
                       "Memory for the weights that are measured, at most, such as 2GiB")
            ->transform(CLI::AsSizeValue(false))
            ->type_name("SIZE")
            ->group(group)
            ->default_str("4GiB"));
    app.add_flag("--kernels", to.plan_kernels,
                 "Print only which kernel serves which layer, and why others do not");
}

void finish_plan(Invocation& to, const PlanText& text) {
    to.predict.ranks = parse_ranks(text.ranks);
    to.plan_ranks = to.predict.ranks.front();
    for (const std::string& link : text.links) to.predict.links.push_back(parse_link(link));
    if (!to.predict.links.empty()) {
        if (to.plan_kernels)
            throw Error(ErrorCode::kUsage, "--kernels is about one plan: give it without --link");
        return;
    }
    if (to.predict.ranks.size() > 1)
        throw Error(ErrorCode::kUsage,
                    "--ranks: several numbers are for predictions: give --link, too");
    for (const CLI::Option* option : text.measuring)
        if (option->count() > 0)
            throw Error(ErrorCode::kUsage,
                        option->get_name() + " is about predictions: give --link, too");
}

std::vector<int> parse_ranks(const std::string& text) {
    std::vector<int> ranks;
    const char *at = text.data(), *const end = at + text.size();
    const auto fail = [&] {
        throw Error(
            ErrorCode::kUsage,
            "--ranks: wants whole numbers from 1 to 65536, such as 4, 1,2,4 or 1-8, not " + text);
    };
    const auto number = [&] {
        int n = 0;
        const auto [next, failure] = std::from_chars(at, end, n);
        if (failure != std::errc() || n < 1 || n > 65536) fail();
        at = next;
        return n;
    };
    while (true) {
        int first = number(), last = first;
        if (at != end && *at == '-') ++at, last = number();
        if (last < first || last - first >= 1024 || (at != end && *at != ',')) fail();
        for (; first <= last; ++first) ranks.push_back(first);
        if (at == end) return ranks;
        ++at;
    }
}

}  // namespace conclave::launch
