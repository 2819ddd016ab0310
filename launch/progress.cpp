#include "launch/progress.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "launch/format.h"

namespace conclave::launch {
namespace {

int percent(const LoadProgress& p) {
    if (p.done || p.total == 0) return p.done ? 100 : 0;
    return static_cast<int>(100.0 * static_cast<double>(std::min(p.bytes, p.total)) /
                            static_cast<double>(p.total));
}

std::string figures(const LoadProgress& p) {
    const auto bytes = static_cast<double>(p.bytes), total = static_cast<double>(p.total);
    std::string out = human_bytes_of(bytes, total);
    if (p.seconds <= 0 || p.bytes == 0) return out;
    const double rate = bytes / p.seconds;
    out += "  " + human_bytes(rate, 2) + "/s";
    if (p.bytes < p.total) out += "  " + human_duration((total - bytes) / rate) + " left";
    return out;
}

}  // namespace

std::string progress_bar(const LoadProgress& progress) {
    constexpr int kWidth = 10;
    const int filled = percent(progress) * kWidth / 100;
    return fmt::format("loading [{}{}] {:3d} %  {}", std::string(filled, '#'),
                       std::string(kWidth - filled, '-'), percent(progress), figures(progress))
        .substr(0, 79);
}

std::optional<std::string> ProgressSteps::line(const LoadProgress& progress) {
    const int now = percent(progress);
    if (now < next_) return std::nullopt;
    next_ = now / 10 * 10 + 10;
    return fmt::format("loading {:3d} %  {}", now / 10 * 10, figures(progress));
}

std::string loaded_line(const LoadReport& report) {
    const auto bytes = static_cast<double>(report.bytes);
    const std::string rate =
        report.seconds > 0 ? human_bytes(bytes / report.seconds, 2) + "/s, " : "";
    return fmt::format("loaded {} in {:.1f} s ({}{} {})", human_bytes(bytes), report.seconds, rate,
                       report.ranks, report.ranks == 1 ? "rank" : "ranks");
}

}  // namespace conclave::launch
