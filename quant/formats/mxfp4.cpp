// mxfp4 as gpt-oss has it: 3-D expert parameters as STEM_blocks [E, N, K / 32, 16], of two codes a
// byte, and STEM_scales [E, N, K / 32]. All else is left as it is.
#include "quant/formats/float_formats.h"
#include "quant/formats/formats.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"

namespace conclave::quant {
namespace {

constexpr int64_t kGroup = 32;

class Mxfp4Config final : public QuantizationConfig {
  public:
    const char* name() const override { return "mxfp4"; }

    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        const std::string blocks = source.stem + "_blocks", scales = source.stem + "_scales";
        if (!source.bare || !tensors.header(blocks)) return describe_plain(source, tensors);
        if (source.k % kGroup != 0)
            throw Error(ErrorCode::kUnsupported, "rows are no whole blocks of mxfp4")
                .tensor(blocks)
                .expected("columns in multiples of 32")
                .found(std::to_string(source.k));
        std::vector<int64_t> shape = {source.stored_n, source.k / kGroup};
        if (source.lead >= 0) shape.insert(shape.begin(), source.lead_count);
        Encoding e = fp4_encoding(FactorType::kNone, kGroup);
        expect_scales(source, tensors, scales, ScaleKind::kE8M0, e);
        shape.push_back(kGroup / 2);
        expect_tensor(tensors, blocks, shape, "U8");
        return scaled_matrix(source, e, blocks, scales);
    }
};

}  // namespace

QuantizationFormat mxfp4_format() {
    return {"mxfp4",
            {},
            [](const Json&, const std::string&) { return std::make_unique<Mxfp4Config>(); },
            {fp4_encoding(FactorType::kE8M0, kGroup)}};
}

}  // namespace conclave::quant
