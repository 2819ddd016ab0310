// What every function of the C interface is wrapped in: nothing thrown leaves it, and what was
// thrown becomes a status and the thread's last error.
//
//     conclave_status conclave_engine_shutdown(conclave_engine* engine) {
//         return guarded([&] { ... throws ... });
//     }
#pragma once
#include <cstddef>
#include <string>

#include "runtime/api/conclave.h"
#include "runtime/base/error.h"

namespace conclave::c_api {

/// An Error with a status of its own: those that only the C interface has (HANDLE, STRUCT_SIZE,
/// BUSY, CALLBACK), and the hosts'. It keeps the status on its way to other ranks.
Error failure(conclave_status status, const std::string& message);
conclave_status status_of(const Error& error) noexcept;

/// Inside a catch: what is in flight, as an Error. May throw bad_alloc.
Error current_error();
/// Inside a catch: notes what is in flight as the thread's last error, and gives its status.
conclave_status report_current_exception() noexcept;

template <class Body>
conclave_status guarded(Body&& body) noexcept {
    try {
        body();
        return CONCLAVE_OK;
    } catch (...) {
        return report_current_exception();
    }
}

/// Throws kUsage where a pointer that must not be null is: "config is null".
void expect(const void* pointer, const char* name);
void expect_struct_size(size_t found, size_t expected, const char* type);

/// `value` may be null only if `count` is 0.
void expect_array(const void* values, size_t count, const char* name);

/// Throws kUsage for a null pointer, STRUCT_SIZE for a struct of a version that is not known here.
template <class Struct>
void expect_struct(const Struct* value, const char* name, const char* type) {
    expect(value, name);
    expect_struct_size(value->struct_size, sizeof(Struct), type);
}

/// A copy that conclave_free() gives back.
char* new_text(const std::string& text);

}  // namespace conclave::c_api
