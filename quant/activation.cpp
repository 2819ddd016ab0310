#include "quant/activation.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "runtime/base/interval.h"

namespace conclave::quant {

bool PreparedInput::Key::same_as(const Key& other) const {
    if (rule != other.rule || type != other.type || column_scale != other.column_scale)
        return false;
    if (groups == other.groups) return true;
    if (!groups || !other.groups) return false;
    return type == XType::kI8Row ? *groups == *other.groups : groups->same_input(*other.groups);
}

PreparedInput::PreparedInput(const float* x, int64_t stride, int64_t rows, int64_t k,
                             const VectorOps& ops, Executor& executor, Workspace& workspace)
    : x_(x),
      stride_(stride),
      rows_(rows),
      k_(k),
      span_{{0, k}, k},
      ops_(ops),
      executor_(executor),
      workspace_(workspace) {}

PreparedInput::Key PreparedInput::key_of(const ActivationRule& rule, XType type,
                                         const MatrixLayout& layout) {
    const Grouping* g = layout.groups.get();
    const bool int8 = type == XType::kI8 || type == XType::kI8Row;
    return {rule, type, g && (int8 || !g->order.empty()) ? g : nullptr, layout.column_scale.get()};
}

const PreparedInput::Form* PreparedInput::find(const Key& key) const {
    for (const Form& f : forms_)
        if (f.key.same_as(key)) return &f;
    return nullptr;
}

const void* const* PreparedInput::form(const ActivationRule& rule, XType type,
                                       const MatrixLayout& layout) {
    const Key key = key_of(rule, type, layout);
    if (const Form* known = find(key)) return known->rows;
    const void** rows = workspace_.allocate<const void*>(rows_);
    const int64_t bytes = row_bytes(key);
    std::byte* data = workspace_.allocate<std::byte>(rows_ * bytes);
    for (int64_t r = 0; r < rows_; ++r)
        rows[r] = bytes > 0 ? static_cast<const void*>(data + r * bytes) : row(r);
    const uint32_t* outliers = batch_outliers(key, rows_, [](int64_t r) { return r; });
    if (bytes > 0)
        executor_.parallel_for(rows_,
                               [&](int64_t r) { write_row(key, r, outliers, data + r * bytes); });
    forms_.push_back({key, rows});
    return rows;
}

std::vector<const void*> PreparedInput::form(const ActivationRule& rule, XType type,
                                             const MatrixLayout& layout,
                                             std::span<const int32_t> rows) {
    std::vector<const void*> out(rows.size());
    const Key key = key_of(rule, type, layout);
    const bool own = (key.groups && !key.groups->order.empty()) || key.column_scale ||
                     rule.scale_rule == ScaleRule::kStatic || rule.scale != 0 ||
                     (rule.outlier > 0 && rule.batch);
    if (!own) {
        const void* const* all = form(rule, type, layout);
        for (size_t i = 0; i < rows.size(); ++i) out[i] = all[rows[i]];
        return out;
    }
    const int64_t bytes = row_bytes(key);
    std::byte* data = workspace_.allocate<std::byte>(static_cast<int64_t>(rows.size()) * bytes);
    for (size_t i = 0; i < rows.size(); ++i) out[i] = data + static_cast<int64_t>(i) * bytes;
    const auto row_at = [&](int64_t i) { return int64_t{rows[static_cast<size_t>(i)]}; };
    const auto count = static_cast<int64_t>(rows.size());
    const uint32_t* outliers = batch_outliers(key, count, row_at);
    executor_.parallel_for(
        count, [&](int64_t i) { write_row(key, row_at(i), outliers, data + i * bytes); });
    return out;
}

int64_t PreparedInput::row_bytes(const Key& key) const {
    if (key.type == XType::kI8) return int8_row_bytes(*key.groups);
    if (key.type == XType::kI8Row) return int8_whole_row_bytes(*key.groups);
    if (key.type == XType::kBF16) return round_up(k_ * 2, 64);
    const bool as_it_is = key.rule == kF32Input && !key.groups && !key.column_scale;
    return as_it_is ? 0 : round_up(k_ * 4, 64);
}

const float* PreparedInput::statistics(const ActivationRule& rule, const float* x, int64_t row,
                                       std::vector<float>& own) const {
    if (!rule.dynamic()) return nullptr;
    const float* shared = statistics_ ? statistics_ + row * statistics_per_row_ : nullptr;
    if (shared && shared[0] > -std::numeric_limits<float>::infinity()) return shared;
    own.resize(static_cast<size_t>(statistics_per_row(rule, span_.width)));
    row_statistics(rule, x, span_, ops_, own.data());
    return own.data();
}

void PreparedInput::statistics_of(const ActivationRule& rule, const MatrixLayout& layout, int64_t r,
                                  float* out) const {
    std::vector<float> scaled;
    row_statistics(rule, scaled_row(r, layout.column_scale.get(), scaled), span_, ops_, out);
}

const float* PreparedInput::scaled_row(int64_t r, const std::vector<float>* column_scale,
                                       std::vector<float>& scaled) const {
    const float* x = row(r);
    if (!column_scale) return x;
    scaled.assign(x, x + k_);
    for (size_t c = 0; c < scaled.size(); ++c) scaled[c] *= (*column_scale)[c];
    return scaled.data();
}

const uint32_t* PreparedInput::batch_outliers(const Key& key, int64_t count,
                                              FunctionRef<int64_t(int64_t)> row_at) {
    if (!(key.rule.outlier > 0) || !key.rule.batch || count < 2) return nullptr;
    constexpr int64_t kAtOnce = 512;
    uint32_t* columns = workspace_.allocate<uint32_t>(k_);
    executor_.parallel_for(ceil_div(k_, kAtOnce), [&](int64_t block) {
        const int64_t first = block * kAtOnce, n = std::min(kAtOnce, k_ - first);
        std::fill_n(columns + first, n, 0u);
        float scaled[kAtOnce];
        for (int64_t i = 0; i < count; ++i) {
            const float* x = row(row_at(i)) + first;
            if (key.column_scale) {
                for (int64_t c = 0; c < n; ++c)
                    scaled[c] = x[c] * (*key.column_scale)[static_cast<size_t>(first + c)];
                x = scaled;
            }
            mark_outliers(key.rule, x, n, columns + first);
        }
    });
    return columns;
}

void PreparedInput::write_row(const Key& key, int64_t r, const uint32_t* outliers,
                              std::byte* out) const {
    std::vector<float> scaled, own;
    const float* x = scaled_row(r, key.column_scale, scaled);
    if (key.type == XType::kI8) return write_int8(*key.groups, x, out);
    if (key.type == XType::kI8Row)
        return quantize_int8_row(key.rule, x, span_, statistics(key.rule, x, r, own), *key.groups,
                                 ops_, out);
    if (key.type == XType::kBF16) {
        CONCLAVE_CHECK(!key.groups);
        uint16_t* codes = reinterpret_cast<uint16_t*>(out);
        ops_.to_bf16(x, k_, codes);
        if (k_ % 2) codes[k_] = 0;
        return;
    }
    float* to = reinterpret_cast<float*>(out);
    if (!key.groups) return write_f32(key, x, r, outliers, to);
    std::vector<float> rounded(static_cast<size_t>(k_));
    write_f32(key, x, r, outliers, rounded.data());
    for (int64_t c = 0; c < k_; ++c)
        to[c] = rounded[static_cast<size_t>(key.groups->order[static_cast<size_t>(c)])];
}

void PreparedInput::write_f32(const Key& key, const float* x, int64_t row, const uint32_t* outliers,
                              float* out) const {
    std::vector<float> own;
    if (key.rule == kF32Input)
        std::memcpy(out, x, static_cast<size_t>(k_) * sizeof(float));
    else if (key.rule == kBF16Input)
        ops_.round_bf16(x, k_, out);
    else
        quantize_row(key.rule, x, span_, statistics(key.rule, x, row, own), ops_, out, outliers);
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
