// TorchAO, as it stores tensor subclasses in safetensors: a weight PREFIX.LEAF is the tensors
// PREFIX._LEAF_qdata, ..._scale and so on, and __metadata__ says under the weight's name which
// class they make up. That alone decides; the config only informs.
#include <algorithm>
#include <array>
#include <limits>

#include "quant/formats/float_formats.h"
#include "quant/formats/formats.h"
#include "quant/formats/int_codec.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"
#include "runtime/base/json.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

/// What __metadata__ says of one weight.
struct Subclass {
    std::string weight;  ///< "model.layers.0.self_attn.q_proj.weight"
    std::string stem;    ///< of its inner tensors: "model.layers.0.self_attn.q_proj._weight_"
    std::string where;   ///< for messages
    std::string type;    ///< "Int8Tensor"
    Json attributes = Json::object();
    std::vector<std::string> inner;  ///< "qdata", "scale" ...

    std::string tensor(const char* name) const { return stem + name; }
};

[[noreturn]] void unsupported(const Subclass& s, const std::string& what) {
    throw Error(ErrorCode::kUnsupported, "torchao: " + what + " is not served").tensor(s.weight);
}

/// An enum, a dtype or a class: {"_type": ..., "_data": ...}.
std::string data_text(const Json& object, const char* key, const Subclass& s) {
    const Json* value = find_json(object, key, s.where);
    return value ? get_string(*value, "_data", s.where) : "";
}

Subclass parse_subclass(const std::string& weight, const std::string& text) {
    Subclass s;
    s.weight = weight;
    s.where = "__metadata__ of " + printable(weight);
    const size_t dot = weight.rfind('.') + 1;  // 0 where there is none
    s.stem = weight.substr(0, dot) + "_" + weight.substr(dot) + "_";
    JsonLimits limits;
    limits.file = s.where;
    limits.max_bytes = 1 << 20;
    limits.max_depth = 16;
    const Json json = parse_json(text, limits);
    s.type = get_string(json, "_type", s.where);
    if (const Json* data = find_json(json, "_data", s.where)) {
        if (!data->is_object())
            throw Error(ErrorCode::kBadContent, "'_data' of a tensor is no object").file(s.where);
        s.attributes = *data;
    }
    if (!find_json(json, "_tensor_data_names", s.where)) return s;
    for (const Json& name : get_array(json, "_tensor_data_names", s.where)) {
        if (!name.is_string())
            throw Error(ErrorCode::kBadContent, "the name of an inner tensor is no string")
                .file(s.where)
                .found(describe_json(name));
        s.inner.push_back(name.get<std::string>());
    }
    return s;
}

/// The block of the matrix that shares a scale, as an encoding's group and group_rows.
void set_block(const MatrixSource& source, const Subclass& s, Encoding& e) {
    const Json& block = get_array(s.attributes, "block_size", s.where);
    if (block.size() != 2)
        throw Error(ErrorCode::kBadContent, "'block_size' is no pair").file(s.where);
    constexpr int64_t kMost = int64_t{1} << 40;
    const int64_t rows = as_int(block[0], "block_size", 1, kMost, s.where),
                  columns = as_int(block[1], "block_size", 1, kMost, s.where);
    if (source.k % columns != 0 || source.stored_n % rows != 0)
        throw Error(ErrorCode::kBadContent, "blocks do not cut the matrix evenly")
            .file(s.where)
            .expected("divisors of " + shape_text({source.stored_n, source.k}))
            .found(shape_text({rows, columns}));
    e.group = columns == source.k ? 0 : columns;
    e.group_rows = rows == source.stored_n && rows > 1 ? 0 : rows;
}

/// Scales or zeros of the encoding's grid; one number may be without axes.
TensorHeader expect_grid(const MatrixSource& source, const TensorLookup& tensors,
                         const std::string& name, const Encoding& e, const std::string& dtype) {
    const int64_t rows = e.group_rows > 0 ? source.stored_n / e.group_rows : 1;
    const int64_t groups = group_count(source.k, e.group);
    std::vector<int64_t> shape = {rows, groups};
    const auto header = tensors.header(name);
    if (header && groups == 1 && header->shape.size() == 1) shape = {rows};
    if (header && groups == 1 && rows == 1 && header->shape.empty()) shape = {};
    return expect_tensor(tensors, name, shape, dtype);
}

/// Inputs of which each row has a scale: granularity PerRow over the last axis, or PerTensor, which
/// is served so.
void expect_per_row(const Json& arguments, const Subclass& s) {
    const Json& granularity = get_object(arguments, "granularity", s.where);
    const std::string kind = get_string(granularity, "_type", s.where);
    if (kind == "PerTensor") return;
    const Json* data = find_json(granularity, "_data", s.where);
    const int64_t axis = data ? get_int_or(*data, "dim", -1, -64, 64, s.where) : -1;
    if (kind != "PerRow" || axis != -1)
        unsupported(
            s, "input quantization " + in_quotes(kind) + " along axis " + std::to_string(axis));
}

/// 'act_quant_kwargs', whose class must be `type`; null where inputs stay as they are.
const Json* input_arguments(const Subclass& s, const char* type) {
    const Json* arguments = find_json(s.attributes, "act_quant_kwargs", s.where);
    if (!arguments) return nullptr;
    const std::string found = get_string(*arguments, "_type", s.where);
    if (found != type) unsupported(s, "input quantization by " + in_quotes(found));
    return &get_object(*arguments, "_data", s.where);
}

ActivationRule row_fp8_input() {
    return {.code = ActivationCode::kE4M3, .scale_rule = ScaleRule::kAbsMax, .top = 448};
}

std::optional<ActivationRule> int8_input(const Subclass& s) {
    const Json* arguments = input_arguments(s, "QuantizeTensorToInt8Kwargs");
    if (!arguments) return std::nullopt;
    expect_per_row(*arguments, s);
    const std::string mapping = data_text(*arguments, "mapping_type", s);
    if (!mapping.empty() && mapping != "SYMMETRIC")
        unsupported(s, "input quantization with mapping " + in_quotes(mapping));
    if (get_bool_or(*arguments, "reduce_range", false, s.where))
        unsupported(s, "input quantization with 'reduce_range'");
    return ActivationRule{.code = ActivationCode::kInt8,
                          .scale_rule = ScaleRule::kAbsMax,
                          .top = 127.5f,
                          .least = std::numeric_limits<float>::epsilon(),
                          .reciprocal = true};
}

std::optional<ActivationRule> float8_input(const Subclass& s) {
    const Json* arguments = input_arguments(s, "QuantizeTensorToFloat8Kwargs");
    if (!arguments) return std::nullopt;
    expect_per_row(*arguments, s);
    const std::string dtype = data_text(*arguments, "float8_dtype", s);
    if (!dtype.empty() && dtype != "float8_e4m3fn")
        unsupported(s, "input quantization to " + in_quotes(dtype));
    for (const char* bound : {"hp_value_lb", "hp_value_ub"})
        if (find_json(*arguments, bound, s.where))
            unsupported(s, "input quantization with " + in_quotes(bound));
    return row_fp8_input();
}

/// Signed bytes, a code each, with integer zeros or none: Int8Tensor, IntxUnpackedToInt8Tensor.
StoredMatrix int_bytes(const MatrixSource& source, const TensorLookup& tensors, const Subclass& s,
                       int bits) {
    Encoding e;
    e.code = bits <= 4 ? CodeType::kU4 : CodeType::kU8;
    e.bits = bits;
    e.zero_point = 1 << (bits - 1);
    set_block(source, s, e);
    if (e.group_rows > 1) unsupported(s, "a scale for some of the rows");
    expect_tensor(tensors, s.tensor("qdata"), {source.stored_n, source.k}, "I8");
    e.scale =
        float_factor(s.tensor("scale"), expect_grid(source, tensors, s.tensor("scale"), e, ""));
    const std::string zero = s.tensor("zero_point");
    if (tensors.header(zero)) {
        const TensorHeader header = expect_grid(source, tensors, zero, e, "I8");
        // Symmetric weights are stored with zeros of 0. Those of other ranks need no reading.
        int64_t count = 1;
        for (const int64_t axis : header.shape) count *= axis;
        if (tensors.values()) {
            const auto zeros = *read_integers(tensors, zero, count);
            if (std::any_of(zeros.begin(), zeros.end(), [](int64_t z) { return z != 0; }))
                e.zero = FactorType::kU8, e.zero_point = 0;
        }
    }
    IntStorage storage;
    storage.bits = bits;
    storage.bytes = true;
    MatrixSource inner = source;
    inner.stem = s.stem;
    StoredMatrix m = int_matrix(inner, e, storage, {"qdata", "scale", "zero_point"});
    m.source = source;
    return m;
}

StoredMatrix int8_tensor(const MatrixSource& source, const TensorLookup& tensors,
                         const Subclass& s) {
    StoredMatrix m = int_bytes(source, tensors, s, 8);
    m.activation = int8_input(s);
    return m;
}

StoredMatrix intx_tensor(const MatrixSource& source, const TensorLookup& tensors,
                         const Subclass& s) {
    const std::string type = data_text(s.attributes, "target_dtype", s);
    if (type.size() != 4 || !type.starts_with("int") || type[3] < '1' || type[3] > '8')
        unsupported(s, "'target_dtype' " + in_quotes(type));
    if (const Json* inputs = find_json(s.attributes, "activation_quantization", s.where))
        unsupported(s, "'activation_quantization' " + describe_json(*inputs));
    return int_bytes(source, tensors, s, type[3] - '0');
}

StoredMatrix float8_tensor(const MatrixSource& source, const TensorLookup& tensors,
                           const Subclass& s) {
    Encoding e;
    e.code = CodeType::kE4M3;
    set_block(source, s, e);
    expect_tensor(tensors, s.tensor("qdata"), {source.stored_n, source.k}, "F8_E4M3");
    e.scale =
        float_factor(s.tensor("scale"), expect_grid(source, tensors, s.tensor("scale"), e, ""));
    StoredMatrix m = scaled_matrix(source, e, s.tensor("qdata"), s.tensor("scale"));
    m.activation = float8_input(s);
    return m;
}

/// Nibbles in two's complement, the lower one first; scale and float zero of each group, which is
/// added, as [groups, rows].
StoredMatrix int4_tensor(const MatrixSource& source, const TensorLookup& tensors,
                         const Subclass& s) {
    Encoding e;
    e.code = CodeType::kU4;
    e.bits = 4;
    e.zero_point = 8;
    e.zero_added = true;
    set_block(source, s, e);
    if (e.group_rows != 1) unsupported(s, "a scale for several rows");
    if (source.k % 8 != 0) unsupported(s, "a number of columns that is no multiple of 8");
    if (find_json(s.attributes, "shape", s.where)) {
        const Json& shape = get_array(s.attributes, "shape", s.where);
        if (shape != Json::array({source.stored_n, source.k}))
            throw Error(ErrorCode::kBadContent, "'shape' contradicts the model")
                .file(s.where)
                .expected(shape_text({source.stored_n, source.k}))
                .found(describe_json(shape));
    }
    expect_tensor(tensors, s.tensor("qdata"), {source.stored_n, source.k / 2}, "I8");
    const std::vector<int64_t> grid = {group_count(source.k, e.group), source.stored_n};
    const std::string scale = s.tensor("scale"), zero = s.tensor("zero_point");
    e.scale = float_factor(scale, expect_tensor(tensors, scale, grid));
    e.zero = float_factor(zero, expect_tensor(tensors, zero, grid));
    IntStorage storage;
    storage.bits = 4;
    storage.is_signed = true;
    storage.scales_transposed = true;
    MatrixSource inner = source;
    inner.stem = s.stem;
    StoredMatrix m = int_matrix(inner, e, storage, {"qdata", "scale", "zero_point"});
    m.source = source;
    const std::string inputs = data_text(s.attributes, "activation_dtype", s);
    if (inputs == "float8_e4m3fn")
        m.activation = row_fp8_input();
    else if (!inputs.empty() && inputs != "bfloat16")
        unsupported(s, "'activation_dtype' " + in_quotes(inputs));
    return m;
}

/// Columns of the input are multiplied before all else.
void set_column_scale(StoredMatrix& m, const TensorLookup& tensors, const Subclass& s) {
    const std::string name = s.tensor("act_pre_scale");
    if (!tensors.header(name)) return;
    const FactorType type = float_factor(name, expect_tensor(tensors, name, {m.source.k}));
    if (tensors.values())
        m.column_scale = std::make_shared<const std::vector<float>>(
            read_factors(tensors, name, type, m.source.k));
}

class TorchaoConfig final : public QuantizationConfig {
  public:
    const char* name() const override { return "torchao"; }

    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        const std::string weight = weight_name(source);
        const auto text = tensors.metadata(weight);
        if (!text) {
            refuse_unnamed(weight, tensors);
            return describe_plain(source, tensors);
        }
        const Subclass s = parse_subclass(weight, *text);
        if (s.type == "Tensor") return describe_plain(source, tensors);
        if (source.lead >= 0) unsupported(s, "a stack of matrices as " + in_quotes(s.type));
        StoredMatrix m = make(source, tensors, s);
        set_column_scale(m, tensors, s);
        add_inner(m, tensors, s);
        return m;
    }

  private:
    static StoredMatrix make(const MatrixSource& source, const TensorLookup& tensors,
                             const Subclass& s) {
        if (s.type == "Int8Tensor") return int8_tensor(source, tensors, s);
        if (s.type == "IntxUnpackedToInt8Tensor") return intx_tensor(source, tensors, s);
        if (s.type == "Float8Tensor") return float8_tensor(source, tensors, s);
        if (s.type == "Int4Tensor") return int4_tensor(source, tensors, s);
        unsupported(s, "a weight of class " + in_quotes(s.type));
    }

    /// Inner tensors without a word of what they are.
    static void refuse_unnamed(const std::string& weight, const TensorLookup& tensors) {
        const size_t dot = weight.rfind('.') + 1;
        const std::string codes = weight.substr(0, dot) + "_" + weight.substr(dot) + "_qdata";
        if (tensors.header(codes))
            throw Error(ErrorCode::kBadContent, "tensor is quantized, but nothing says how")
                .tensor(codes)
                .expected("__metadata__ of " + in_quotes(weight));
    }

    /// Every inner tensor must be one that was understood.
    static void add_inner(StoredMatrix& m, const TensorLookup& tensors, const Subclass& s) {
        constexpr std::array<const char*, 4> kKnown = {"qdata", "scale", "zero_point",
                                                       "act_pre_scale"};
        for (const std::string& name : s.inner)
            if (std::find(kKnown.begin(), kKnown.end(), name) == kKnown.end())
                unsupported(s, "the inner tensor " + in_quotes(name));
        for (const char* name : kKnown) {
            const std::string tensor = s.tensor(name);
            if (std::none_of(m.pieces.begin(), m.pieces.end(),
                             [&](const StoredPiece& p) { return p.tensor == tensor; }))
                add_companions(m, tensors, tensor, {""});
        }
    }
};

}  // namespace

QuantizationFormat torchao_format() {
    Encoding int8{.code = CodeType::kU8, .bits = 8, .scale = FactorType::kF32};
    int8.zero_point = 128;
    Encoding int4{.code = CodeType::kU4, .bits = 4, .scale = FactorType::kBF16};
    int4.zero = FactorType::kBF16, int4.zero_point = 8, int4.group = 128, int4.zero_added = true;
    const Encoding fp8{.code = CodeType::kE4M3, .scale = FactorType::kF32};
    return {"torchao",
            {},
            [](const Json&, const std::string&) { return std::make_unique<TorchaoConfig>(); },
            {int8, int4, fp8}};
}

}  // namespace conclave::quant
