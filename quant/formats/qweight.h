// Matrices kept as STEM.qweight, .qzeros, .scales and sometimes .g_idx: GPTQ, AWQ, AutoRound.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "quant/formats/int_codec.h"
#include "quant/formats/module_rules.h"
#include "quant/quantization_config.h"

namespace conclave::quant {

enum class ZeroUse : uint8_t {
    kMiddle,   ///< 2^(bits - 1), whatever .qzeros holds
    kStored,   ///< .qzeros, which must be there
    kIfThere,  ///< .qzeros, or 2^(bits - 1) where there is none
};

/// How the tensors of one module are to be read.
struct QweightRule {
    IntStorage storage;
    ZeroUse zeros = ZeroUse::kMiddle;
};

/// A format of such matrices: tells where the tensors say whether a module is quantized, the config
/// only how.
class QweightConfig : public QuantizationConfig {
  public:
    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override;

  protected:
    QweightConfig(ModuleSettings base, ModuleRules rules)
        : base_(std::move(base)), rules_(std::move(rules)) {}
    virtual QweightRule rule(const ModuleSettings& settings) const = 0;
    const ModuleSettings& base() const { return base_; }

  private:
    ModuleSettings settings_of(const MatrixSource& source, const TensorLookup& tensors) const;
    StoredMatrix matrix(const MatrixSource& source, const ModuleSettings& settings,
                        FactorType scale, bool zeros) const;

    ModuleSettings base_;
    ModuleRules rules_;
};

/// 32-bit words of codes and zeros as GPTQ packs them.
IntStorage gptq_storage(int bits, Packing packing);
/// As AWQ packs them.
IntStorage awq_storage();

/// One of each kind, for QuantizationFormat::encodings.
std::vector<Encoding> qweight_encodings(const std::vector<int>& bits, bool act_order);

}  // namespace conclave::quant
