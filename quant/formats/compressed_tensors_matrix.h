// The matrices of a compressed-tensors checkpoint, told from their tensors and their scheme.
#pragma once
#include <optional>

#include "quant/codec.h"
#include "quant/formats/compressed_tensors_scheme.h"

namespace conclave::quant {

/// pack-quantized (STEM.weight_packed of int32) or int-quantized (STEM.weight of int8). `packing`
/// of words whose shape leaves it open.
StoredMatrix describe_ct_integers(const MatrixSource& source, const TensorLookup& tensors,
                                  const CtScheme& scheme, bool packed, bool old_packing);

/// float-quantized, mxfp8-quantized (STEM.weight of E4M3), nvfp4- and mxfp4-pack-quantized
/// (STEM.weight_packed of bytes).
StoredMatrix describe_ct_floats(const MatrixSource& source, const TensorLookup& tensors,
                                const CtScheme& scheme, bool packed);

/// What the scheme does to the matrix's input; nothing: no rule. Static scales are tensors beside
/// the weight, which an expert that calibration never reached may lack.
std::optional<ActivationRule> ct_activation(const MatrixSource& source, const TensorLookup& tensors,
                                            const CtScheme& scheme);

}  // namespace conclave::quant
