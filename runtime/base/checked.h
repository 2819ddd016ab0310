// Arithmetic on sizes that come from files: a result that does not fit is an error, never a wrap.
#pragma once
#include <concepts>
#include <cstdint>
#include <string>
#include <utility>

#include "runtime/base/error.h"

namespace conclave {

[[noreturn]] inline void throw_overflow(const char* what) {
    throw Error(ErrorCode::kBadContent, std::string(what) + " does not fit its integer type");
}

template <std::integral T>
constexpr T checked_add(T a, std::type_identity_t<T> b, const char* what = "size") {
    T sum{};
    if (__builtin_add_overflow(a, b, &sum)) throw_overflow(what);
    return sum;
}

template <std::integral T>
constexpr T checked_mul(T a, std::type_identity_t<T> b, const char* what = "size") {
    T product{};
    if (__builtin_mul_overflow(a, b, &product)) throw_overflow(what);
    return product;
}

/// `value` as a To, if To can hold it.
template <std::integral To, std::integral From>
constexpr To checked_narrow(From value, const char* what = "size") {
    if (!std::in_range<To>(value)) throw_overflow(what);
    return static_cast<To>(value);
}

}  // namespace conclave
