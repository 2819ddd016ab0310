#include "runtime/api/conclave_doctor.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <map>
#include <set>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/engine_options.h"
#include "launch/format.h"

namespace conclave::launch {
namespace {

using Row = std::vector<std::string>;

/// Columns two spaces apart, as wide as their widest entry.
std::string table(const std::vector<Row>& rows) {
    std::vector<size_t> widths;
    for (const Row& row : rows)
        for (size_t c = 0; c < row.size(); ++c) {
            widths.resize(std::max(widths.size(), c + 1));
            widths[c] = std::max(widths[c], row[c].size());
        }
    std::string out;
    for (const Row& row : rows) {
        std::string line;
        for (size_t c = 0; c < row.size(); ++c) line += fmt::format("{:<{}}  ", row[c], widths[c]);
        out += line.erase(line.find_last_not_of(' ') + 1) + "\n";
    }
    return out;
}

/// {0,1,2,5} -> "0-2,5"
std::string ranges(const std::vector<int>& numbers) {
    std::string text;
    for (size_t i = 0; i < numbers.size();) {
        size_t end = i + 1;
        while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
        text += (text.empty() ? "" : ",") + std::to_string(numbers[i]);
        if (end - i > 1) text += "-" + std::to_string(numbers[end - 1]);
        i = end;
    }
    return text.empty() ? "-" : text;
}

std::string gigabytes(double rate) { return rate > 0 ? fmt::format("{:.2f}", rate * 1e-9) : "-"; }

std::string headline(const DoctorReport& report) {
    std::set<std::string> hosts, libraries;
    for (const DoctorRank& r : report.ranks) {
        hosts.insert(r.host);
        if (!r.library.empty()) libraries.insert(terminal_safe(r.library));
    }
    const auto count = [](size_t n, const char* what) {
        return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
    };
    std::string text = count(report.ranks.size(), "rank") + " on " + count(hosts.size(), "host");
    text += ", " + report.backend;
    if (!libraries.empty()) text += fmt::format(" ({})", fmt::join(libraries, "; "));
    return text + fmt::format("; together they read {:.1f} GB/s\n", report.read_together * 1e-9);
}

std::string rank_table(const DoctorReport& report) {
    std::vector<Row> rows = {{"rank", "host", "pid", "CPUs", "of", "NUMA", "threads", "ISA",
                              "beyond", "memory in", "GB/s alone", "together"}};
    for (const DoctorRank& r : report.ranks)
        rows.push_back({std::to_string(r.rank), terminal_safe(r.host), std::to_string(r.pid),
                        ranges(r.cpus), std::to_string(r.host_cpus), ranges(r.numa_nodes),
                        std::to_string(r.threads), r.isa, r.beyond.empty() ? "-" : r.beyond,
                        r.pages, gigabytes(r.read_alone), gigabytes(r.read_together)});
    return table(rows);
}

std::string host_table(const DoctorReport& report) {
    std::vector<Row> rows = {{"host", "CPU", "memory", "free", "limit", "/dev/shm", "free",
                              "huge pages", "transparent", "networks"}};
    std::set<std::string> seen;
    for (const DoctorRank& r : report.ranks) {
        if (!seen.insert(r.host).second) continue;
        rows.push_back(
            {terminal_safe(r.host), terminal_safe(r.cpu_model),
             human_bytes(static_cast<double>(r.memory)),
             human_bytes(static_cast<double>(r.memory_free)),
             r.memory_limit > 0 ? human_bytes(static_cast<double>(r.memory_limit)) : "none",
             human_bytes(static_cast<double>(r.shm)), human_bytes(static_cast<double>(r.shm_free)),
             fmt::format("{} of {}", r.huge_pages_free, r.huge_pages),
             r.transparent_huge_pages.empty() ? "none" : r.transparent_huge_pages,
             r.networks.empty() ? "none" : fmt::format("{}", fmt::join(r.networks, ", "))});
    }
    return table(rows);
}

/// Both halves, of the ranks that were measured.
std::string matrix(const DoctorReport& report, const char* title, double DoctorPair::*value,
                   double unit, const char* format) {
    std::set<int> ranks;
    std::map<std::pair<int, int>, double> values;
    for (const DoctorPair& p : report.pairs) {
        ranks.insert({p.a, p.b});
        values[{p.a, p.b}] = values[{p.b, p.a}] = p.*value * unit;
    }
    std::vector<Row> rows = {{"rank"}};
    for (const int a : ranks) {
        rows[0].push_back(std::to_string(a));
        Row row = {std::to_string(a)};
        for (const int b : ranks) {
            const auto at = values.find({a, b});
            row.push_back(at == values.end() ? "-" : fmt::format(fmt::runtime(format), at->second));
        }
        rows.push_back(std::move(row));
    }
    return fmt::format("\n{}\n", title) + table(rows);
}

std::string advice_text(const DoctorReport& report) {
    if (report.advice.empty()) return "\nwhat to change: nothing that doctor knows of\n";
    std::string out = "\nwhat to change\n";
    for (size_t i = 0; i < report.advice.size(); ++i) {
        const DoctorAdvice& a = report.advice[i];
        out += fmt::format("{}. {}: {}\n   -> {}\n", i + 1, a.topic, terminal_safe(a.reason),
                           terminal_safe(a.action));
    }
    return out;
}

void print_text(const DoctorReport& report) {
    std::string out = headline(report) + "\n" + rank_table(report) + "\n" + host_table(report);
    if (!report.pairs.empty()) {
        out += matrix(report, "latency, us (half a round trip of 8 bytes)", &DoctorPair::latency_us,
                      1, "{:.1f}");
        out += matrix(report, "bandwidth, GB/s (one way, up to 4 MiB)", &DoctorPair::bandwidth,
                      1e-9, "{:.3f}");
    }
    if (!report.pairs_left_out.empty()) out += report.pairs_left_out + "\n";
    print(out + advice_text(report));
}

}  // namespace

int doctor(const Invocation& invocation, const Comm& comm) {
    Console console(invocation.verbose);
    const DoctorReport report = conclave::doctor(engine_options(invocation, comm, console), comm);
    if (comm.rank() != 0) return 0;
    invocation.json ? print(to_json(report) + "\n") : print_text(report);
    return 0;
}

}  // namespace conclave::launch
