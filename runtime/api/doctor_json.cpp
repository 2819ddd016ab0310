#include <nlohmann/json.hpp>

#include "runtime/api/conclave_doctor.hpp"

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

Json or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }
Json or_null(double number) { return number > 0 ? Json(number) : Json(); }

Json of(const DoctorRank& r) {
    Json j;
    j["rank"] = r.rank;
    j["host"] = r.host;
    j["pid"] = r.pid;
    j["cpu"] = r.cpu_model;
    j["cpus"] = r.cpus;
    j["host_cpus"] = r.host_cpus;
    j["bound"] = static_cast<int>(r.cpus.size()) < r.host_cpus;
    j["threads_per_core"] = r.threads_per_core;
    j["numa_nodes"] = r.numa_nodes;
    j["threads"] = r.threads;
    j["isa"] = r.isa;
    j["cpu_features"] = r.features;
    j["beyond_all_ranks"] = r.beyond;
    j["mpi"] = or_null(r.library);
    j["pages"] = r.pages;
    j["huge_pages"] = r.huge_pages;
    j["huge_pages_free"] = r.huge_pages_free;
    j["transparent_hugepage"] = or_null(r.transparent_huge_pages);
    j["read_alone_bytes_per_second"] = or_null(r.read_alone);
    j["read_bytes_per_second"] = or_null(r.read_together);
    j["memory_bytes"] = r.memory;
    j["memory_free_bytes"] = r.memory_free;
    j["memory_limit_bytes"] = r.memory_limit > 0 ? Json(r.memory_limit) : Json();
    j["shm_bytes"] = r.shm;
    j["shm_free_bytes"] = r.shm_free;
    j["networks"] = r.networks;
    return j;
}

/// Row a, column b; null where nothing was measured.
Json matrix(const DoctorReport& report, double DoctorPair::*value) {
    const size_t n = report.ranks.size();
    Json rows = Json::array();
    for (size_t r = 0; r < n; ++r) rows.push_back(Json(std::vector<Json>(n)));
    for (const DoctorPair& p : report.pairs) rows[p.a][p.b] = rows[p.b][p.a] = p.*value;
    return rows;
}

}  // namespace

std::string to_json(const DoctorReport& report) {
    Json j;
    j["version"] = conclave::version();
    j["backend"] = report.backend;
    j["ranks"] = Json::array();
    for (const DoctorRank& r : report.ranks) j["ranks"].push_back(of(r));
    j["read_bytes_per_second"] = or_null(report.read_together);
    j["latency_us"] = matrix(report, &DoctorPair::latency_us);
    j["bandwidth_bytes_per_second"] = matrix(report, &DoctorPair::bandwidth);
    j["pairs_left_out"] = or_null(report.pairs_left_out);
    j["advice"] = Json::array();
    for (const DoctorAdvice& a : report.advice)
        j["advice"].push_back({{"topic", a.topic}, {"reason", a.reason}, {"action", a.action}});
    return j.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace conclave
