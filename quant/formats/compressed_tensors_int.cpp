// compressed-tensors, integer weights.
#include <algorithm>

#include "quant/formats/compressed_tensors_matrix.h"
#include "quant/formats/int_codec.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"

namespace conclave::quant {
namespace {

constexpr const char* kPacked = ".weight_packed";
constexpr const char* kBytes = ".weight";
constexpr const char* kScale = ".weight_scale";
constexpr const char* kZero = ".weight_zero_point";
constexpr const char* kOrder = ".weight_g_idx";

/// Where 32 is no multiple of the bits, versions differ, and so does the number of words unless
/// rows are short.
Packing packing_of(const MatrixSource& source, const TensorLookup& tensors, int bits, bool old) {
    const int64_t stream = packed_words(Packing::kStream, bits, source.k);
    const int64_t per_word = packed_words(Packing::kPerWord, bits, source.k);
    if (stream == per_word) return old ? Packing::kPerWord : Packing::kStream;
    const std::string name = source.stem + kPacked;
    const TensorHeader codes = *tensors.header(name);
    if (codes.shape == std::vector<int64_t>{source.stored_n, stream}) return Packing::kStream;
    if (codes.shape == std::vector<int64_t>{source.stored_n, per_word}) return Packing::kPerWord;
    throw Error(ErrorCode::kBadContent, "tensor has the wrong shape")
        .tensor(name)
        .expected(shape_text({source.stored_n, stream}) + " or " +
                  shape_text({source.stored_n, per_word}))
        .found(shape_text(codes.shape));
}

void check_stored_shape(const MatrixSource& source, const TensorLookup& tensors) {
    const std::string name = source.stem + ".weight_shape";
    const auto shape = read_integers(tensors, name, 2);
    if (shape && *shape != std::vector<int64_t>{source.stored_n, source.k})
        throw Error(ErrorCode::kBadContent, "tensor contradicts the model")
            .tensor(name)
            .expected(shape_text({source.stored_n, source.k}))
            .found(shape_text(*shape));
}

/// The shape of factors as stored: one a matrix as [1], one a row as [n, 1] or [n].
std::vector<int64_t> factor_shape(const MatrixSource& source, const TensorLookup& tensors,
                                  const std::string& name, bool per_tensor, int64_t groups) {
    const auto header = tensors.header(name);
    const size_t axes = header ? header->shape.size() : 2;
    if (per_tensor) return std::vector<int64_t>(std::min<size_t>(axes, 2), 1);
    if (groups == 1 && axes == 1) return {source.stored_n};
    return {source.stored_n, groups};
}

FactorType describe_scales(const MatrixSource& source, const TensorLookup& tensors,
                           const CtArgs& args, int64_t groups) {
    const std::string name = source.stem + kScale;
    return float_factor(
        name, expect_tensor(tensors, name,
                            factor_shape(source, tensors, name, args.per_tensor(), groups)));
}

void expect_zeros(const MatrixSource& source, const TensorLookup& tensors, const CtArgs& args,
                  const IntStorage& storage, int64_t groups) {
    const std::string name = source.stem + kZero;
    if (storage.bytes) {
        expect_tensor(tensors, name, factor_shape(source, tensors, name, args.per_tensor(), groups),
                      "I8");
        return;
    }
    if (args.per_tensor())
        throw Error(ErrorCode::kUnsupported, "packed codes with one zero point are not served")
            .tensor(name);
    expect_tensor(tensors, name,
                  {packed_words(storage.packing, storage.bits, source.stored_n), groups}, "I32");
}

/// The group of each column, where weight_g_idx says something of its own: a -1 stands for "not
/// set", and ascending runs of `width` columns are the plain grouping. ("actorder" of the
/// config is true of files without permuted columns as well.)
std::shared_ptr<const std::vector<int32_t>> columns_order(const MatrixSource& source,
                                                          const TensorLookup& tensors,
                                                          int64_t width, int64_t groups) {
    const std::string name = source.stem + kOrder;
    const auto stored = read_integers(tensors, name, source.k);
    if (!stored || std::find(stored->begin(), stored->end(), -1) != stored->end()) return nullptr;
    std::vector<int32_t> order;
    bool plain = true;
    for (size_t c = 0; c < stored->size(); ++c) {
        const int64_t group = (*stored)[c];
        if (group < 0 || group >= groups)
            throw Error(ErrorCode::kBadContent, "column belongs to a group that is not stored")
                .tensor(name)
                .expected("0 to " + std::to_string(groups - 1))
                .found(std::to_string(group));
        plain = plain && group == (width > 0 ? static_cast<int64_t>(c) / width : 0);
        order.push_back(static_cast<int32_t>(group));
    }
    if (plain) return nullptr;
    return std::make_shared<const std::vector<int32_t>>(std::move(order));
}

}  // namespace

StoredMatrix describe_ct_integers(const MatrixSource& source, const TensorLookup& tensors,
                                  const CtScheme& scheme, bool packed, bool old_packing) {
    const CtArgs& args = scheme.weights;
    const std::string codes = source.stem + (packed ? kPacked : kBytes);
    IntStorage storage;
    storage.bits = args.bits;
    storage.bytes = !packed;
    if (packed) {
        storage.packing = packing_of(source, tensors, args.bits, old_packing);
        check_stored_shape(source, tensors);
    }
    expect_tensor(
        tensors, codes,
        {source.stored_n, packed ? packed_words(storage.packing, args.bits, source.k) : source.k},
        packed ? "I32" : "I8");
    const int64_t groups = group_count(source.k, args.columns);
    Encoding e;
    e.code = args.bits <= 4 ? CodeType::kU4 : CodeType::kU8;
    e.bits = args.bits;
    e.group = groups > 1 ? args.columns : 0;
    e.group_rows = args.rows;
    e.scale = describe_scales(source, tensors, args, groups);
    if (args.symmetric) {
        e.zero_point = 1 << (args.bits - 1);
    } else {
        e.zero = FactorType::kU8;
        expect_zeros(source, tensors, args, storage, groups);
    }
    auto order = columns_order(source, tensors, args.columns, groups);
    e.permuted = order != nullptr;
    StoredMatrix m = int_matrix(source, e, storage, {packed ? kPacked : kBytes, kScale, kZero});
    m.group_of = std::move(order);
    return m;
}

}  // namespace conclave::quant
