#include "runtime/engine/conformance/format_laws.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "runtime/engine/conformance/codec_laws.h"
#include "runtime/engine/conformance/random.h"

namespace conclave::engine::conformance {
namespace {

/// What a config may hold in place of what it should.
const std::vector<Json>& strange_values() {
    static const std::vector<Json> values = [] {
        Json deep = Json::object();
        for (int i = 0; i < 60; ++i) deep = i % 2 ? Json::array({deep}) : Json{{"a", deep}};
        return std::vector<Json>{nullptr,
                                 true,
                                 0,
                                 -1,
                                 1,
                                 7,
                                 INT64_MAX,
                                 INT64_MIN,
                                 UINT64_MAX,
                                 int64_t{1} << 33,
                                 1e300,
                                 0.5,
                                 "",
                                 "nonsense",
                                 std::string(5000, 'x'),
                                 Json::array(),
                                 Json::array({1, "a", nullptr}),
                                 Json(std::vector<int>(1000, 1)),
                                 Json::object(),
                                 {{"a", 1}},
                                 deep};
    }();
    return values;
}

/// Every value below `json`, deepest last; at most some hundred.
void collect(const Json& json, const Json::json_pointer& at, std::vector<Json::json_pointer>& out) {
    if (out.size() > 300) return;
    if (json.is_object())
        for (const auto& [key, value] : json.items())
            out.push_back(at / key), collect(value, at / key, out);
    if (json.is_array())
        for (size_t i = 0; i < json.size() && i < 4; ++i)
            out.push_back(at / i), collect(json[i], at / i, out);
}

struct Change {
    size_t place = 0;
    int value = -1;  ///< of strange_values(); -1: removed
};

struct ConfigCase {
    Json base;
    std::vector<Change> changes;
    std::shared_ptr<const Subject> subject;  ///< whose config it is; may be null
};

void apply(const Change& change, Json& config, std::string* text) {
    std::vector<Json::json_pointer> places;
    collect(config, Json::json_pointer(), places);
    if (places.empty()) return;
    const Json::json_pointer& at = places[change.place % places.size()];
    const Json::json_pointer parent = at.parent_pointer();
    std::string value = "removed";
    if (change.value >= 0) {
        config[at] = strange_values()[static_cast<size_t>(change.value)];
        value = "= " + config[at].dump().substr(0, 60);
    } else if (config[parent].is_object()) {
        config[parent].erase(at.back());
    } else {
        config[parent].erase(static_cast<size_t>(std::stoul(at.back())));
    }
    if (text) *text += (text->empty() ? "" : ", ") + at.to_string() + " " + value;
}

Json config_of(const ConfigCase& c, std::string* text = nullptr) {
    Json config = c.base;
    for (const Change& change : c.changes) apply(change, config, text);
    return config;
}

/// conclave::Error and nothing else may come of `act`.
template <class Act>
Verdict only_errors(const char* what, Act&& act) {
    try {
        act();
    } catch (const Error&) {
    } catch (const Found&) {
        throw;
    } catch (const std::exception& e) {
        return fmt::format("{} threw \"{}\", which is no conclave::Error", what, e.what());
    } catch (...) {
        return fmt::format("{} threw what is no conclave::Error", what);
    }
    return std::nullopt;
}

Verdict check_config(const quant::QuantizationFormat& format, const ConfigCase& c) {
    const Json config = config_of(c);
    if (format.claims) {
        try {
            format.claims(config);
        } catch (const std::exception& e) {
            return fmt::format("claims() must bear any object, threw \"{}\"", e.what());
        } catch (...) {
            return "claims() must bear any object, threw what is no std::exception";
        }
    }
    if (format.complete)
        for (const Json& first : {c.base, config, Json::object()})
            if (auto v =
                    only_errors("complete()", [&] { format.complete(first, config, "sidecar"); }))
                return v;
    std::unique_ptr<quant::QuantizationConfig> made;
    if (auto v = only_errors("from_config()", [&] {
            made = format.from_config(config, "config");
            if (!made || !made->name()) throw Found{"from_config() returned null, or has no name"};
        }))
        return v;
    if (!made || !c.subject) return std::nullopt;
    return only_errors("describe() with this config", [&] {
        const Subject& s = *c.subject;
        const auto m = made->describe(s.source, *s.tensors);
        if (!m) return;
        const std::string fault = description_fault(*m, s.source, *s.tensors, *s.indexers);
        if (!fault.empty()) throw Found{"describe() with this config: " + fault};
    });
}

std::vector<ConfigCase> simpler_configs(const ConfigCase& c) {
    std::vector<ConfigCase> out;
    for (size_t i = 0; i < c.changes.size(); ++i) {
        out.push_back(c);
        out.back().changes.erase(out.back().changes.begin() + static_cast<int64_t>(i));
    }
    return out;
}

ConfigCase make_config(const quant::QuantizationFormat& format, const Subjects& subjects,
                       const Trial& trial, int64_t index) {
    Random random(trial.seed ^ static_cast<uint64_t>(index) * 0x5851f42d4c957f2du);
    ConfigCase c;
    c.base = {{"quant_method", format.name}};
    if (!subjects.empty()) {
        const auto fixed = std::max<int64_t>(1, static_cast<int64_t>(subjects.fixed.size()));
        c.subject = subject_of(subjects, random.in(0, fixed - 1), 4, 64, random.bits() >> 32);
        c.base = c.subject->config;
    }
    if (index == 0) return c;  // the config itself
    // First each place by each value, then two or three at random.
    std::vector<Json::json_pointer> places;
    collect(c.base, Json::json_pointer(), places);
    const auto values = static_cast<int64_t>(strange_values().size());
    const auto count = std::max<int64_t>(1, static_cast<int64_t>(places.size()));
    const auto single = index - 1;
    if (single < count * (values + 1)) {
        c.changes.push_back(
            {static_cast<size_t>(single % count), static_cast<int>(single / count) - 1});
        return c;
    }
    for (int64_t i = random.in(2, 3); i > 0; --i)
        c.changes.push_back(
            {static_cast<size_t>(random.in(0, 1000)), static_cast<int>(random.in(-1, values - 1))});
    return c;
}

// ---- describe

/// A tensor left out, or stated otherwise.
class ChangedTensors final : public Tensors {
  public:
    ChangedTensors(const Tensors& from, std::string name, std::optional<quant::TensorHeader> header,
                   bool values = true)
        : from_(from), name_(std::move(name)), header_(std::move(header)), values_(values) {}
    std::optional<quant::TensorHeader> header(const std::string& name) const override {
        return name == name_ ? header_ : from_.header(name);
    }
    std::optional<std::string> metadata(const std::string& key) const override {
        return from_.metadata(key);
    }
    bool values() const override { return values_; }
    std::vector<std::string> names() const override { return from_.names(); }
    uint64_t bytes(const std::string& name) const override {
        if (name != name_) return from_.bytes(name);
        return header_ ? header_bytes(*header_) : 0;
    }
    void read_at(const std::string& name, uint64_t offset,
                 std::span<std::byte> out) const override {
        if (name != name_) return from_.read_at(name, offset, out);
        if (offset > bytes(name) || out.size() > bytes(name) - offset)
            throw Error(ErrorCode::kBadContent, "a read is outside the tensor").tensor(name);
        // As much as there is, then zeros.
        const uint64_t there = from_.bytes(name);
        const size_t some = offset < there ? std::min<uint64_t>(out.size(), there - offset) : 0;
        from_.read_at(name, offset, out.first(some));
        std::fill(out.begin() + static_cast<int64_t>(some), out.end(), std::byte{0});
    }

  private:
    const Tensors& from_;
    std::string name_;
    std::optional<quant::TensorHeader> header_;
    bool values_;
};

constexpr int kShapes = 9;
const char* const kTypes[] = {"BF16", "F32", "I32", "U8", "F4", "I64", "F8_E4M3", "F16"};

void change_shape(std::vector<int64_t>& shape, int kind) {
    const auto axis = [&](size_t i, int64_t plus) {
        if (i < shape.size()) shape[i] = std::max<int64_t>(0, shape[i] + plus);
    };
    switch (kind) {
        case 0:
            return axis(0, -1);
        case 1:
            return axis(0, 1);
        case 2:
            return axis(shape.size() - 1, -1);
        case 3:
            return axis(shape.size() - 1, 1);
        case 4:
            return std::reverse(shape.begin(), shape.end());
        case 5:
            return shape.clear();
        case 6:
            return shape.insert(shape.begin(), 1), void();
        case 7:
            for (int64_t& d : shape) d = 0;
            return;
        default:
            for (int64_t& d : shape) d = ceil_div(d, 2);
    }
}

struct DescribeCase {
    std::shared_ptr<const Subject> subject;
    size_t tensor = 0;
    int change = -1;  ///< -1: none; 0: left out; then shapes, types, and other sizes asked for
};

constexpr int kAsked = 1 + kShapes + static_cast<int>(std::size(kTypes));  ///< the first of these
constexpr int kChanges = kAsked + 4;

std::string describe_text(const DescribeCase& c) {
    const Subject& s = *c.subject;
    const auto names = s.tensors->names();
    if (c.change < 0 || names.empty()) return s.name;
    if (c.change >= kAsked)
        return s.name + fmt::format(" asked for as {} x {}", s.source.n + c.change % 2,
                                    s.source.k + (c.change + 1) % 2);
    const std::string& name = names[c.tensor % names.size()];
    if (c.change == 0) return s.name + " without " + name;
    auto header = s.tensors->header(name).value_or(quant::TensorHeader{});
    if (c.change <= kShapes)
        change_shape(header.shape, c.change - 1);
    else
        header.dtype = kTypes[c.change - kShapes - 1];
    std::string shape;
    for (int64_t d : header.shape) shape += (shape.empty() ? "" : ", ") + std::to_string(d);
    return s.name + fmt::format(" with {} stated as {} [{}]", name, header.dtype, shape);
}

Verdict compare_valueless(const quant::StoredMatrix& m, const quant::StoredMatrix& bare) {
    if (!(m.encoding == bare.encoding))
        return fmt::format("with values {}, without them {}", m.encoding.to_string(),
                           bare.encoding.to_string());
    const auto rule = [](const quant::StoredMatrix& x) {
        return x.activation.value_or(quant::ActivationRule{});
    };
    if (rule(m).dynamic() != rule(bare).dynamic() ||
        (rule(m).dynamic() && rule(m).group != rule(bare).group))
        return fmt::format("its activation rule is {} with values, {} without them",
                           rule(m).to_string(), rule(bare).to_string());
    return std::nullopt;
}

Verdict check_describe(const quant::QuantizationFormat& format, const DescribeCase& c) {
    const Subject& s = *c.subject;
    const auto config = format.from_config(s.config, "config");
    if (!config) return "from_config() returned null";
    quant::MatrixSource source = s.source;
    const auto names = s.tensors->names();
    std::string name;
    std::optional<quant::TensorHeader> header;
    if (c.change >= kAsked) {
        source.n += c.change % 2, source.stored_n += c.change % 2;
        source.k += (c.change + 1) % 2;
    } else if (c.change >= 0 && !names.empty()) {
        name = names[c.tensor % names.size()];
        if (c.change > 0) header = s.tensors->header(name);
        if (header && c.change <= kShapes) change_shape(header->shape, c.change - 1);
        if (header && c.change > kShapes) header->dtype = kTypes[c.change - kShapes - 1];
    }
    const ChangedTensors tensors(*s.tensors, name, header), bare(*s.tensors, name, header, false);
    std::optional<quant::StoredMatrix> m;
    Verdict v = only_errors("describe()", [&] {
        m = config->describe(source, tensors);
        if (!m) return;
        const std::string fault = description_fault(*m, source, tensors, *s.indexers);
        if (!fault.empty()) throw Found{fault};
    });
    if (v || c.change >= 0) return v;
    if (!m) m = config->describe(source, *s.tensors);  // throws what it threw
    if (!m) return "describe() does not know the tensors of its own format";
    const auto without = config->describe(source, bare);
    if (!without) return "describe() finds the matrix only where it may read values";
    return compare_valueless(*m, *without);
}

}  // namespace

Outcome search_config(const quant::QuantizationFormat& format, const Subjects& subjects,
                      const Trial& trial) {
    Search<ConfigCase> s;
    s.law = "format.config";
    s.make = [&](int64_t index) { return make_config(format, subjects, trial, index); };
    s.check = [&](const ConfigCase& c) { return check_config(format, c); };
    s.text = [](const ConfigCase& c) {
        std::string changes;
        config_of(c, &changes);
        return "config " + c.base.dump().substr(0, 300) +
               (changes.empty() ? "" : " with " + changes);
    };
    s.simpler = simpler_configs;
    return search(s, trial);
}

Outcome search_describe(const quant::QuantizationFormat& format, const Subjects& subjects,
                        const Trial& trial) {
    Search<DescribeCase> s;
    s.law = "format.describe";
    s.make = [&](int64_t index) {
        DescribeCase c;
        Random random(trial.seed ^ static_cast<uint64_t>(index) * 0x5851f42d4c957f2du);
        const int64_t most = 1 + 100 * index / std::max<int64_t>(1, trial.cases);
        const auto fixed = static_cast<int64_t>(subjects.fixed.size());
        c.subject = subject_of(subjects, fixed ? index % fixed : 0, random.in(1, most),
                               random.in(1, most), random.bits() >> 32);
        if (index % 4 == 0) return c;
        c.tensor = static_cast<size_t>(random.in(0, 1000));
        c.change = static_cast<int>(random.in(0, kChanges - 1));
        return c;
    };
    s.check = [&](const DescribeCase& c) { return check_describe(format, c); };
    s.text = describe_text;
    s.simpler = [](const DescribeCase& c) {
        std::vector<DescribeCase> out;
        if (c.change >= 0) out.push_back(c), out.back().change = -1;
        return out;
    };
    return search(s, trial);
}

}  // namespace conclave::engine::conformance
