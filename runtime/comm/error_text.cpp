#include "runtime/comm/error_text.h"

#include <cstring>
#include <string>

namespace conclave::comm {
namespace {

void copy_text(ErrorText& packed, const char* text) noexcept {
    const char kEllipsis[] = "...";
    size_t length = std::strlen(text);
    if (length > kErrorTextBytes) {
        length = kErrorTextBytes - (sizeof kEllipsis - 1);
        // Not inside a UTF-8 character: its later bytes are 10xxxxxx.
        while (length > 0 && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80) --length;
        std::memcpy(packed.text, text, length);
        std::memcpy(packed.text + length, kEllipsis, sizeof kEllipsis - 1);
        length += sizeof kEllipsis - 1;
    } else {
        std::memcpy(packed.text, text, length);
    }
    packed.length = static_cast<uint32_t>(length);
}

/// An error that came from another rank names one in its text, but not as its rank().
bool names_rank(const Error& error) noexcept {
    const char kLabel[] = " rank ";
    if (error.has_rank()) return true;
    for (const char* at = error.what(); (at = std::strstr(at, kLabel)) != nullptr;) {
        at += sizeof kLabel - 1;
        if (*at >= '0' && *at <= '9') return true;
    }
    return false;
}

}  // namespace

ErrorText pack_error(const Error& error, int rank) noexcept {
    ErrorText packed;
    packed.code = static_cast<uint32_t>(error.code());
    packed.host_status = error.host_status();
    try {
        Error named = error;
        if (rank >= 0 && !names_rank(error)) named.rank(rank);
        copy_text(packed, named.what());
    } catch (...) {  // no memory for the copy: the plain text still goes through
        copy_text(packed, error.what());
    }
    return packed;
}

Error unpack_error(const ErrorText& packed) {
    if (packed.code > static_cast<uint32_t>(ErrorCode::kHost) || packed.length > kErrorTextBytes)
        return Error(ErrorCode::kComm, "a peer sent an error that cannot be read");
    return Error(static_cast<ErrorCode>(packed.code), std::string(packed.text, packed.length))
        .host_status(packed.host_status);
}

}  // namespace conclave::comm
