#include "runtime/engine/conformance/conform.h"
#include "runtime/api/conclave_conform.hpp"

namespace conclave {

const std::vector<ConformLaw>& conform_laws() { return engine::conformance::laws(); }

ConformReport conform(const ConformOptions& options) {
    return engine::conformance::conform(options);
}

}  // namespace conclave
