// The codecs of GGUF: rows of blocks, and rows of plain numbers in an order of the file's own.
#pragma once
#include <cstdint>
#include <memory>

#include "quant/codec.h"
#include "quant/formats/gguf_blocks.h"

namespace conclave::quant {

/// The order of a tensor's rows in the file. Where architecture is llama, the rows of q and k are
/// permuted in each head of d rows: row 2i of the file is row i, row 2i + 1 is row i + d / 2.
struct RowOrder {
    int64_t head_dim = 0;  ///< d, even; 0: rows are in order

    int64_t file_row(int64_t row) const;
    /// The least interval of rows of the file that has all of `rows`.
    Interval file_rows(Interval rows) const;
};

/// `source` in one piece, rows of blocks of `type`, which must outlive it.
StoredMatrix block_matrix(const MatrixSource& source, const std::string& tensor,
                          const BlockType& type, RowOrder order);

/// The codec of plain_matrix() whose rows are in that order.
std::shared_ptr<const Codec> ordered_plain_codec(RowOrder order);

}  // namespace conclave::quant
