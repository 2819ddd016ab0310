// Calls of the host's functions.
#pragma once
#include <exception>
#include <string>

#include "runtime/api/c/guard.h"

namespace conclave::c_api {

/// Inside a catch: what a callback threw, as CONCLAVE_ERROR_CALLBACK.
inline Error callback_threw(const char* name) {
    std::string what = "something that is no std::exception";
    try {
        throw;
    } catch (const std::exception& e) {
        what = e.what();
    } catch (...) {
    }
    return failure(CONCLAVE_ERROR_CALLBACK,
                   std::string("the host's ") + name + " callback threw: " + what);
}

/// `call` gives what the callback returned.
template <class Call>
int32_t call_host(const char* name, Call&& call) {
    try {
        return call();
    } catch (...) {
        throw callback_threw(name);
    }
}

/// The same; other than 0 is a failure, of this status.
template <class Call>
void expect_host(const char* name, Call&& call) {
    const int32_t status = call_host(name, call);
    if (status != 0)
        throw failure(status, std::string("the host's ") + name + " callback returned " +
                                  std::to_string(status));
}

}  // namespace conclave::c_api
