#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/engine_options.h"
#include "launch/format.h"

namespace conclave::launch {

int dequantize(const Invocation& invocation, const Comm& comm) {
    Console console(invocation.verbose);
    const EngineOptions options = engine_options(invocation, comm, console);
    const DequantizeReport report = conclave::dequantize(options, invocation.dequantize, comm);
    if (comm.rank() != 0) return 0;
    if (invocation.json) {
        nlohmann::ordered_json json;
        json["directory"] = invocation.dequantize.directory;
        json["dtype"] = invocation.dequantize.dtype;
        json["files"] = report.files;
        json["tensors"] = report.tensors;
        json["bytes"] = report.bytes;
        json["seconds"] = report.seconds;
        print(json.dump() + "\n");
        return 0;
    }
    print(fmt::format("wrote {} tensors, {} of {}, to {} in {:.1f} s\n", report.tensors,
                      human_bytes(static_cast<double>(report.bytes)), invocation.dequantize.dtype,
                      terminal_safe(invocation.dequantize.directory), report.seconds));
    return 0;
}

}  // namespace conclave::launch
