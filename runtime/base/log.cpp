#include "runtime/base/log.h"

namespace conclave {

const char* log_level_name(LogLevel level) {
    switch (level) {
        case LogLevel::kDebug:
            return "debug";
        case LogLevel::kInfo:
            return "info";
        case LogLevel::kWarning:
            return "warning";
        case LogLevel::kError:
            return "error";
    }
    return "error";
}

Log::Log(Receiver receiver, LogLevel least) : least_(least) {
    if (receiver) receiver_ = std::make_shared<const Receiver>(std::move(receiver));
}

void Log::write(LogLevel level, std::string_view message) const {
    if (enabled(level)) (*receiver_)(level, message);
}

}  // namespace conclave
