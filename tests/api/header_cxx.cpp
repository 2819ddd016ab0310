// conclave.h in C++, an old one.
#include "runtime/api/conclave.h"

extern "C" size_t header_cxx_sizes(void) {
    return sizeof(conclave_engine_config) + sizeof(conclave_sequence_config) +
           sizeof(conclave_engine_info) + sizeof(conclave_engine_stats) + sizeof(conclave_token) +
           sizeof(conclave_step_info) + sizeof(conclave_sequence_state) +
           sizeof(conclave_transport) + sizeof(conclave_logit_bias);
}
