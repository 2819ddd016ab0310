#include "quant/quantize_row.h"

#include "runtime/base/error.h"

namespace conclave::quant {

int64_t statistics_per_row(const ActivationRule& rule, int64_t width) {
    if (!rule.dynamic()) return 0;
    if (rule.scale_rule == ScaleRule::kMinMax) return 2;
    return rule.group > 0 ? ceil_div(width, rule.group) : 1;
}

void row_statistics(const ActivationRule&, const float*, const RowSpan&, const VectorOps&, float*) {
    CONCLAVE_CHECK(false);
}
void quantize_row(const ActivationRule&, const float*, const RowSpan&, const float*,
                  const VectorOps&, float*) {
    CONCLAVE_CHECK(false);
}
void quantize_int8_row(const ActivationRule&, const float*, const RowSpan&, const float*,
                       const Grouping&, const VectorOps&, std::byte*) {
    CONCLAVE_CHECK(false);
}

}  // namespace conclave::quant
