// Scaled positions. Llama 3's scaling is not in the metadata: the file has what it divides each
// frequency by, as a tensor, and the parameters of Hugging Face's formula are recovered from that.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>

#include "runtime/base/text.h"
#include "sharding/checkpoint/gguf/documents.h"

namespace conclave::sharding {
namespace {

constexpr const char* kDivisors = "rope_freqs.weight";
// What a divisor in f32, and parameters that were rounded to short numbers, may be off. At position
// 131072 the angles of divided frequencies, some hundreds, are then off by less than 1e-3.
constexpr double kTolerance = 2e-6;

std::vector<double> read_divisors(const GgufContents& contents, const GgufTensor& tensor,
                                  int64_t pairs) {
    if (tensor.type != StoredType::kF32 || tensor.dims != std::vector<int64_t>{pairs})
        throw Error(ErrorCode::kBadContent, "tensor has the wrong type or shape")
            .file(contents.path)
            .tensor(kDivisors)
            .expected("F32 [" + std::to_string(pairs) + "]")
            .found(StoredTensor{"", tensor.type, tensor.dims, 0, 0, 0}.describe());
    std::vector<float> stored(static_cast<size_t>(pairs));
    CONCLAVE_CHECK(contents.read);
    contents.read(tensor, std::as_writable_bytes(std::span(stored)));
    std::vector<double> divisors;
    for (const float value : stored) {
        if (!std::isfinite(value) || value <= 0)
            throw Error(ErrorCode::kBadContent, "divisor of a frequency is wrong")
                .file(contents.path)
                .tensor(kDivisors)
                .expected("a positive number")
                .found(std::to_string(value));
        divisors.push_back(gguf_shortest(value));
    }
    return divisors;
}

/// With the lower of its two bounds 1: only their ratios to the original length count.
struct Llama3 {
    double factor, high, original;

    double divisor(double wave) const {
        if (wave < original / high) return 1;
        if (wave > original) return factor;
        const double smooth = (original / wave - 1) / (high - 1);
        return 1 / ((1 - smooth) / factor + smooth);
    }
};

/// The share of a frequency that is kept, which falls from 1 to 0 linearly in 1 / wave.
double smooth_of(double divisor, double factor) {
    return (1 / divisor - 1 / factor) / (1 - 1 / factor);
}

double rounded(double value, double steps) { return std::round(value * steps) / steps; }

class Llama3Fit {
  public:
    Llama3Fit(const std::vector<double>& divisors, double theta) : divisors_(divisors) {
        const auto pairs = static_cast<double>(divisors.size());
        for (size_t i = 0; i < divisors.size(); ++i)
            waves_.push_back(2 * std::numbers::pi *
                             std::pow(theta, static_cast<double>(i) / pairs));
    }

    std::optional<Llama3> run() const {
        const double factor = *std::max_element(divisors_.begin(), divisors_.end());
        if (factor <= 1) return std::nullopt;
        std::vector<size_t> between;
        for (size_t i = 0; i < divisors_.size(); ++i)
            if (divisors_[i] > 1 && divisors_[i] < factor) between.push_back(i);
        std::vector<Llama3> candidates;
        if (between.size() > 1) {
            const size_t a = between.front(), b = between.back();
            const double sa = smooth_of(divisors_[a], factor), sb = smooth_of(divisors_[b], factor);
            const double slope = (sa - sb) / (1 / waves_[a] - 1 / waves_[b]);
            const double at_zero = slope / waves_[a] - sa;  // low / (high - low)
            candidates.push_back({factor, 1 + 1 / at_zero, slope / at_zero});
        } else if (between.size() == 1) {
            // One more than can be told; every Llama has 4.
            const double s = smooth_of(divisors_[between[0]], factor);
            candidates.push_back({factor, 4, waves_[between[0]] * (1 + s * 3)});
        } else {
            candidates = {between_steps(factor, 4), between_steps(factor, 1 + 1e-3)};
        }
        for (const Llama3& c : candidates) {
            const Llama3 round{rounded(c.factor, 1e3), rounded(c.high, 1e3),
                               rounded(c.original, 1)};
            for (const Llama3& fit : {round, c})
                if (holds(fit)) return fit;
        }
        return std::nullopt;
    }

  private:
    /// Where no divisor lies between 1 and the factor: the bounds lie between the same two waves.
    Llama3 between_steps(double factor, double high) const {
        const auto first =
            std::find_if(divisors_.begin(), divisors_.end(), [](double d) { return d > 1; }) -
            divisors_.begin();
        const double above = waves_[static_cast<size_t>(first)];
        const double below = first > 0 ? waves_[static_cast<size_t>(first) - 1] : above / 16;
        return {factor, high, std::sqrt(above * below * high)};
    }

    bool holds(const Llama3& fit) const {
        if (!(fit.high > 1) || !(fit.original > 0) || !std::isfinite(fit.high * fit.original))
            return false;
        for (size_t i = 0; i < divisors_.size(); ++i)
            if (!(std::abs(fit.divisor(waves_[i]) / divisors_[i] - 1) <= kTolerance)) return false;
        return true;
    }

    const std::vector<double>& divisors_;
    std::vector<double> waves_;
};

Json llama3_scaling(const std::vector<double>& divisors, double theta,
                    const GgufContents& contents) {
    if (std::all_of(divisors.begin(), divisors.end(), [](double d) { return d == 1; })) return {};
    const std::optional<Llama3> fit = Llama3Fit(divisors, theta).run();
    if (!fit)
        throw Error(ErrorCode::kUnsupported,
                    "divisors of frequencies are not those of Llama 3's scaling")
            .file(contents.path)
            .tensor(kDivisors);
    const bool whole = fit->original == std::round(fit->original) && fit->original < 1e15;
    return {{"rope_type", "llama3"},
            {"factor", fit->factor},
            {"low_freq_factor", 1.0},
            {"high_freq_factor", fit->high},
            {"original_max_position_embeddings",
             whole ? Json(static_cast<int64_t>(fit->original)) : Json(fit->original)}};
}

class ScalingReader {
  public:
    ScalingReader(const GgufContents& contents, const std::string& architecture)
        : contents_(contents), m_(contents.metadata), prefix_(architecture + ".rope.") {}

    Json read() const {
        const std::string type = m_.get_string_or(prefix_ + "scaling.type", "linear");
        if (type == "none") return {};
        // Under the second name in old files; 0 is written for none.
        const double factor = number("scaling.factor", number("scale_linear", 0));
        if (type == "linear") {
            if (factor == 0 || factor == 1) return {};
            return {{"rope_type", "linear"}, {"factor", factor}};
        }
        if (type == "yarn") return yarn(factor);
        throw Error(ErrorCode::kUnsupported, "rope scaling is not served")
            .file(contents_.path)
            .expected("none, linear or yarn")
            .found(printable(type, 64));
    }

  private:
    double number(const char* name, double fallback) const {
        return gguf_shortest(m_.get_float_or(prefix_ + name, fallback, 0, 1e12));
    }

    Json yarn(double factor) const {
        if (factor <= 0)
            throw Error(ErrorCode::kBadContent, "metadata key '" + prefix_ + "scaling.factor'")
                .file(contents_.path)
                .expected("a positive number")
                .found(std::to_string(factor));
        const std::string extrapolation = prefix_ + "scaling.yarn_ext_factor";
        const double mix = m_.get_float_or(extrapolation, -1, -1e12, 1e12);
        const double log = m_.get_float_or(prefix_ + "scaling.yarn_log_multiplier", 0, -1e12, 1e12);
        if ((mix >= 0 && mix != 1) || log != 0)
            throw Error(ErrorCode::kUnsupported, "this mix of YaRN is not served")
                .file(contents_.path)
                .expected("no " + prefix_ + "scaling.yarn_log_multiplier, and " + extrapolation +
                          " 1")
                .found(std::to_string(log) + " and " + std::to_string(mix));
        Json scaling = {{"rope_type", "yarn"}, {"factor", factor}};
        const std::string original = prefix_ + "scaling.original_context_length";
        if (m_.has(original))
            scaling["original_max_position_embeddings"] = m_.get_int(original, 1, int64_t{1} << 30);
        for (const auto& [ours, theirs] :
             {std::pair<const char*, const char*>{"beta_fast", "scaling.yarn_beta_fast"},
              {"beta_slow", "scaling.yarn_beta_slow"},
              {"attention_factor", "scaling.yarn_attn_factor"}})
            if (const double value = number(theirs, 0); value > 0) scaling[ours] = value;
        // On top of YaRN's own factor, which the other one replaces.
        const double on_top = number("scaling.attn_factor", 1);
        if (on_top != 1)
            scaling["attention_factor"] = on_top * (factor <= 1 ? 1 : 0.1 * std::log(factor) + 1);
        return scaling;
    }

    const GgufContents& contents_;
    const GgufMetadata& m_;
    const std::string prefix_;  ///< "llama.rope."
};

}  // namespace

Json gguf_rope_scaling(const GgufContents& contents, const std::string& architecture, double theta,
                       int64_t head_dim) {
    Json scaling = ScalingReader(contents, architecture).read();
    const GgufTensor* tensor = contents.find(kDivisors);
    if (!tensor) return scaling;
    Json divided = llama3_scaling(read_divisors(contents, *tensor, head_dim / 2), theta, contents);
    if (divided.is_null()) return scaling;
    if (!scaling.is_null())
        throw Error(ErrorCode::kUnsupported, "positions are scaled twice")
            .file(contents.path)
            .tensor(kDivisors)
            .found("rope scaling " + scaling["rope_type"].get<std::string>() + ", too");
    return divided;
}

}  // namespace conclave::sharding
