#include "quant/activation.h"

#include <cstring>

#include "runtime/base/interval.h"

namespace conclave::quant {
namespace {

/// The part of a layout that the form of an input depends on; null: none.
const Grouping* input_groups(XType type, const MatrixLayout& layout) {
    const Grouping* g = layout.groups.get();
    return g && (type == XType::kI8 || !g->order.empty()) ? g : nullptr;
}

}  // namespace

PreparedInput::PreparedInput(const float* x, int64_t stride, int64_t rows, int64_t k,
                             const VectorOps& ops, Executor& executor, Workspace& workspace)
    : x_(x),
      stride_(stride),
      rows_(rows),
      k_(k),
      ops_(ops),
      executor_(executor),
      workspace_(workspace) {}

const void* const* PreparedInput::form(ActivationRule rule, XType type,
                                       const MatrixLayout& layout) {
    const Grouping* groups = input_groups(type, layout);
    for (const Form& f : forms_)
        if (f.rule == rule && f.type == type &&
            (f.groups == groups || (f.groups && groups && f.groups->same_input(*groups))))
            return f.rows;
    const void** rows = workspace_.allocate<const void*>(rows_);
    const int64_t bytes = row_bytes(rule, type, groups);
    std::byte* data = workspace_.allocate<std::byte>(rows_ * bytes);
    for (int64_t r = 0; r < rows_; ++r)
        rows[r] = bytes > 0 ? static_cast<const void*>(data + r * bytes) : x_ + r * stride_;
    if (bytes > 0)
        executor_.parallel_for(
            rows_, [&](int64_t r) { write_row(rule, type, groups, r, data + r * bytes); });
    forms_.push_back({rule, type, groups, rows});
    return rows;
}

std::vector<const void*> PreparedInput::form(ActivationRule rule, XType type,
                                             const MatrixLayout& layout,
                                             std::span<const int32_t> rows) {
    std::vector<const void*> out(rows.size());
    const Grouping* groups = input_groups(type, layout);
    if (!groups || groups->order.empty()) {
        const void* const* all = form(rule, type, layout);
        for (size_t i = 0; i < rows.size(); ++i) out[i] = all[rows[i]];
        return out;
    }
    const int64_t bytes = row_bytes(rule, type, groups);
    std::byte* data = workspace_.allocate<std::byte>(static_cast<int64_t>(rows.size()) * bytes);
    for (size_t i = 0; i < rows.size(); ++i) out[i] = data + static_cast<int64_t>(i) * bytes;
    executor_.parallel_for(static_cast<int64_t>(rows.size()), [&](int64_t i) {
        write_row(rule, type, groups, rows[static_cast<size_t>(i)], data + i * bytes);
    });
    return out;
}

int64_t PreparedInput::row_bytes(ActivationRule rule, XType type, const Grouping* groups) const {
    if (type == XType::kI8) return int8_row_bytes(*groups);
    if (type == XType::kBF16) return round_up(k_ * 2, 64);
    return rule == ActivationRule::kNone && !groups ? 0 : round_up(k_ * 4, 64);
}

void PreparedInput::write_row(ActivationRule rule, XType type, const Grouping* groups, int64_t row,
                              std::byte* out) const {
    const float* x = x_ + row * stride_;
    if (type == XType::kI8) return write_int8(*groups, x, out);
    if (type == XType::kBF16) {
        CONCLAVE_CHECK(!groups);
        uint16_t* codes = reinterpret_cast<uint16_t*>(out);
        ops_.to_bf16(x, k_, codes);
        if (k_ % 2) codes[k_] = 0;
        return;
    }
    float* to = reinterpret_cast<float*>(out);
    if (groups) {
        for (int64_t c = 0; c < k_; ++c) to[c] = x[groups->order[static_cast<size_t>(c)]];
        x = to;
    }
    if (rule == ActivationRule::kBF16) ops_.round_bf16(x, k_, to);
}

void PreparedInput::write_int8(const Grouping& groups, const float* x, std::byte* out) const {
    int8_t* codes = reinterpret_cast<int8_t*>(out);
    float* scales = reinterpret_cast<float*>(out + int8_scales_at(groups));
    float* sums = scales + groups.blocks.size();
    const int32_t* order = groups.order.empty() ? nullptr : groups.order.data();
    float gathered[kBlockColumns];
    int64_t column = 0;
    for (size_t b = 0; b < groups.blocks.size(); ++b) {
        const int64_t n = groups.blocks[b];
        const float* from = x + column;
        if (order) {
            for (int64_t i = 0; i < n; ++i) gathered[i] = x[order[column + i]];
            from = gathered;
        }
        ops_.to_int8(from, n, codes, &scales[b], &sums[b]);
        for (int64_t i = n; i < round_up(n, kRunGranule); ++i) codes[i] = 0;
        codes += round_up(n, kRunGranule);
        column += n;
    }
}

}  // namespace conclave::quant
