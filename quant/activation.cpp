#include "quant/activation.h"

#include "runtime/base/interval.h"

namespace conclave::quant {

PreparedInput::PreparedInput(const float* x, int64_t stride, int64_t rows, int64_t k,
                             const VectorOps& ops, Executor& executor, Workspace& workspace)
    : x_(x),
      stride_(stride),
      rows_(rows),
      k_(k),
      ops_(ops),
      executor_(executor),
      workspace_(workspace) {}

const void* const* PreparedInput::form(ActivationRule rule, XType type) {
    auto& slot = forms_[static_cast<int>(rule)][static_cast<int>(type)];
    if (!slot) slot = make(rule, type);
    return slot;
}

const void* const* PreparedInput::make(ActivationRule rule, XType type) {
    const void** pointers = workspace_.allocate<const void*>(rows_);
    if (rule == ActivationRule::kNone) {
        CONCLAVE_CHECK(type == XType::kF32);
        for (int64_t r = 0; r < rows_; ++r) pointers[r] = x_ + r * stride_;
        return pointers;
    }
    if (type == XType::kF32) {
        const int64_t row = round_up(k_, 16);
        float* data = workspace_.allocate<float>(rows_ * row);
        for (int64_t r = 0; r < rows_; ++r) pointers[r] = data + r * row;
        executor_.parallel_for(
            rows_, [&](int64_t r) { ops_.round_bf16(x_ + r * stride_, k_, data + r * row); });
        return pointers;
    }
    const int64_t row = round_up(k_, 32);
    uint16_t* data = workspace_.allocate<uint16_t>(rows_ * row);
    for (int64_t r = 0; r < rows_; ++r) pointers[r] = data + r * row;
    executor_.parallel_for(rows_, [&](int64_t r) {
        ops_.to_bf16(x_ + r * stride_, k_, data + r * row);
        if (k_ % 2) data[r * row + k_] = 0;
    });
    return pointers;
}

}  // namespace conclave::quant
