// A checkpoint format: which tensors keep a matrix, under which names, and what they mean.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/codec.h"
#include "quant/method.h"
#include "runtime/base/json.h"

namespace conclave::quant {

/// A matrix of any encoding whose tensors are in no file.
StoredMatrix imagined_matrix(const MatrixSource& source, const Encoding& encoding);

/// Weights that are in no file (--load-format dummy), and how their inputs are quantized.
struct Imagined {
    Encoding encoding = {};
    std::optional<ActivationRule> activation = {};
};

class QuantizationConfig {
  public:
    virtual ~QuantizationConfig() = default;

    /// "none", or the checkpoint's quant_method.
    virtual const char* name() const = 0;
    virtual std::vector<Activations> supported_activations() const {
        return {Activations::kAuto, Activations::kF32, Activations::kBF16, Activations::kInt8};
    }
    /// CPU features without which nothing of this format runs.
    virtual CpuFeatures minimum_capability() const { return {}; }

    /// The tensors that keep the matrix, or nullopt where the checkpoint has none of the names that
    /// this format would use for it. Throws kBadContent for wrong shapes, kUnsupported for types.
    virtual std::optional<StoredMatrix> describe(const MatrixSource& source,
                                                 const TensorLookup& tensors) const = 0;

    /// The matrix as this format would store it in `encoding`, for weights that are in no file;
    /// nothing: as imagined_matrix() does.
    virtual std::optional<StoredMatrix> imagine(const MatrixSource&, const Encoding&) const {
        return std::nullopt;
    }

    /// A method of the format's own for the layer, or null: the generic one.
    virtual std::unique_ptr<LinearMethod> linear_method(const LinearDescriptor&,
                                                        std::string_view /*prefix*/) const {
        return nullptr;
    }
    virtual std::unique_ptr<FusedMoeMethod> moe_method(const FusedMoeQuantConfig&,
                                                       std::string_view /*prefix*/) const {
        return nullptr;
    }
};

/// config.imagine(), or what it leaves to imagined_matrix().
StoredMatrix imagine(const QuantizationConfig& config, const MatrixSource& source,
                     const Encoding& encoding);

/// A matrix as a format's own tool might store it, and what it stands for: for `conclave conform`.
struct StoredSample {
    struct Tensor {
        std::string name;
        TensorHeader header;
        std::vector<std::byte> bytes;
    };
    Json config;  ///< a quantization_config
    std::vector<Tensor> tensors;
    MatrixSource source;
    std::vector<float> weights;  ///< [source.n, source.k], by the format's definition
};

/// A format that the engine knows: its name, and how to make it from a checkpoint's
/// quantization_config object.
struct QuantizationFormat {
    std::string name;
    std::vector<std::string> config_files;  ///< besides config.json, e.g. "quantize_config.json"
    std::function<std::unique_ptr<QuantizationConfig>(const Json& config, const std::string& file)>
        from_config;
    /// What describe() may return, one of each kind of codes and zeros; for the support table.
    std::vector<Encoding> encodings = {};
    /// Whether a config that names another method, or none, is this format's all the same. May be
    /// null; must bear any JSON object.
    std::function<bool(const Json& config)> claims = nullptr;
    /// Adds to the config what one of config_files says besides; `config` may be empty. Null: such
    /// a file is read only where config.json says nothing, and is all of the config then.
    std::function<Json(Json config, const Json& sidecar, const std::string& file)> complete =
        nullptr;
    /// A random matrix of about n x k (at least; as little more as the format needs), a function of
    /// its arguments alone, its weights made without the codec. Null: conformance is tested with
    /// checkpoints only.
    std::function<StoredSample(int64_t n, int64_t k, uint64_t seed)> sample = nullptr;
};

/// Where a checkpoint says how it is quantized.
struct QuantizationSource {
    std::string method = "none";  ///< the format that serves it: quant_method, or who claims it
    std::string stated = "none";  ///< quant_method
    Json config = Json::object();
    std::string file;  ///< config.json, or one that a format keeps beside it
};

/// A file beside config.json.
struct Sidecar {
    Json content;      ///< an object
    std::string path;  ///< for messages
};
/// Nothing where there is no file of that name. Throws kBadContent for one that is no object.
using ReadSidecar = std::function<std::optional<Sidecar>(const std::string& name)>;

/// The formats of an engine, in order of registration; an ordinary object.
class QuantizationRegistry {
  public:
    static QuantizationRegistry built_in();
    /// Throws kUsage when the name is taken.
    void add(QuantizationFormat format);
    const QuantizationFormat* find(std::string_view name) const;
    std::vector<std::string> names() const;
    /// Which format serves a checkpoint, and with what config. `model_config`: config.json's
    /// object. The format may be one that is not registered.
    QuantizationSource source(const Json& model_config, const std::string& config_file,
                              const ReadSidecar& read) const;

  private:
    QuantizationSource stated_source(const Json& model_config, const std::string& config_file,
                                     const ReadSidecar& read) const;

    std::vector<QuantizationFormat> formats_;
};

/// Weights as numbers: bf16, f16, f32 tensors named STEM.weight.
std::unique_ptr<QuantizationConfig> unquantized_config();

/// describe() of the unquantized format; what every format falls back to for layers it leaves
/// alone.
StoredMatrix plain_matrix(const MatrixSource& source, CodeType code);
std::optional<StoredMatrix> describe_plain(const MatrixSource& source, const TensorLookup& tensors);

}  // namespace conclave::quant
