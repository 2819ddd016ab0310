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

Progress progress_of(const LoadProgress& progress) {
    return {"loading", percent(progress), figures(progress)};
}

Progress progress_of_tokens(const char* what, int64_t tokens, int64_t total, double seconds) {
    Progress p{what, total > 0 ? static_cast<int>(100.0 * tokens / total) : 0, {}};
    p.figures = fmt::format("{} of {} tokens", tokens, total);
    if (seconds <= 0 || tokens == 0) return p;
    const double rate = tokens / seconds;
    p.figures += fmt::format("  {:.1f} tokens/s", rate);
    if (tokens < total) p.figures += "  " + human_duration((total - tokens) / rate) + " left";
    return p;
}

std::string progress_bar(const Progress& progress) {
    constexpr int kWidth = 10;
    const int filled = progress.percent * kWidth / 100;
    return fmt::format("{} [{}{}] {:3d} %  {}", progress.what, std::string(filled, '#'),
                       std::string(kWidth - filled, '-'), progress.percent, progress.figures)
        .substr(0, 79);
}

std::optional<std::string> ProgressSteps::line(const Progress& progress) {
    if (progress.what != what_) next_ = 10;
    what_ = progress.what;
    if (progress.percent < next_) return std::nullopt;
    next_ = progress.percent / 10 * 10 + 10;
    return fmt::format("{} {:3d} %  {}", progress.what, progress.percent / 10 * 10,
                       progress.figures);
}

std::string loaded_line(const LoadReport& report) {
    const auto bytes = static_cast<double>(report.bytes);
    const std::string rate =
        report.seconds > 0 ? human_bytes(bytes / report.seconds, 2) + "/s, " : "";
    return fmt::format("loaded {} in {:.1f} s ({}{} {})", human_bytes(bytes), report.seconds, rate,
                       report.ranks, report.ranks == 1 ? "rank" : "ranks");
}

}  // namespace conclave::launch
