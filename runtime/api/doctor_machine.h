// What files of the system say about this rank's machine.
#pragma once
#include "runtime/api/conclave_doctor.hpp"

namespace conclave {

/// Memory, huge pages, /dev/shm, networks, and what the launcher set. What a file does not tell
/// stays as it is.
void look_at_machine(DoctorRank& rank);

}  // namespace conclave
