// The commands. run, verify and perplexity are called on every rank, inspect, plan and plugins on
// one. Each returns the exit code of its rank, or throws Error.
#pragma once
#include "launch/options.h"
#include "runtime/api/conclave.hpp"

namespace conclave::launch {

int run(const Invocation& invocation, const Comm& comm);
int verify(const Invocation& invocation, const Comm& comm);
int perplexity(const Invocation& invocation, const Comm& comm);
int bench(const Invocation& invocation, const Comm& comm);
int dequantize(const Invocation& invocation, const Comm& comm);
int doctor(const Invocation& invocation, const Comm& comm);
int inspect(const Invocation& invocation);
int plan(const Invocation& invocation);
int predict(const Invocation& invocation);  ///< plan with --link
int conform(const Invocation& invocation);
int plugins(const Invocation& invocation, const Plugins& plugins);

}  // namespace conclave::launch
