// Rows rounded together by the activation pass, whole or their columns cut over ranks.
#pragma once
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "quant/activation.h"
#include "runtime/base/workspace.h"
#include "tests/quant/grouped_matrix.h"

namespace conclave::quant::test {

/// Rows `picked` (all of x [rows, width] where null) as f32 kernels read them, cut after cut.
inline std::vector<float> prepare_batch(const ActivationRule& rule, const std::vector<float>& x,
                                        int64_t width, const std::vector<int64_t>& cuts,
                                        const std::vector<int32_t>* picked = nullptr) {
    const auto rows = static_cast<int64_t>(x.size()) / width;
    const auto count = picked ? static_cast<int64_t>(picked->size()) : rows;
    const int64_t per_row = statistics_per_row(rule, width);
    const VectorOps& ops = vector_ops(detect_cpu());
    std::vector<float> out(static_cast<size_t>(count * width), kPoison);
    std::vector<float> statistics(static_cast<size_t>(rows * per_row),
                                  -std::numeric_limits<float>::infinity());
    // First what all say of their columns, then, with that, what each makes of them.
    for (const bool last : {false, true})
        for (size_t i = 0; i + 1 < cuts.size(); ++i) {
            const Interval held{cuts[i], cuts[i + 1]};
            MatrixLayout layout;
            layout.k = held.size();
            layout.encoding.code = CodeType::kU8;
            layout.groups = std::make_shared<Grouping>(uniform_grouping(held, 0));
            SerialExecutor serial;
            Workspace workspace;
            PreparedInput input(x.data() + held.begin, width, rows, held.size(), ops, serial,
                                workspace);
            input.place({held, width});
            std::vector<float> own(static_cast<size_t>(per_row));
            for (int64_t r = 0; r < rows && !last; ++r) {
                input.statistics_of(rule, layout, r, own.data());
                for (int64_t s = 0; s < per_row; ++s) {
                    float& all = statistics[static_cast<size_t>(r * per_row + s)];
                    all = std::max(all, own[static_cast<size_t>(s)]);
                }
            }
            if (!last || held.empty()) continue;
            input.set_statistics(statistics.data(), per_row);
            std::vector<const void*> form;
            if (picked) {
                form = input.form(rule, XType::kF32, layout, *picked);
            } else {
                const void* const* all = input.form(rule, XType::kF32, layout);
                form.assign(all, all + rows);
            }
            for (int64_t r = 0; r < count; ++r)
                std::memcpy(&out[static_cast<size_t>(r * width + held.begin)],
                            form[static_cast<size_t>(r)],
                            static_cast<size_t>(held.size()) * sizeof(float));
        }
    return out;
}

}  // namespace conclave::quant::test
