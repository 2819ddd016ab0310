// "10Gbit,50us" and predictions as JSON.
#include <charconv>
#include <cmath>
#include <optional>
#include <span>
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/api/conclave_predict.hpp"
#include "runtime/base/error.h"

namespace conclave {
namespace {

struct Unit {
    std::string_view name;
    double value;
};
constexpr Unit kBandwidths[] = {{"bit", 0.125}, {"kbit", 125}, {"Mbit", 125e3}, {"Gbit", 125e6},
                                {"B", 1},       {"kB", 1e3},   {"MB", 1e6},     {"GB", 1e9}};
constexpr Unit kTimes[] = {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}};
constexpr Unit kSizes[] = {{"B", 1}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}};

/// "12.5ms" by the table of units; nothing but a finite number and one of them.
std::optional<double> quantity(std::string_view text, std::span<const Unit> units) {
    double number = 0;
    const char* const end = text.data() + text.size();
    const auto [next, failure] =
        std::from_chars(text.data(), end, number, std::chars_format::fixed);
    if (failure != std::errc() || !std::isfinite(number) || number < 0) return std::nullopt;
    const std::string_view unit(next, static_cast<size_t>(end - next));
    for (const Unit& u : units)
        if (unit == u.name) return number * u.value;
    return std::nullopt;
}

std::optional<double> bandwidth(std::string_view text) {
    if (text.size() > 2 && text.substr(text.size() - 2) == "/s") text.remove_suffix(2);
    return quantity(text, kBandwidths);
}

}  // namespace

LinkSpec parse_link(std::string_view text) {
    const auto fail = [&](const char* what, const char* expected, std::string_view found) {
        throw Error(ErrorCode::kUsage, std::string("a link is BANDWIDTH,LATENCY[,BURST]: ") + what)
            .expected(expected)
            .found("'" + std::string(found) + "' in '" + std::string(text) + "'");
    };
    std::vector<std::string_view> parts;
    for (std::string_view rest = text;;) {
        const size_t comma = rest.find(',');
        parts.push_back(rest.substr(0, comma));
        if (comma == std::string_view::npos) break;
        rest.remove_prefix(comma + 1);
    }
    if (parts.size() < 2 || parts.size() > 3)
        fail("two or three parts", "such as 10Gbit,50us", text);
    LinkSpec link;
    link.text = text;
    const auto rate = bandwidth(parts[0]);
    if (!rate || *rate <= 0)
        fail("the bandwidth", "a number above 0 and bit, kbit, Mbit, Gbit, B, kB, MB or GB",
             parts[0]);
    link.bytes_per_second = *rate;
    const auto latency = quantity(parts[1], kTimes);
    if (!latency) fail("the latency", "a number and ns, us, ms or s", parts[1]);
    link.latency_seconds = *latency;
    if (parts.size() == 2) return link;
    const auto burst = quantity(parts[2], kSizes);
    if (!burst) fail("the burst", "a number and B, kB, MB or GB", parts[2]);
    link.burst_bytes = *burst;
    return link;
}

std::string to_json(const Prediction& p) {
    using Json = nlohmann::ordered_json;
    Json json = {{"engine", p.engine}, {"measuring_seconds", p.seconds}};
    json["predictions"] = Json::array();
    for (const RanksPrediction& r : p.ranks) {
        Json one = {{"ranks", r.ranks},
                    {"hosts", r.hosts},
                    {"measured_at_once", r.ranks_at_once},
                    {"threads", r.threads},
                    {"layout", r.layout},
                    {"layers", r.layers},
                    {"layers_measured", r.layers_measured},
                    {"weight_bytes", r.weight_bytes},
                    {"collectives", r.collectives},
                    {"compute_seconds", r.compute_seconds},
                    {"weight_bytes_per_second", r.weight_bandwidth},
                    {"read_bytes_per_second", r.read_bandwidth}};
        one["links"] = Json::array();
        for (const LinkPrediction& l : r.links)
            one["links"].push_back({{"link", l.spec.text},
                                    {"bytes_per_second", l.spec.bytes_per_second},
                                    {"latency_seconds", l.spec.latency_seconds},
                                    {"burst_bytes", l.spec.burst_bytes},
                                    {"sent_bytes", l.bytes},
                                    {"latencies", l.latencies},
                                    {"waiting_for_latency_seconds", l.latency_seconds},
                                    {"waiting_for_bandwidth_seconds", l.bandwidth_seconds},
                                    {"step_seconds", l.seconds_per_step},
                                    {"tokens_per_second", l.tokens_per_second}});
        json["predictions"].push_back(std::move(one));
    }
    return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace conclave
