// Messages for the host. The library never prints: a Log hands each message to whoever made it, and
// one made without a receiver is silent and formats nothing.
#pragma once
#include <spdlog/fmt/fmt.h>

#include <functional>
#include <memory>
#include <string_view>
#include <utility>

#include "runtime/base/log_level.h"

namespace conclave {

const char* log_level_name(LogLevel level);  ///< "debug", "info", "warning", "error"

/// A handle: copies share the receiver. The receiver may be called from any thread.
class Log {
  public:
    using Receiver = std::function<void(LogLevel, std::string_view)>;

    Log() = default;
    explicit Log(Receiver receiver, LogLevel least = LogLevel::kInfo);

    bool enabled(LogLevel level) const { return receiver_ && level >= least_; }
    void write(LogLevel level, std::string_view message) const;

    template <class... Args>
    void debug(fmt::format_string<Args...> text, Args&&... args) const {
        format(LogLevel::kDebug, text, std::forward<Args>(args)...);
    }
    template <class... Args>
    void info(fmt::format_string<Args...> text, Args&&... args) const {
        format(LogLevel::kInfo, text, std::forward<Args>(args)...);
    }
    template <class... Args>
    void warning(fmt::format_string<Args...> text, Args&&... args) const {
        format(LogLevel::kWarning, text, std::forward<Args>(args)...);
    }
    template <class... Args>
    void error(fmt::format_string<Args...> text, Args&&... args) const {
        format(LogLevel::kError, text, std::forward<Args>(args)...);
    }

  private:
    template <class... Args>
    void format(LogLevel level, fmt::format_string<Args...> text, Args&&... args) const {
        if (enabled(level)) write(level, fmt::format(text, std::forward<Args>(args)...));
    }

    std::shared_ptr<const Receiver> receiver_;
    LogLevel least_ = LogLevel::kInfo;
};

}  // namespace conclave
