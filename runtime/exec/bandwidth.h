// How fast this rank's threads read memory doing nothing else: the floor of decoding.
#pragma once
#include <cstddef>

#include "runtime/base/executor.h"
#include "runtime/exec/slab.h"

namespace conclave::exec {

/// Writes all of `slab`, each part from the node that will read it.
void touch(Executor& executor, const Slab& slab);

/// Reads all of `slab`, each thread one forward stream of it; seconds it took.
double read_once(Executor& executor, const Slab& slab);

}  // namespace conclave::exec
