#include <utility>

#include "runtime/api/conclave.hpp"
#include "runtime/comm/callback_communicator.h"

namespace conclave {

Comm comm_from_transport(Transport transport) {
    return Comm(comm::make_callback(std::move(transport)));
}

}  // namespace conclave
