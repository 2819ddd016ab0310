#include "runtime/api/c/guard.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace conclave::c_api {
namespace {

/// conclave_last_error() of this thread. `text` may fail to be made for want of memory; `shown`
/// always points to something.
struct LastError {
    std::string text;
    const char* shown = "";

    void set(const char* message) noexcept {
        try {
            text = message;
            shown = text.c_str();
        } catch (...) {
            shown = "out of memory";
        }
    }
};

LastError& last_error() {
    thread_local LastError error;
    return error;
}

conclave_status status_of_code(ErrorCode code) noexcept {
    switch (code) {
        case ErrorCode::kUsage:
            return CONCLAVE_ERROR_USAGE;
        case ErrorCode::kBadContent:
            return CONCLAVE_ERROR_BAD_CONTENT;
        case ErrorCode::kMissingFile:
            return CONCLAVE_ERROR_MISSING_FILE;
        case ErrorCode::kUnsupported:
            return CONCLAVE_ERROR_UNSUPPORTED;
        case ErrorCode::kResource:
            return CONCLAVE_ERROR_RESOURCE;
        case ErrorCode::kComm:
            return CONCLAVE_ERROR_COMM;
        case ErrorCode::kCancelled:
            return CONCLAVE_ERROR_CANCELLED;
        case ErrorCode::kInternal:
            return CONCLAVE_ERROR_INTERNAL;
        case ErrorCode::kHost:
            return CONCLAVE_ERROR_CALLBACK;
    }
    return CONCLAVE_ERROR_INTERNAL;
}

}  // namespace

Error failure(conclave_status status, const std::string& message) {
    return Error(ErrorCode::kHost, message).host_status(status);
}

conclave_status status_of(const Error& error) noexcept {
    if (error.code() == ErrorCode::kHost && error.host_status() != 0) return error.host_status();
    return status_of_code(error.code());
}

Error current_error() {
    try {
        throw;
    } catch (const Error& e) {
        return e;
    } catch (const std::bad_alloc&) {
        return Error(ErrorCode::kResource, "out of memory");
    } catch (const std::exception& e) {
        return Error(ErrorCode::kInternal, e.what());
    } catch (...) {
        return Error(ErrorCode::kInternal, "something was thrown that is no std::exception");
    }
}

conclave_status report_current_exception() noexcept {
    try {
        const Error e = current_error();
        last_error().set(e.what());
        return status_of(e);
    } catch (...) {  // no memory for the Error
        last_error().set("out of memory");
        return CONCLAVE_ERROR_RESOURCE;
    }
}

void expect(const void* pointer, const char* name) {
    if (!pointer) throw Error(ErrorCode::kUsage, std::string(name) + " is null");
}

void expect_struct_size(size_t found, size_t expected, const char* type) {
    if (found == expected) return;
    throw failure(CONCLAVE_ERROR_STRUCT_SIZE,
                  std::string("struct_size is of no known version of ") + type)
        .expected(std::to_string(expected))
        .found(std::to_string(found));
}

void expect_array(const void* values, size_t count, const char* name) {
    if (count > 0) expect(values, name);
}

char* new_text(const std::string& text) {
    char* const copy = static_cast<char*>(std::malloc(text.size() + 1));
    if (!copy) throw std::bad_alloc();
    std::memcpy(copy, text.c_str(), text.size() + 1);
    return copy;
}

}  // namespace conclave::c_api

using namespace conclave::c_api;

uint32_t conclave_abi_version(void) { return CONCLAVE_ABI_VERSION; }

const char* conclave_last_error(void) { return last_error().shown; }

void conclave_free(char* text) { std::free(text); }

const char* conclave_status_name(conclave_status status) {
    static const char* const kNames[] = {
        "CONCLAVE_OK",
        "CONCLAVE_ERROR_USAGE",
        "CONCLAVE_ERROR_BAD_CONTENT",
        "CONCLAVE_ERROR_MISSING_FILE",
        "CONCLAVE_ERROR_UNSUPPORTED",
        "CONCLAVE_ERROR_RESOURCE",
        "CONCLAVE_ERROR_COMM",
        "CONCLAVE_ERROR_CANCELLED",
        "CONCLAVE_ERROR_INTERNAL",
        "CONCLAVE_ERROR_HANDLE",
        "CONCLAVE_ERROR_STRUCT_SIZE",
        "CONCLAVE_ERROR_BUSY",
        "CONCLAVE_ERROR_CALLBACK",
    };
    constexpr auto kCount = static_cast<conclave_status>(sizeof kNames / sizeof kNames[0]);
    return status >= 0 && status < kCount ? kNames[status] : "CONCLAVE_HOST_STATUS";
}
