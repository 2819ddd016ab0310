// From stored tensors to codes: how a checkpoint format keeps one logical matrix.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/encoding.h"
#include "quant/kernel.h"
#include "runtime/base/error.h"
#include "runtime/base/interval.h"

namespace conclave::quant {

/// Type and shape of a stored tensor, as its file states them.
struct TensorHeader {
    std::string dtype;  ///< "BF16", "I32" ...
    std::vector<int64_t> shape;
};

/// The tensors of a checkpoint, by name.
class TensorLookup {
  public:
    virtual ~TensorLookup() = default;
    virtual std::optional<TensorHeader> header(const std::string& name) const = 0;
    /// All of a small tensor (group indices, shapes). Throws kBadContent where it is absent or has
    /// more than `max_bytes`.
    virtual std::vector<std::byte> read(const std::string& name, uint64_t max_bytes) const = 0;
    /// What a file's own description says under `key` (safetensors: __metadata__).
    virtual std::optional<std::string> metadata(const std::string& /*key*/) const {
        return std::nullopt;
    }
    /// False where only shapes and names matter, as for matrices of other ranks: formats then need
    /// not read the values of small tensors (see read_scalar).
    virtual bool values() const { return true; }
};

/// Where the model says that a logical matrix lies; how it is stored there is the format's matter.
struct MatrixSource {
    std::string stem;        ///< "model.layers.0.self_attn.q_proj"; formats append ".weight" ...
    bool bare = false;       ///< the tensor is named by the stem itself (3-D expert parameters)
    int64_t n = 0, k = 0;    ///< logical size of the part: y = x W^T, W [n, k]
    int64_t stored_n = 0;    ///< rows of the stored matrix: n, or more where parts are fused
    int64_t row_offset = 0;  ///< row of the stored matrix at which the part begins
    int64_t lead = -1;       ///< index along the first axis of a 3-D tensor; -1: 2-D
    int64_t lead_count = 0;  ///< length of that axis

    /// Rows `part` of the logical matrix in the stored tensor seen as 2-D, leading axes folded into
    /// rows.
    Interval stored_rows(Interval part) const {
        const int64_t first = (lead > 0 ? lead : 0) * stored_n + row_offset;
        return {first + part.begin, first + part.end};
    }
    int64_t leads() const { return lead_count > 1 ? lead_count : 1; }
    /// Rows of that tensor.
    int64_t all_rows() const { return leads() * stored_n; }
};

enum class PieceRole : uint8_t { kCodes, kScales, kZeros };

/// One stored tensor that a matrix is made of.
struct StoredPiece {
    PieceRole role = PieceRole::kCodes;
    std::string tensor;
    int element_bytes = 0;       ///< of one block
    int64_t rows = 0, cols = 0;  ///< the tensor seen as 2-D: leading axes folded into rows
    /// A registered ShardIndexer (sharding/shard_indexer.h); empty: identity, each row `cols` whole
    /// elements.
    std::string indexer = {};
    /// Elements that share element_bytes, counted over the flattened rows x cols; other than 1 only
    /// with an indexer. The tensor has at least ceil(rows * cols / block) * element_bytes bytes.
    int64_t block = 1;
};

class Codec;

struct StoredMatrix {
    MatrixSource source;
    Encoding encoding;
    std::shared_ptr<const Codec> codec;
    std::vector<StoredPiece> pieces;
    GlobalScale global = {};  ///< always there where encoding.scale is kE4M3
    /// One per column of the whole matrix: see MatrixLayout.
    std::shared_ptr<const std::vector<float>> column_scale = {};
    /// How the format quantizes the matrix's input; nothing: it does not. Whether there is a
    /// dynamic rule whose group may span ranks, and its group, depends on headers and config only,
    /// as matrices of other ranks are described without values.
    std::optional<ActivationRule> activation = {};
    /// Act-order: the group of each of the k columns. Null: as encoding.group says.
    std::shared_ptr<const std::vector<int32_t>> group_of;
    /// Tensors that belong to the matrix and are not loaded: shapes, group indices, zeros that a
    /// symmetric format does not need.
    std::vector<std::string> companions;
};

/// The groups of columns `k` of a matrix; null unless its codes are scaled.
std::shared_ptr<const Grouping> local_grouping(const StoredMatrix& matrix, Interval k);

/// Elements of a stored piece seen as 2-D.
struct StoredRect {
    Interval rows, cols;
};

/// Where one row of an indexed rectangle lies in what was read.
struct RowPlace {
    int64_t at = 0;     ///< first byte of the block that holds the row's first column
    int64_t phase = 0;  ///< elements of that block before this column
};

/// A StoredRect in memory: row rect.rows.begin + r begins at data + r * row_bytes; of a piece with
/// an indexer, where `places` says, and row_bytes is 0.
struct StagedRect {
    StoredRect rect;
    const std::byte* data = nullptr;
    int64_t row_bytes = 0;
    std::span<const RowPlace> places = {};  ///< one a row, as the indexer gave them

    /// Row `row` of the piece, one of rect.rows.
    const std::byte* row(int64_t row) const {
        const int64_t r = row - rect.rows.begin;
        return data + (places.empty() ? r * row_bytes : places[static_cast<size_t>(r)].at);
    }
    int64_t phase(int64_t row) const {
        return places.empty() ? 0 : places[static_cast<size_t>(row - rect.rows.begin)].phase;
    }
};

/// Decodes rectangles of a logical matrix. Stateless; any thread.
class Codec {
  public:
    virtual ~Codec() = default;
    virtual const char* name() const = 0;
    /// What of piece `piece` the rectangle n x k of the logical matrix needs.
    virtual StoredRect needs(const StoredMatrix& matrix, size_t piece, Interval n,
                             Interval k) const = 0;
    /// Bytes for a rectangle of a piece that is in no file (--load-format dummy): random weights
    /// that keep activations near unit variance, a function of tensor name and place alone. Only
    /// for formats that imagine() matrices of this codec.
    virtual void generate(const StoredMatrix& matrix, size_t /*piece*/, const StoredRect& /*rect*/,
                          std::byte* /*out*/) const {
        throw Error(ErrorCode::kUnsupported,
                    std::string("codec ") + name() + " makes no weights up")
            .tensor(matrix.source.stem);
    }
    /// Logical rows that should be read together, because stored rows hold a column of each: fewer
    /// would read short pieces of every stored row.
    virtual int64_t rows_per_read(const StoredMatrix&) const { return 1; }
    virtual size_t scratch_bytes(const StoredMatrix& matrix, Interval n, Interval k) const = 0;
    /// `staged[i]` holds the columns that needs(i, n, k) asks for, and at least its rows. The tile
    /// may point into it or into scratch, which is 64-byte aligned.
    virtual CodeTile decode(const StoredMatrix& matrix, Interval n, Interval k,
                            std::span<const StagedRect> staged, std::byte* scratch) const = 0;
};

/// Weights stored as the numbers themselves, [n, k] row-major: nothing to decode.
std::shared_ptr<const Codec> plain_codec();

}  // namespace conclave::quant
