#include "quant/formats/qweight.h"

#include <algorithm>

#include "quant/formats/tensors.h"
#include "runtime/base/error.h"

namespace conclave::quant {
namespace {

/// Reads .g_idx. Null where the columns are of groups k / group anyway.
std::shared_ptr<const std::vector<int32_t>> read_group_index(const StoredMatrix& m,
                                                             const TensorLookup& tensors) {
    const std::string name = m.source.stem + ".g_idx";
    const auto stored = read_integers(tensors, name, m.source.k);
    if (!stored) return nullptr;
    const int64_t group = m.encoding.group, count = group_count(m.source.k, group);
    bool uniform = true;
    auto of = std::make_shared<std::vector<int32_t>>(stored->size());
    for (size_t c = 0; c < stored->size(); ++c) {
        const int64_t g = (*stored)[c];
        if (g < 0 || g >= count)
            throw Error(ErrorCode::kBadContent,
                        "column " + std::to_string(c) + " is of a group that is not there")
                .tensor(name)
                .expected("a group in [0, " + std::to_string(count) + ")")
                .found(std::to_string(g));
        (*of)[c] = static_cast<int32_t>(g);
        uniform = uniform && g == (group > 0 ? static_cast<int64_t>(c) / group : 0);
    }
    return uniform ? nullptr : of;
}

std::vector<int64_t> shape_of(const StoredPiece& p) { return {p.rows, p.cols}; }

std::string settings_text(const ModuleSettings& s) {
    return std::to_string(s.bits) + " bits, groups of " +
           (s.group > 0 ? std::to_string(s.group) : std::string("all")) + " columns" +
           (s.symmetric ? ", symmetric" : ", asymmetric");
}

}  // namespace

StoredMatrix QweightConfig::matrix(const MatrixSource& source, const ModuleSettings& settings,
                                   FactorType scale, bool zeros) const {
    Encoding e;
    e.bits = settings.bits;
    e.code = e.bits <= 4 ? CodeType::kU4 : CodeType::kU8;
    e.scale = scale;
    e.zero = zeros ? FactorType::kU8 : FactorType::kNone;
    e.zero_point = zeros ? 0 : 1 << (e.bits - 1);
    e.group = settings.group < source.k ? settings.group : 0;
    return int_matrix(source, e, rule(settings).storage, {".qweight", ".scales", ".qzeros"});
}

ModuleSettings QweightConfig::settings_of(const MatrixSource& source,
                                          const TensorLookup& tensors) const {
    std::vector<ModuleSettings> found = rules_.find(source.stem);
    const auto skips = [](const ModuleSettings& s) { return s.skip; };
    const auto header = tensors.header(source.stem + ".qweight");
    const auto fits = [&](const ModuleSettings& s) {
        const StoredMatrix m = matrix(source, s, FactorType::kF16, false);
        const auto scales = tensors.header(m.pieces[1].tensor);
        return header->shape == shape_of(m.pieces[0]) && scales &&
               scales->shape == shape_of(m.pieces[1]);
    };
    if (!found.empty() && std::all_of(found.begin(), found.end(), skips)) {
        // The tensors tell whether; where the config tells no how, its own settings have to fit.
        if (fits(base_)) return base_;
        throw Error(ErrorCode::kBadContent, "matrix is packed, but " + found[0].origin +
                                                " leaves it as floats, and it is not packed as "
                                                "other matrices are")
            .tensor(source.stem + ".qweight")
            .expected(settings_text(base_))
            .found(header->dtype + " " + shape_text(header->shape));
    }
    found.erase(std::remove_if(found.begin(), found.end(), skips), found.end());
    if (found.empty()) return base_;
    if (found.size() == 1) return found[0];
    std::vector<ModuleSettings> fitting;
    std::copy_if(found.begin(), found.end(), std::back_inserter(fitting), fits);
    if (fitting.size() == 1) return fitting[0];
    throw Error(ErrorCode::kBadContent, fitting.empty()
                                            ? "no rule for the matrix fits its shapes"
                                            : "rules for the matrix contradict each other")
        .tensor(source.stem + ".qweight")
        .expected(found[0].origin + ": " + settings_text(found[0]) + "; " + found[1].origin + ": " +
                  settings_text(found[1]))
        .found(header->dtype + " " + shape_text(header->shape));
}

std::optional<StoredMatrix> QweightConfig::describe(const MatrixSource& source,
                                                    const TensorLookup& tensors) const {
    const std::string codes = source.stem + ".qweight", scales = source.stem + ".scales",
                      zeros = source.stem + ".qzeros";
    if (source.bare || source.lead >= 0 || !tensors.header(codes))
        return describe_plain(source, tensors);
    const ModuleSettings settings = settings_of(source, tensors);
    const ZeroUse use = rule(settings).zeros;
    const auto stored_scales = tensors.header(scales);
    if (!stored_scales)
        throw Error(ErrorCode::kBadContent, "tensor is missing")
            .tensor(scales)
            .found("no such tensor beside .qweight");
    const bool asymmetric =
        use == ZeroUse::kStored || (use == ZeroUse::kIfThere && tensors.header(zeros));
    StoredMatrix m = matrix(source, settings, float_factor(scales, *stored_scales), asymmetric);
    expect_tensor(tensors, codes, shape_of(m.pieces[0]), "I32");
    expect_tensor(tensors, scales, shape_of(m.pieces[1]));
    if (asymmetric) expect_tensor(tensors, zeros, shape_of(m.pieces[2]), "I32");
    m.group_of = read_group_index(m, tensors);
    m.encoding.permuted = m.group_of != nullptr;
    add_companions(m, tensors, source.stem, {".g_idx"});
    if (!asymmetric) add_companions(m, tensors, source.stem, {".qzeros"});
    return m;
}

IntStorage gptq_storage(int bits, Packing packing) {
    IntStorage s;
    s.bits = bits;
    s.packing = packing;
    s.transposed = s.scales_transposed = true;
    return s;
}

IntStorage awq_storage() {
    IntStorage s = gptq_storage(4, Packing::kAwq);
    s.words_along_n = true;
    return s;
}

std::vector<Encoding> qweight_encodings(const std::vector<int>& bits, bool act_order) {
    std::vector<Encoding> out;
    for (const int b : bits)
        for (const FactorType zero : {FactorType::kNone, FactorType::kU8}) {
            Encoding e;
            e.code = b <= 4 ? CodeType::kU4 : CodeType::kU8;
            e.bits = b;
            e.scale = FactorType::kF16;
            e.zero = zero;
            e.zero_point = zero == FactorType::kNone ? 1 << (b - 1) : 0;
            e.group = 128;
            out.push_back(e);
            if (!act_order) continue;
            e.permuted = true;
            out.push_back(e);
        }
    return out;
}

}  // namespace conclave::quant
