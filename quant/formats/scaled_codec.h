// The codec of float codes with scales in a grid: bytes of E4M3, and pairs of 4-bit codes. FP8,
// MXFP8, MXFP4 and NVFP4 of every writer.
#pragma once
#include <cstdint>
#include <string>

#include "quant/codec.h"

namespace conclave::quant {

/// How codes of kE4M3 are stored: as they are, or with 6 bits, four codes in three bytes, the first
/// in the lowest bits; every number of these is one of E4M3. E3M2: bias 3, E2M3: bias 1; both have
/// subnormals and only finite numbers.
enum class CodeStorage : uint8_t { kWhole, kE3M2, kE2M3 };

/// The matrix in two pieces. Codes: rows of K bytes (kE4M3, kE4M3N), or of K / 2 bytes, of which
/// byte j holds columns 2j (low nibble) and 2j + 1 (kT4), or of K * 3 / 4 bytes (CodeStorage).
/// Scales of type encoding.scale, in a grid: encoding.group columns by encoding.group_rows rows
/// share one (0: all), the last of each axis may be short; rows of the grid begin anew with each
/// index of a leading axis.
StoredMatrix scaled_matrix(const MatrixSource& source, const Encoding& encoding,
                           const std::string& codes, const std::string& scales,
                           CodeStorage storage = CodeStorage::kWhole);

/// Sets the type of the scales and, in `encoding`, nothing else, from a tensor that must have the
/// grid's shape: [rows, groups]; also [rows] where there is one group, [] or [1] for one number,
/// ModelOpt's [rows, 1, groups, 1]; a leading axis first where the source has one. F32, F16, BF16,
/// F8_E4M3, F8_E8M0; U8 is E8M0. Throws as expect_tensor() does.
void expect_scale_grid(const MatrixSource& source, const TensorLookup& tensors,
                       const std::string& scales, Encoding& encoding);

/// A matrix of any such encoding whose tensors are in no file.
StoredMatrix imagined_scaled_matrix(const MatrixSource& source, const Encoding& encoding);

}  // namespace conclave::quant
