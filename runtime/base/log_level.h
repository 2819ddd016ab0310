#pragma once

namespace conclave {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

}  // namespace conclave
