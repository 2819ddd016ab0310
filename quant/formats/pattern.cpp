#include "quant/formats/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

constexpr size_t kLongestPattern = 16 << 10;
constexpr uint32_t kMostSteps = 200'000;  ///< a few milliseconds; configs' patterns need hundreds
constexpr uint32_t kMostKiB = 8 << 10;

template <class T, void (*kFree)(T*)>
std::unique_ptr<T, decltype(kFree)> owned(T* p) {
    if (!p) throw Error(ErrorCode::kResource, "no memory for a regular expression");
    return {p, kFree};
}

[[noreturn]] void refuse(const std::string& text, int reason) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(reason, message, sizeof message);
    throw Error(ErrorCode::kBadContent, "regular expression cannot be used")
        .expected("a pattern")
        .found(in_quotes(text, 80) + " (" + reinterpret_cast<const char*>(message) + ")");
}

}  // namespace

Pattern::Pattern(const std::string& text) : text_(text) {
    const auto context = owned<pcre2_compile_context, pcre2_compile_context_free>(
        pcre2_compile_context_create(nullptr));
    pcre2_set_max_pattern_length(context.get(), kLongestPattern);
    int reason = 0;
    PCRE2_SIZE at = 0;
    // \C would look at single bytes of a character.
    pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                     PCRE2_NEVER_BACKSLASH_C, &reason, &at, context.get());
    if (!code) refuse(text, reason);
    code_ = std::shared_ptr<const void>(code, [](const void* p) {
        pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p)));
    });
}

bool Pattern::matches(const std::string& name, bool from_start) const {
    const auto* code = static_cast<const pcre2_code*>(code_.get());
    const auto data = owned<pcre2_match_data, pcre2_match_data_free>(
        pcre2_match_data_create_from_pattern(code, nullptr));
    const auto context =
        owned<pcre2_match_context, pcre2_match_context_free>(pcre2_match_context_create(nullptr));
    pcre2_set_match_limit(context.get(), kMostSteps);
    pcre2_set_heap_limit(context.get(), kMostKiB);
    const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0,
                                  from_start ? PCRE2_ANCHORED : 0, data.get(), context.get());
    if (found == PCRE2_ERROR_NOMATCH) return false;
    if (found < 0) refuse(text_, found);
    return true;
}

}  // namespace conclave::quant
