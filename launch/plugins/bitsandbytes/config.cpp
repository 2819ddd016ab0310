#include <bitsandbytes/codec4.h>
#include <bitsandbytes/codec8.h>
#include <bitsandbytes/config.h>
#include <bitsandbytes/flat_indexer.h>
#include <bitsandbytes/quant_state.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

namespace bitsandbytes {

using namespace conclave;
using namespace conclave::quant;

namespace {

std::string weight_name(const MatrixSource& s) { return s.bare ? s.stem : s.stem + ".weight"; }

/// As the model sees the stored tensor.
std::vector<int64_t> shape_of(const MatrixSource& s) {
    if (s.lead >= 0) return {s.lead_count, s.stored_n, s.k};
    return {s.stored_n, s.k};
}

/// Elements of the stored tensor. Throws kBadContent where they are too many to count.
int64_t elements_of(const MatrixSource& s) {
    constexpr int64_t kMost = int64_t{1} << 48;
    if (s.k > 0 && s.all_rows() <= kMost / s.k) return s.all_rows() * s.k;
    throw Error(ErrorCode::kBadContent, "the matrix is too large")
        .tensor(weight_name(s))
        .found(shape_text(shape_of(s)));
}

template <size_t N>
std::array<float, N> read_table(const TensorLookup& tensors, const std::string& name) {
    std::array<float, N> table;
    const auto bytes = tensors.read(name, sizeof table);
    if (bytes.size() != sizeof table)
        throw Error(ErrorCode::kBadContent, "tensor has the wrong size").tensor(name);
    std::memcpy(table.data(), bytes.data(), sizeof table);
    for (size_t i = 0; i < N; ++i)
        if (!std::isfinite(table[i]))
            throw Error(ErrorCode::kBadContent, "a level is not a finite number")
                .tensor(name)
                .found(std::to_string(table[i]) + " at " + std::to_string(i));
    return table;
}

/// The weight's bytes may be viewed as a wider type (bnb_4bit_quant_storage).
void check_codes(const PluginHost& host, const TensorLookup& tensors, const std::string& name,
                 int64_t elements) {
    const auto header = tensors.header(name);
    int64_t width = 1;
    std::string dtype = "U8";
    for (const auto& [view, bytes] :
         {std::pair{"I8", 1}, {"F16", 2}, {"BF16", 2}, {"F32", 4}, {"F64", 8}})
        if (header && header->dtype == view) dtype = view, width = bytes;
    host.expect_tensor(tensors, name, {ceil_div(ceil_div(elements, 2), width), 1}, dtype);
}

/// The blocksize that explains an absmax of this length, for matrices of other ranks, whose state
/// is not read.
int64_t guess_blocksize(const std::string& absmax, const TensorHeader& header, int64_t elements) {
    if (header.shape.size() == 1)
        for (int64_t b = kLeastBlock; b <= kMostBlock; b *= 2)
            if (ceil_div(elements, b) == header.shape[0]) return b;
    throw Error(ErrorCode::kBadContent, "tensor has the wrong shape")
        .tensor(absmax)
        .expected(std::to_string(elements) + " elements in blocks of a power of two")
        .found(shape_text(header.shape));
}

StoredPiece flat_piece(const MatrixSource& s, PieceRole role, const std::string& tensor,
                       int element_bytes, int64_t block) {
    return {role, tensor, element_bytes, s.all_rows(), s.k, FlatIndexer::kName, block};
}

Encoding encoding_4bit(std::shared_ptr<const Codebook> levels, int64_t group) {
    Encoding e;
    e.code = CodeType::kT4, e.bits = 4, e.scale = FactorType::kF32;
    e.group = group, e.levels = std::move(levels);
    return e;
}

Encoding encoding_int8() {
    Encoding e;
    e.code = CodeType::kU8, e.bits = 8, e.scale = FactorType::kF32;
    e.zero_point = 128;
    return e;
}

}  // namespace

Config::Config(const PluginHost& host, const Json& config, const std::string& file) : host_(host) {
    const double usual = 6;
    threshold_ =
        static_cast<float>(host.get_double(config, "llm_int8_threshold", &usual, 0, 1e30, file));
}

std::optional<StoredMatrix> Config::describe(const MatrixSource& source,
                                             const TensorLookup& tensors) const {
    const std::string weight = weight_name(source), state = weight + ".quant_state.bitsandbytes__";
    for (const char* kind : {"nf4", "fp4"})
        if (tensors.header(state + kind)) return describe_4bit(source, tensors, kind);
    const auto header = tensors.header(weight);
    if (!header) return std::nullopt;
    if (header->dtype == "I8") return describe_int8(source, tensors);
    for (const char* suffix : {".absmax", ".quant_map"})
        if (tensors.header(weight + suffix))
            throw Error(ErrorCode::kBadContent, "the state of a quantized weight is missing")
                .tensor(weight)
                .expected(state + "nf4 or __fp4 beside " + weight + suffix)
                .found("no such tensor");
    return host_.describe_plain(source, tensors);
}

StoredMatrix Config::describe_4bit(const MatrixSource& source, const TensorLookup& tensors,
                                   const std::string& kind) const {
    const std::string weight = weight_name(source), absmax = weight + ".absmax";
    const std::string state = weight + ".quant_state.bitsandbytes__" + kind;
    const std::string map = weight + ".quant_map";
    const std::string outer = weight + ".nested_absmax", outer_map = weight + ".nested_quant_map";
    const int64_t elements = elements_of(source);
    check_codes(host_, tensors, weight, elements);
    host_.expect_tensor(tensors, map, {16}, "F32");
    const auto absmax_header = tensors.header(absmax);
    const bool nested = absmax_header && absmax_header->dtype == "U8";
    QuantState s;
    // The type tells what the state has to say; the shape is known after that.
    host_.expect_tensor(tensors, absmax,
                        absmax_header ? absmax_header->shape
                                      : std::vector<int64_t>{ceil_div(elements, s.blocksize)},
                        nested ? "U8" : "F32");
    if (tensors.values()) {
        const auto text = tensors.read(state, kMostStateBytes);
        s = parse_quant_state(host_, {reinterpret_cast<const char*>(text.data()), text.size()},
                              {state, kind, shape_of(source), nested});
    } else {
        s.blocksize = guess_blocksize(absmax, *absmax_header, elements);
    }
    const int64_t blocks = ceil_div(elements, s.blocksize);
    host_.expect_tensor(tensors, absmax, {blocks}, nested ? "U8" : "F32");

    StoredMatrix m;
    m.source = source;
    m.pieces = {flat_piece(source, PieceRole::kCodes, weight, 1, 2),
                flat_piece(source, PieceRole::kScales, absmax, nested ? 1 : 4, s.blocksize)};
    m.companions = {state, map};
    std::optional<Nested> inner;
    if (nested) {
        host_.expect_tensor(tensors, outer_map, {256}, "F32");
        if (tensors.values())
            host_.expect_tensor(tensors, outer, {ceil_div(blocks, s.nested_blocksize)}, "F32");
        inner.emplace();
        inner->shift = std::countr_zero(static_cast<uint64_t>(s.nested_blocksize));
        inner->offset = s.nested_offset;
        if (tensors.values()) inner->map = read_table<256>(tensors, outer_map);
        m.companions.push_back(outer_map);
        if (tensors.values())
            m.pieces.push_back(
                flat_piece(source, PieceRole::kScales, outer, 4, s.blocksize * s.nested_blocksize));
        else
            m.companions.push_back(outer);
    }
    const auto levels = tensors.values() ? read_table<16>(tensors, map) : standard_levels(kind);
    const int64_t run = std::gcd(source.k, s.blocksize);
    m.encoding = encoding_4bit(host_.codebook(kind, levels), run == source.k ? 0 : run);
    m.codec =
        std::make_shared<const Codec4>(std::countr_zero(static_cast<uint64_t>(s.blocksize)), inner);
    return m;
}

StoredMatrix Config::describe_int8(const MatrixSource& source, const TensorLookup& tensors) const {
    const std::string weight = weight_name(source);
    const std::string scales = source.stem + ".SCB", order = source.stem + ".weight_format";
    elements_of(source);
    host_.expect_tensor(tensors, weight, shape_of(source), "I8");
    std::vector<int64_t> rows = shape_of(source);
    rows.pop_back();
    host_.expect_tensor(tensors, scales, rows, "F32");

    StoredMatrix m;
    m.source = source;
    m.encoding = encoding_int8();
    m.codec = std::make_shared<const Codec8>();
    m.pieces = {{PieceRole::kCodes, weight, 1, source.all_rows(), source.k},
                {PieceRole::kScales, scales, 4, source.all_rows(), 1}};
    // (code * SCB) * f32(1 / 127)
    m.global.multiplier = 1.0f / 127, m.global.last = true;
    m.activation = ActivationRule{.code = ActivationCode::kInt8,
                                  .scale_rule = ScaleRule::kAmaxTimes,
                                  .top = 127,
                                  .outlier = threshold_,
                                  .batch = threshold_ > 0};
    if (const auto header = tensors.header(order)) {
        host_.expect_tensor(tensors, order, header->shape, "U8");
        m.companions.push_back(order);
        if (!tensors.values()) return m;
        const auto bytes = tensors.read(order, 1);
        if (bytes.size() != 1 || bytes[0] != std::byte{0})
            throw Error(ErrorCode::kUnsupported, "int8 weights in this order are not served")
                .tensor(order)
                .expected("0, rows")
                .found(bytes.empty() ? "nothing"
                                     : std::to_string(static_cast<int>(bytes[0])) +
                                           ", tiles of a GPU's kernels");
    }
    return m;
}

bool claims(const Json& config) {
    if (!config.is_object() || config.contains("quant_method")) return false;
    for (const char* key : {"load_in_4bit", "load_in_8bit", "_load_in_4bit", "_load_in_8bit"})
        if (const auto it = config.find(key); it != config.end() && it->is_boolean() && *it == true)
            return true;
    return false;
}

const std::array<float, 16>& standard_levels(const std::string& kind) {
    static constexpr std::array<float, 16> kNf4 = {-1,
                                                   -0.6961928009986877f,
                                                   -0.5250730514526367f,
                                                   -0.39491748809814453f,
                                                   -0.28444138169288635f,
                                                   -0.18477343022823334f,
                                                   -0.09105003625154495f,
                                                   0,
                                                   0.07958029955625534f,
                                                   0.16093020141124725f,
                                                   0.24611230194568634f,
                                                   0.33791524171829224f,
                                                   0.44070982933044434f,
                                                   0.5626170039176941f,
                                                   0.7229568362236023f,
                                                   1};
    static constexpr std::array<float, 16> kFp4 = {
        0, 0.0052083333f,  0.66666667f,  1,  0.33333333f,  0.5f,  0.16666667f,  0.25f,
        0, -0.0052083333f, -0.66666667f, -1, -0.33333333f, -0.5f, -0.16666667f, -0.25f};
    return kind == "nf4" ? kNf4 : kFp4;
}

std::vector<Encoding> encodings(const PluginHost& host) {
    return {encoding_4bit(host.codebook("nf4", standard_levels("nf4")), 64),
            encoding_4bit(host.codebook("fp4", standard_levels("fp4")), 64), encoding_int8()};
}

}  // namespace bitsandbytes
