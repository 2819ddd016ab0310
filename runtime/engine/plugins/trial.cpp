#include "runtime/engine/plugins/trial.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/text.h"
#include "runtime/engine/conformance/laws.h"

namespace conclave::engine {
namespace {

/// Enough for what is wrong from the ground up, and over in milliseconds; `conclave conform` is for
/// the rest.
constexpr int64_t kCases = 16;
constexpr uint64_t kSeed = 1;

std::string text_of(const conformance::Broken& broken) {
    return fmt::format("breaks law {}: {}", broken.law, broken.what);
}

/// A format may take over a variety of another's configs (which it tells by other keys), not all.
std::string try_claims(const quant::QuantizationFormat& format, const Extensions& before) {
    static const char* const kOdd[] = {R"({"quant_method": 1})", R"({"quant_method": null})",
                                       R"({"quant_method": {"quant_method": [[]]}})",
                                       R"({"": -1, "bits": "x", "modules": [1, {}, null]})"};
    for (const char* odd : kOdd) format.claims(Json::parse(odd));
    if (format.claims(Json::object())) return "claims models that are not quantized";
    for (const std::string& other : before.formats.names())
        if (format.claims(Json{{"quant_method", other}}))
            return "claims all that is of format " + in_quotes(other);
    return "";
}

/// `use` of one registered thing; what it throws is a refusal too.
template <class Use>
std::string attempt(const SharedLine& step, const std::string& what, Use&& use) {
    step.set(what);
    std::string fault;
    try {
        fault = use();
    } catch (const std::exception& e) {
        fault = "throws " + in_quotes(e.what(), 400);
    } catch (...) {
        fault = "throws something that is no std::exception";
    }
    return fault.empty() ? "" : what + " " + fault;
}

}  // namespace

SharedLine::SharedLine() {
    void* const page =
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        throw Error(ErrorCode::kResource,
                    std::string("cannot map memory (") + std::strerror(errno) + ")");
    text_ = static_cast<char*>(page);
}

SharedLine::~SharedLine() { munmap(text_, kBytes); }

void SharedLine::set(const std::string& text) const {
    const size_t bytes = std::min(text.size(), kBytes - 1);
    std::memcpy(text_, text.data(), bytes);
    text_[bytes] = 0;
}

std::string SharedLine::text() const { return std::string(text_, strnlen(text_, kBytes)); }

std::string try_out(const Staging& staging, const Extensions& before, CpuFeatures cpu,
                    const SharedLine& step) {
    for (const auto& f : staging.formats()) {
        const std::string name = "format " + in_quotes(f.name);
        const std::string fault = attempt(step, name, [&]() -> std::string {
            for (const quant::Encoding& e : f.encodings) e.to_string();
            return f.claims ? try_claims(f, before) : "";
        });
        if (!fault.empty()) return fault;
    }
    for (const auto& r : staging.readers()) {
        const std::string fault =
            attempt(step, "reader " + in_quotes(r.name), [&]() -> std::string {
                for (const char* odd : {"", "/dev/null", "/dev/null/not there"})
                    if (r.claims(odd)) return "claims " + in_quotes(odd);
                return "";
            });
        if (!fault.empty()) return fault;
    }
    for (const auto& i : staging.indexers()) {
        const std::string fault =
            attempt(step, "indexer " + in_quotes(i.name), [&]() -> std::string {
                const auto broken =
                    conformance::check_indexer(*i.indexer, i.examples, kSeed, kCases);
                return broken ? text_of(*broken) : "";
            });
        if (!fault.empty()) return fault;
    }
    for (const quant::Kernel* k : staging.kernels()) {
        if (!cpu.has(k->isa)) continue;
        const std::string name =
            fmt::format("kernel {} (of {})", in_quotes(k->name), isa_name(k->isa));
        const std::string fault = attempt(step, name, [&]() -> std::string {
            const auto broken = conformance::check_kernel(*k, kSeed, kCases);
            return broken ? text_of(*broken) : "";
        });
        if (!fault.empty()) return fault;
    }
    return "";
}

}  // namespace conclave::engine
