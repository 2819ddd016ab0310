// Ranks that talk through a host's own collectives (transport.h).
//
// The host has the collectives of all ranks only; those of a part (split()) are made of its
// all_gather. As soon as there is a part of more than one but not all ranks, each collective, of
// whatever part, begins with a round in which every rank says which one it is in: those that all
// their members are in take place, in one all_gather together; ranks that are in another one give
// nothing to it, and say so again. So parts need not keep pace with each other; where no collective
// can take place, all ranks throw kInternal. Sums of a part go in its rank order.
//
// Ranks that a function of the host failed on, and those that poison(), call Transport::abort once;
// it is the host's to end the waits of the others. One that has failed calls nothing else of the
// host, neither for the whole nor for a part: unlike on other backends, a poison is everybody's.
// set_deadline() and set_phase() do nothing: waits are the host's.
#pragma once
#include <memory>

#include "runtime/comm/communicator.h"
#include "runtime/comm/transport.h"

namespace conclave::comm {

/// Collective: ranks tell each other their hosts' names, to know who shares one. Throws kUsage, and
/// calls nothing, if `transport` lacks a function or its rank and size cannot be.
std::shared_ptr<Communicator> make_callback(Transport transport);

}  // namespace conclave::comm
