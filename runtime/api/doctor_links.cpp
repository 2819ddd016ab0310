#include "runtime/api/doctor_links.h"

#include <algorithm>
#include <chrono>
#include <map>

namespace conclave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMostRanks = 16;
// Of all pairs together, and of each at least and at most.
constexpr double kAllSeconds = 6, kLeastSeconds = 0.03, kMostSeconds = 0.5;
constexpr size_t kSmallest = size_t{64} << 10, kLargest = size_t{4} << 20;
// A pass that takes longer came over a link that something slows down. Such links let a first
// burst through: what counts is the last pass, not the best.
constexpr double kSlowPass = 0.02;

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// The rounds of a tournament in which each plays each other once: one stays, the others rotate.
std::vector<std::vector<std::pair<int, int>>> tournament(std::vector<int> ranks) {
    if (ranks.size() < 2) return {};
    if (ranks.size() % 2 != 0) ranks.push_back(-1);  // against whom one rests
    std::vector<std::vector<std::pair<int, int>>> rounds;
    for (size_t round = 0; round + 1 < ranks.size(); ++round) {
        auto& pairs = rounds.emplace_back();
        for (size_t i = 0; i < ranks.size() / 2; ++i) {
            const auto [a, b] = std::minmax(ranks[i], ranks[ranks.size() - 1 - i]);
            if (a >= 0) pairs.emplace_back(a, b);
        }
        std::rotate(ranks.begin() + 1, ranks.end() - 1, ranks.end());
    }
    return rounds;
}

/// The first of two ranks (rank 0 of `pair`) times; both run the same passes.
class PairProbe {
  public:
    PairProbe(comm::Communicator& pair, double budget)
        : pair_(pair), budget_(budget), data_(kLargest) {}

    double latency() {
        for (int i = 0; i < 3; ++i) there_and_back(8);
        const double once = agreed(there_and_back(8));
        const int passes =
            std::clamp(static_cast<int>(budget_ / 4 / std::max(once, 1e-7)), 5, 1000);
        std::vector<double> times;
        for (int i = 0; i < passes; ++i) times.push_back(there_and_back(8));
        std::nth_element(times.begin(), times.begin() + passes / 2, times.end());
        return agreed(times[passes / 2]) / 2;
    }

    double bandwidth() {
        const auto begin = Clock::now();
        size_t bytes = kSmallest;
        double took = agreed(there_and_back(bytes));
        while (bytes < kLargest && 4 * took < budget_ / 2) {
            bytes *= 4;
            bytes = std::min(bytes, kLargest);
            took = agreed(there_and_back(bytes));
        }
        double best = took, last = took;
        for (int pass = 0; pass < 8 && (pass == 0 || agreed(seconds_since(begin)) < budget_);
             ++pass) {
            last = agreed(there_and_back(bytes));
            best = std::min(best, last);
        }
        return 2 * static_cast<double>(bytes) / (last > 2 * kSlowPass ? last : best);
    }

  private:
    double there_and_back(size_t bytes) {
        const auto begin = Clock::now();
        pair_.broadcast(data_.data(), bytes, 0);
        pair_.broadcast(data_.data(), bytes, 1);
        return seconds_since(begin);
    }
    /// Rank 0's value, so that both take the same decisions.
    double agreed(double value) {
        pair_.broadcast(&value, sizeof value, 0);
        return value;
    }

    comm::Communicator& pair_;
    double budget_;
    std::vector<std::byte> data_;
};

}  // namespace

size_t PairPlan::pairs() const {
    size_t total = 0;
    for (const auto& round : rounds) total += round.size();
    return total;
}

PairPlan plan_pairs(const std::vector<std::string>& host_of) {
    PairPlan plan;
    std::vector<int> ranks;
    if (host_of.size() <= kMostRanks) {
        for (size_t r = 0; r < host_of.size(); ++r) ranks.push_back(static_cast<int>(r));
        plan.rounds = tournament(ranks);
        return plan;
    }
    std::map<std::string, std::vector<int>> hosts;
    std::vector<std::string> order;
    for (size_t r = 0; r < host_of.size(); ++r) {
        if (hosts[host_of[r]].empty()) order.push_back(host_of[r]);
        hosts[host_of[r]].push_back(static_cast<int>(r));
    }
    if (order.size() > kMostRanks) order.resize(kMostRanks);
    std::vector<std::pair<int, int>> inside;
    for (const std::string& name : order) {
        const std::vector<int>& members = hosts[name];
        ranks.push_back(members[0]);
        if (members.size() > 1) inside.emplace_back(members[0], members[1]);
    }
    plan.rounds = tournament(ranks);
    if (!inside.empty()) plan.rounds.push_back(inside);
    plan.left_out = std::to_string(host_of.size()) +
                    " ranks: measured between the first ranks of " + std::to_string(order.size()) +
                    " hosts, and the first two inside each";
    return plan;
}

std::vector<DoctorPair> measure_pairs(comm::Communicator& comm, const PairPlan& plan) {
    std::vector<DoctorPair> all;
    const double budget =
        std::clamp(kAllSeconds / static_cast<double>(std::max<size_t>(1, plan.pairs())),
                   kLeastSeconds, kMostSeconds);
    for (const auto& round : plan.rounds) {
        const auto own = std::find_if(round.begin(), round.end(), [&](const auto& p) {
            return p.first == comm.rank() || p.second == comm.rank();
        });
        const int turn = static_cast<int>(own - round.begin());
        // Who rests is alone, with a colour that no pair has.
        const int color = own != round.end() ? turn : turn + 1 + comm.rank();
        const std::unique_ptr<comm::Communicator> pair = comm.split(color, comm.rank());
        for (size_t i = 0; i < round.size(); ++i) {
            DoctorPair result{round[i].first, round[i].second, 0, 0};
            if (static_cast<int>(i) == turn) {
                PairProbe probe(*pair, budget);
                result.latency_us = probe.latency() * 1e6;
                result.bandwidth = probe.bandwidth();
            }
            comm.broadcast(&result, sizeof result, round[i].first);
            all.push_back(result);
        }
    }
    return all;
}

}  // namespace conclave
