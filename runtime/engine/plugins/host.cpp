#include "runtime/engine/plugins/host.h"

#include <cmath>
#include <cstring>
#include <map>
#include <mutex>

#include "quant/formats/tensors.h"
#include "runtime/base/text.h"

namespace conclave::engine {
namespace {

class Host final : public PluginHost {
  public:
    std::optional<quant::StoredMatrix> describe_plain(
        const quant::MatrixSource& source, const quant::TensorLookup& tensors) const override {
        return quant::describe_plain(source, tensors);
    }

    std::shared_ptr<const quant::Codebook> codebook(
        const std::string& name, const std::array<float, 16>& levels) const override {
        for (const float level : levels)
            if (!std::isfinite(level))
                throw Error(ErrorCode::kBadContent,
                            "a level of codebook " + in_quotes(name) + " is not finite");
        const std::lock_guard lock(mutex_);
        auto& known = codebooks_[bits(levels)];
        if (!known) known = quant::make_codebook(name, levels);
        return known;
    }

    quant::TensorHeader expect_tensor(const quant::TensorLookup& tensors, const std::string& name,
                                      const std::vector<int64_t>& shape,
                                      const std::string& dtype) const override {
        return quant::expect_tensor(tensors, name, shape, dtype);
    }

    Json parse_json(std::string_view text, const std::string& file) const override {
        JsonLimits limits;
        limits.file = file;
        return conclave::parse_json(text, limits);
    }

    int64_t get_int(const Json& object, std::string_view key, const int64_t* fallback, int64_t min,
                    int64_t max, const std::string& file) const override {
        return fallback ? get_int_or(object, key, *fallback, min, max, file)
                        : conclave::get_int(object, key, min, max, file);
    }
    double get_double(const Json& object, std::string_view key, const double* fallback, double min,
                      double max, const std::string& file) const override {
        return fallback ? get_double_or(object, key, *fallback, min, max, file)
                        : conclave::get_double(object, key, min, max, file);
    }
    bool get_bool(const Json& object, std::string_view key, const bool* fallback,
                  const std::string& file) const override {
        return fallback ? get_bool_or(object, key, *fallback, file)
                        : conclave::get_bool(object, key, file);
    }
    std::string get_string(const Json& object, std::string_view key, const std::string* fallback,
                           const std::string& file) const override {
        return fallback ? get_string_or(object, key, *fallback, file)
                        : conclave::get_string(object, key, file);
    }

  private:
    using Bits = std::array<uint32_t, 16>;

    static Bits bits(const std::array<float, 16>& levels) {
        Bits bits;
        std::memcpy(bits.data(), levels.data(), sizeof bits);
        return bits;
    }

    // Encodings are equal where their codebooks are one object, the built-in one's included: so
    // codebooks are shared by all engines of the process.
    mutable std::mutex mutex_;
    mutable std::map<Bits, std::shared_ptr<const quant::Codebook>> codebooks_ = {
        {bits(quant::fp4_codebook()->levels), quant::fp4_codebook()}};
};

}  // namespace

const PluginHost& plugin_host() {
    static const Host* const host = new Host;  // plugins may use it to the very end
    return *host;
}

}  // namespace conclave::engine
