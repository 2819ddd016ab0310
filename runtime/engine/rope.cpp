#include "runtime/engine/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/base/error.h"

namespace conclave::engine {
namespace {

constexpr double kHuge = 1e12;

struct Parameters {
    const Json& own;
    const std::string& file;
    double number(const char* key, double fallback) const {
        return get_double_or(own, key, fallback, 0, kHuge, file);
    }
    double positive(const char* key, double fallback) const {
        const double v = number(key, fallback);
        if (v <= 0)
            throw Error(ErrorCode::kBadContent,
                        std::string("rope parameter '") + key + "' is wrong")
                .file(file)
                .expected("a positive number")
                .found(std::to_string(v));
        return v;
    }
};

double yarn_scale(double factor, double m) {
    return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1;
}

void llama3(const Parameters& p, double original, std::vector<double>& f) {
    const double low = p.positive("low_freq_factor", 1), high = p.positive("high_freq_factor", 4);
    const double factor = p.positive("factor", 8);
    for (double& v : f) {
        const double wave = 2 * std::numbers::pi / v;
        if (wave < original / high) continue;
        if (wave > original / low) {
            v /= factor;
        } else if (high != low) {
            const double s = (original / wave - low) / (high - low);
            v = (1 - s) * v / factor + s * v;
        }
    }
}

float yarn(const Parameters& p, double original, double base, double max_positions,
           std::vector<double>& f) {
    const double d = 2 * static_cast<double>(f.size());
    const double factor = p.positive("factor", max_positions / original);
    const auto edge = [&](double turns) {
        return d * std::log(original / (2 * std::numbers::pi * turns)) / (2 * std::log(base));
    };
    double low = edge(p.positive("beta_fast", 32)), high = edge(p.positive("beta_slow", 1));
    if (get_bool_or(p.own, "truncate", true, p.file)) low = std::floor(low), high = std::ceil(high);
    low = std::max(low, 0.0), high = std::min(high, d - 1);
    if (low == high) high += 0.001;
    for (size_t i = 0; i < f.size(); ++i) {
        const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
        f[i] = f[i] / factor * ramp + f[i] * (1 - ramp);
    }
    const double given = p.number("attention_factor", 0);
    if (given > 0) return static_cast<float>(given);
    const double m = p.number("mscale", 0), all = p.number("mscale_all_dim", 0);
    if (m > 0 && all > 0)
        return static_cast<float>(yarn_scale(factor, m) / yarn_scale(factor, all));
    return static_cast<float>(yarn_scale(factor, 1));
}

}  // namespace

void RopeSpec::row(int64_t position, float* cos, float* sin) const {
    for (size_t i = 0; i < inv_freq.size(); ++i) {
        // The product is rounded to f32, as the reference rounds it; its functions are exact then.
        const float angle = inv_freq[i] * static_cast<float>(position);
        cos[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * scale;
        sin[i] = static_cast<float>(std::sin(static_cast<double>(angle))) * scale;
    }
}

RopeSpec parse_rope(const Json& config, const std::string& file, int64_t head_dim,
                    int64_t max_position_embeddings, double default_theta) {
    static const Json kNone = Json::object();
    const Json* own = find_json(config, "rope_parameters", file);
    if (!own) own = find_json(config, "rope_scaling", file);
    if (!own) own = &kNone;
    if (!own->is_object())
        throw Error(ErrorCode::kBadContent, "rope parameters are not an object")
            .file(file)
            .found(describe_json(*own));
    const Parameters p{*own, file};
    const Parameters top{config, file};
    const double base = find_json(*own, "rope_theta", file)
                            ? p.positive("rope_theta", 0)
                            : top.positive("rope_theta", default_theta);
    const double partial =
        p.positive("partial_rotary_factor", top.positive("partial_rotary_factor", 1));
    if (partial > 1)
        throw Error(ErrorCode::kBadContent, "partial_rotary_factor is above 1").file(file);
    const std::string type =
        get_string_or(*own, "rope_type", get_string_or(*own, "type", "default", file), file);
    const double original = find_json(config, "original_max_position_embeddings", file)
                                ? top.positive("original_max_position_embeddings", 0)
                                : p.positive("original_max_position_embeddings",
                                             static_cast<double>(max_position_embeddings));
    const int64_t half = static_cast<int64_t>(static_cast<double>(head_dim) * partial) / 2;
    std::vector<double> f;
    for (int64_t i = 0; i < half; ++i)
        f.push_back(std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(2 * half)));
    RopeSpec spec;
    if (type == "linear") {
        const double factor = p.positive("factor", 1);
        for (double& v : f) v /= factor;
    } else if (type == "llama3") {
        llama3(p, original, f);
    } else if (type == "yarn") {
        spec.scale = yarn(p, original, base, static_cast<double>(max_position_embeddings), f);
    } else if (type != "default") {
        throw Error(ErrorCode::kUnsupported, "rope type is not served")
            .file(file)
            .expected("default, linear, llama3 or yarn")
            .found(type.substr(0, 64));
    }
    bool finite = std::isfinite(spec.scale);
    for (double v : f) {
        spec.inv_freq.push_back(static_cast<float>(v));
        finite = finite && std::isfinite(spec.inv_freq.back());
    }
    if (!finite)
        throw Error(ErrorCode::kBadContent, "rope parameters give frequencies that are not finite")
            .file(file)
            .found("rope_type " + type);
    return spec;
}

}  // namespace conclave::engine
