// The "quantization args" of compressed-tensors: how weights, or the inputs of a product, become
// codes and scales.
#pragma once
#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace conclave::quant {

enum class CtStrategy : uint8_t {
    kTensor,
    kChannel,
    kGroup,
    kBlock,
    kTensorGroup,  ///< groups, their scales over one of the whole tensor
    kToken,
    kHead,
};
enum class CtDynamic : uint8_t { kNo, kYes, kLocal };

struct CtArgs {
    bool is_float = false;
    int bits = 8;
    bool symmetric = true;
    CtStrategy strategy = CtStrategy::kTensor;
    int64_t rows = 1;     ///< that share a scale; 0: all
    int64_t columns = 0;  ///< that share a scale; 0: a whole row
    CtDynamic dynamic = CtDynamic::kNo;
    bool powers = false;  ///< scales are powers of two: MXFP4, MXFP8

    bool per_tensor() const { return rows == 0; }
};

/// Throws kBadContent for what are no such args.
CtArgs parse_ct_args(const nlohmann::json& args, const std::string& file);

/// Why weights (inputs) so quantized are not served; empty: they are.
std::string ct_weights_refusal(const CtArgs& weights);
std::string ct_inputs_refusal(const CtArgs& inputs);

/// The config group that a preset ("W4A16", "FP8_DYNAMIC") stands for, null where the name is
/// unknown. `old`: written before 0.18.
nlohmann::json ct_preset(const std::string& name, bool old);

}  // namespace conclave::quant
