// The one error type of the library. A message says what is wrong, and names file, tensor, rank,
// expected and found wherever they are known; the code says what kind of failure it is.
#pragma once
#include <exception>
#include <string>
#include <utility>

#include "runtime/base/visibility.h"

namespace conclave {

enum class ErrorCode {
    kUsage,        ///< the caller asked for something that cannot be (options, a prompt too long)
    kBadContent,   ///< a file is there, but what it holds is wrong
    kMissingFile,  ///< a file is not there or cannot be opened
    kUnsupported,  ///< well-formed, but an architecture, format or CPU that is not served
    kResource,     ///< memory, disk or address space ran out
    kComm,         ///< a collective failed, or a peer is gone
    kCancelled,    ///< the host asked to stop
    kInternal,     ///< a broken invariant: a bug of ours
    kHost,         ///< a callback of the host failed; host_status() says how
};

/// sysexits-like process exit code: 2, 65, 66, 78 are permanent (a supervisor must not restart).
constexpr int exit_code(ErrorCode code) {
    switch (code) {
        case ErrorCode::kUsage:
            return 2;
        case ErrorCode::kBadContent:
            return 65;
        case ErrorCode::kMissingFile:
            return 66;
        case ErrorCode::kUnsupported:
            return 78;
        case ErrorCode::kResource:
            return 71;
        case ErrorCode::kComm:
            return 75;
        case ErrorCode::kCancelled:
            return 130;
        case ErrorCode::kInternal:
        case ErrorCode::kHost:
            return 70;
    }
    return 70;
}

/// throw Error(kBadContent, "tensor has the wrong shape").file(f).tensor(t).expected(a).found(b);
/// what() == "tensor has the wrong shape: file F, tensor T: expected A, found B".
class CONCLAVE_API Error : public std::exception {
  public:
    Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {
        compose();
    }

    Error& file(std::string v) { return set(file_, std::move(v)); }
    Error& tensor(std::string v) { return set(tensor_, std::move(v)); }
    Error& expected(std::string v) { return set(expected_, std::move(v)); }
    Error& found(std::string v) { return set(found_, std::move(v)); }
    Error& rank(int v) { return set(rank_, std::to_string(v)); }
    /// Of kHost: what the callback returned. It travels with the error to all ranks.
    Error& host_status(int v) {
        host_status_ = v;
        return *this;
    }

    ErrorCode code() const { return code_; }
    int host_status() const { return host_status_; }
    bool has_rank() const { return !rank_.empty(); }
    const char* what() const noexcept override { return what_.c_str(); }

  private:
    Error& set(std::string& field, std::string v) {
        field = std::move(v);
        compose();
        return *this;
    }
    void compose() {
        what_ = message_;
        const char* separator = ": ";
        const auto name = [&](const char* label, const std::string& v) {
            if (v.empty()) return;
            what_ += separator + std::string(label) + " " + v;
            separator = ", ";
        };
        name("file", file_);
        name("tensor", tensor_);
        name("rank", rank_);
        separator = ": ";
        name("expected", expected_);
        name("found", found_);
    }

    ErrorCode code_;
    int host_status_ = 0;
    std::string message_, file_, tensor_, rank_, expected_, found_, what_;
};

/// Throws kInternal with the place when an invariant of ours does not hold. Always on.
#define CONCLAVE_CHECK(condition)                                                              \
    do {                                                                                       \
        if (!(condition))                                                                      \
            throw ::conclave::Error(::conclave::ErrorCode::kInternal,                          \
                                    std::string("internal check failed: " #condition " at ") + \
                                        __FILE__ + ":" + std::to_string(__LINE__));            \
    } while (false)

}  // namespace conclave
