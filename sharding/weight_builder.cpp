#include "sharding/weight_builder.h"

#include <algorithm>
#include <map>

#include <spdlog/fmt/fmt.h>

#include "sharding/foreign.h"
#include "sharding/kernel_linear_method.h"

namespace conclave::sharding {
namespace {

class Headers final : public quant::TensorLookup {
  public:
    Headers(const Checkpoint& checkpoint, bool values) : checkpoint_(checkpoint), values_(values) {}
    bool values() const override { return values_; }
    std::optional<quant::TensorHeader> header(const std::string& name) const override {
        const StoredTensor* t = checkpoint_.find(name);
        if (!t) return std::nullopt;
        return quant::TensorHeader{stored_type_name(t->type), t->shape};
    }
    std::vector<std::byte> read(const std::string& name, uint64_t max_bytes) const override {
        const StoredTensor* t = checkpoint_.find(name);
        if (!t) throw Error(ErrorCode::kBadContent, "tensor is missing").tensor(name);
        if (t->bytes > max_bytes)
            throw Error(ErrorCode::kBadContent, "tensor is too large")
                .tensor(name)
                .expected(fmt::format("at most {} bytes", max_bytes))
                .found(t->describe());
        std::vector<std::byte> bytes(t->bytes);
        checkpoint_.read(t->file, t->offset, bytes);
        return bytes;
    }
    std::optional<std::string> metadata(const std::string& key) const override {
        return checkpoint_.metadata(key);
    }

  private:
    const Checkpoint& checkpoint_;
    const bool values_;
};

/// '*' stands for any run of characters.
bool matches(std::string_view glob, std::string_view name) {
    const size_t star = glob.find('*');
    if (star == std::string_view::npos) return glob == name;
    if (name.substr(0, star) != glob.substr(0, star)) return false;
    glob.remove_prefix(star + 1);
    for (name.remove_prefix(star);; name.remove_prefix(1)) {
        if (matches(glob, name)) return true;
        if (name.empty()) return false;
    }
}

quant::MatrixSource source(std::string stem, int64_t n, int64_t k) {
    quant::MatrixSource s;
    s.stem = std::move(stem);
    s.n = s.stored_n = n;
    s.k = k;
    return s;
}

quant::MatrixSource fused_rows(std::string stem, int64_t n, int64_t k, int64_t stored_n,
                               int64_t row_offset) {
    quant::MatrixSource s = source(std::move(stem), n, k);
    s.stored_n = stored_n;
    s.row_offset = row_offset;
    return s;
}

/// Expert `e` of a 3-D parameter [experts, stored_n, k].
quant::MatrixSource stack(std::string stem, int64_t n, int64_t k, int64_t stored_n,
                          int64_t row_offset, int64_t e, int64_t experts) {
    quant::MatrixSource s = fused_rows(std::move(stem), n, k, stored_n, row_offset);
    s.bare = true;
    s.lead = e;
    s.lead_count = experts;
    return s;
}

}  // namespace

WeightBuilder::WeightBuilder(const BuildContext& context, RankGrid grid)
    : context_(context), plan_(grid), generic_(std::make_shared<KernelLinearMethod>()) {
    items_.imagined = context.imagined.has_value();
    const CpuFeatures needed = context.format.minimum_capability();
    if (!((context.cpu & needed) == needed))
        throw Error(ErrorCode::kUnsupported,
                    std::string("this CPU cannot run ") + context.format.name() + " checkpoints")
            .expected(needed.to_string())
            .found(context.cpu.to_string());
}

quant::StoredMatrix WeightBuilder::resolve(const std::vector<quant::MatrixSource>& alternatives,
                                           bool quantizable, bool local) {
    if (context_.imagined) {
        // As in most quantized checkpoints, what is not in a layer, and routers, are not quantized.
        const quant::MatrixSource& first = alternatives.front();
        const bool plain = quant::is_scaled(context_.imagined->encoding.code) &&
                           (!quantizable || first.stem.find(".layers.") == std::string::npos);
        if (plain) return quant::imagine(context_.format, first, {quant::CodeType::kBF16});
        quant::StoredMatrix m = quant::imagine(context_.format, first, context_.imagined->encoding);
        m.activation = context_.imagined->activation;
        return m;
    }
    const Headers headers(context_.checkpoint, local);
    // The file of the first tensor whose name begins so.
    const auto file_of = [&](const std::string& stem) {
        const auto& tensors = context_.checkpoint.tensors();
        const auto at = std::lower_bound(
            tensors.begin(), tensors.end(), stem,
            [](const StoredTensor& t, const std::string& name) { return t.name < name; });
        const bool found = at != tensors.end() && at->name.starts_with(stem);
        return context_.checkpoint.files()[found ? at->file : 0].path;
    };
    for (const quant::MatrixSource& s : alternatives) {
        std::optional<quant::StoredMatrix> m;
        try {
            m = call_foreign([&] { return std::string("format ") + context_.format.name(); },
                             [&] { return context_.format.describe(s, headers); });
            if (m) check_matrix(context_.checkpoint, *m, s, context_.format.name());
        } catch (Error& e) {
            throw Error(e).file(file_of(s.bare ? s.stem : s.stem + "."));
        }
        if (!m) continue;
        for (const quant::StoredPiece& p : m->pieces) used_.insert(p.tensor);
        used_.insert(m->companions.begin(), m->companions.end());
        stems_.insert(s.stem);
        return *std::move(m);
    }
    const quant::MatrixSource& first = alternatives.front();
    throw Error(ErrorCode::kBadContent, "tensor is missing")
        .file(file_of(first.stem))
        .tensor(first.stem + ".weight")
        .expected(fmt::format("[{}, {}]", first.n, first.k))
        .found(alternatives.size() == 1 ? "no such tensor"
                                        : "neither it nor " + alternatives.back().stem);
}

WeightBuilder::Resolved WeightBuilder::resolve_linear(const std::vector<PartRequest>& parts,
                                                      bool follow_policy) {
    Resolved out;
    out.descriptor.deterministic = context_.deterministic;
    for (const PartRequest& p : parts) {
        out.logical.push_back(p.stored.front());
        const Interval rows = (*p.rows)[context_.rank], cols = (*p.cols)[context_.rank];
        out.stored.push_back(resolve(p.stored, follow_policy, !rows.empty() && !cols.empty()));
        const quant::MatrixSource& s = p.stored.front();
        plan_.add(
            {s.stem, s.n, s.k, p.rows, p.cols, p.replicated, std::max<int64_t>(s.lead_count, 0)});
        out.local.push_back({rows, cols});
        const quant::StoredMatrix& stored = out.stored.back();
        out.descriptor.parts.push_back(
            {p.name, rows.size(), layout_of(stored, cols),
             follow_policy ? quant::choose_activation_rule(
                                 stored.encoding, stored.activation ? &*stored.activation : nullptr,
                                 context_.activations, context_.deterministic)
                           : quant::kF32Input});
    }
    return out;
}

void WeightBuilder::record(const std::string& layer, const quant::LinearDescriptor& descriptor,
                           std::vector<quant::KernelChoice> choices, bool follows_policy) {
    for (size_t p = 0; p < choices.size(); ++p)
        kernels_.push_back({layer + (layer.empty() ? "" : ".") + descriptor.parts[p].name,
                            descriptor.parts[p].layout.encoding, descriptor.parts[p].rule,
                            std::move(choices[p]), follows_policy});
}

std::shared_ptr<const quant::Grouping> WeightBuilder::grouping(const quant::StoredMatrix& matrix,
                                                               Interval cols) {
    auto made = quant::local_grouping(matrix, cols);
    if (!made) return nullptr;
    // Almost all matrices share a few groupings: the first ones are kept and looked up.
    constexpr size_t kKept = 16;
    for (const auto& known : groupings_)
        if (*known == *made) return known;
    if (groupings_.size() < kKept) groupings_.push_back(made);
    return made;
}

quant::MatrixLayout WeightBuilder::layout_of(const quant::StoredMatrix& matrix, Interval cols) {
    quant::MatrixLayout layout{cols.size(), matrix.encoding, grouping(matrix, cols), matrix.global};
    if (matrix.column_scale) {
        const auto first = matrix.column_scale->begin() + cols.begin;
        auto mine = std::make_shared<const std::vector<float>>(first, first + cols.size());
        // gate and up have the same: one form of the input then serves both.
        const bool same = column_scale_ && *column_scale_ == *mine;
        layout.column_scale = column_scale_ = same ? column_scale_ : std::move(mine);
    }
    return layout;
}

void WeightBuilder::note_items(const Resolved& resolved,
                               const std::vector<quant::PackedMatrix>& packed) {
    for (size_t p = 0; p < packed.size(); ++p) {
        const auto& [rows, cols] = resolved.local[p];
        if (!rows.empty() && !cols.empty())
            items_.matrices.push_back(
                {resolved.logical[p], resolved.stored[p], rows, cols, &packed[p]});
    }
}

void WeightBuilder::make(const std::string& layer, const std::vector<PartRequest>& parts,
                         bool follow_policy, std::unique_ptr<quant::LinearWeights>& weights,
                         std::shared_ptr<const quant::LinearMethod>& method) {
    const Resolved resolved = resolve_linear(parts, follow_policy);
    weights = std::make_unique<quant::LinearWeights>();
    weights->descriptor = resolved.descriptor;
    method = context_.format.linear_method(resolved.descriptor, layer);
    if (!method) method = generic_;
    std::vector<quant::KernelChoice> choices;
    method->create_weights(*weights,
                           {context_.kernels, context_.cpu, context_.memory, layer, &choices});
    record(layer, resolved.descriptor, std::move(choices), follow_policy);
    note_items(resolved, weights->parts);
}

ParallelLinear WeightBuilder::column_parallel(const std::string& stem, int64_t n, int64_t k) {
    ParallelLinear l;
    const size_t dot = stem.rfind('.');
    const std::string layer = dot == std::string::npos ? "" : stem.substr(0, dot);
    make(layer,
         {{stem.substr(dot == std::string::npos ? 0 : dot + 1),
           {source(stem, n, k)},
           plan_.over_ranks(n, kRowGranule),
           plan_.whole(k)}},
         true, l.weights_, l.method_);
    return l;
}

ParallelLinear WeightBuilder::merged_column_parallel(const std::string& prefix,
                                                     const std::vector<std::string>& names,
                                                     const std::string& fused, int64_t n, int64_t k,
                                                     bool bias) {
    std::vector<PartRequest> parts;
    const int64_t total = n * static_cast<int64_t>(names.size());
    for (size_t i = 0; i < names.size(); ++i)
        parts.push_back(
            {names[i],
             {source(prefix + "." + names[i], n, k),
              fused_rows(prefix + "." + fused, n, k, total, n * static_cast<int64_t>(i))},
             plan_.over_ranks(n, kColumnGranule),
             plan_.whole(k)});
    ParallelLinear l;
    make(prefix, parts, true, l.weights_, l.method_);
    if (bias) add_biases(l, prefix, parts, fused);
    return l;
}

ParallelLinear WeightBuilder::qkv_parallel(const std::string& prefix, int64_t heads,
                                           int64_t kv_heads, int64_t d, int64_t k, bool bias) {
    const int64_t q_n = heads * d, kv_n = kv_heads * d, total = q_n + 2 * kv_n;
    const Cut q_cut = plan_.query_heads(heads, d), kv_cut = plan_.kv_heads(heads, kv_heads, d);
    const auto part = [&](const char* name, int64_t n, int64_t offset, const Cut& cut) {
        return PartRequest{name,
                           {source(prefix + "." + name, n, k),
                            fused_rows(prefix + ".qkv_proj", n, k, total, offset)},
                           cut,
                           plan_.whole(k),
                           n == kv_n};
    };
    const std::vector<PartRequest> parts = {part("q_proj", q_n, 0, q_cut),
                                            part("k_proj", kv_n, q_n, kv_cut),
                                            part("v_proj", kv_n, q_n + kv_n, kv_cut)};
    ParallelLinear l;
    make(prefix, parts, true, l.weights_, l.method_);
    if (bias) add_biases(l, prefix, parts, "qkv_proj");
    return l;
}

void WeightBuilder::add_biases(ParallelLinear& l, const std::string& prefix,
                               const std::vector<PartRequest>& parts, const std::string& fused) {
    l.weights_->descriptor.bias = true;
    int64_t total = 0, offset = 0;
    for (const PartRequest& p : parts) total += p.stored.front().n;
    for (const PartRequest& p : parts) {
        const int64_t n = p.stored.front().n;
        const Interval own = (*p.rows)[context_.rank];
        l.bias_.emplace_back(own.size());
        vector_into({{prefix + "." + p.name + ".bias", n, 0},
                     {prefix + "." + fused + ".bias", total, offset}},
                    own, l.bias_.back().data());
        offset += n;
    }
}

RowParallelLinear WeightBuilder::row_parallel(const std::string& stem, int64_t n, int64_t k,
                                              Cut input, bool bias) {
    RowParallelLinear l;
    l.n_ = n, l.k_ = k, l.deterministic_ = context_.deterministic;
    l.input_ = input;
    l.output_ = l.deterministic_ ? plan_.over_ranks(n, kRowGranule) : plan_.whole(n);
    const size_t dot = stem.rfind('.');
    make(stem.substr(0, dot),
         {{stem.substr(dot + 1),
           {source(stem, n, k)},
           l.output_,
           l.deterministic_ ? plan_.whole(k) : input}},
         true, l.weights_, l.method_);
    if (bias) {
        l.bias_.resize(n);
        vector_into({{stem + ".bias", n, 0}}, {0, n}, l.bias_.data());
    }
    return l;
}

ParallelLinear WeightBuilder::replicated(const std::vector<std::string>& stems, int64_t n,
                                         int64_t k) {
    ParallelLinear l;
    std::vector<quant::MatrixSource> stored;
    for (const std::string& stem : stems) stored.push_back(source(stem, n, k));
    const size_t dot = stems[0].rfind('.');
    make(stems[0].substr(0, dot),
         {{stems[0].substr(dot + 1), stored, plan_.whole(n), plan_.whole(k), true}}, false,
         l.weights_, l.method_);
    return l;
}

std::vector<ParallelLinear> WeightBuilder::stacked(const std::string& stem, int64_t count,
                                                   int64_t n, int64_t k) {
    std::vector<ParallelLinear> all(static_cast<size_t>(count));
    const size_t dot = stem.rfind('.');
    for (int64_t e = 0; e < count; ++e) {
        ParallelLinear& l = all[static_cast<size_t>(e)];
        make(stem.substr(0, dot),
             {{stem.substr(dot + 1),
               {stack(stem, n, k, n, 0, e, count)},
               plan_.over_ranks(n, kRowGranule),
               plan_.whole(k)}},
             true, l.weights_, l.method_);
    }
    return all;
}

VocabParallelEmbedding WeightBuilder::vocab_parallel_embedding(const std::string& stem,
                                                               int64_t vocab, int64_t width) {
    VocabParallelEmbedding e;
    e.cut_ = plan_.over_ranks(vocab, kRowGranule);
    e.width_ = width;
    const Resolved r = resolve_linear(
        {{"embed", {source(stem, vocab, width)}, e.cut_, plan_.whole(width)}}, false);
    e.rows_ = std::make_unique<quant::PackedMatrix>(
        reserve_matrix(row_storage(r.stored[0].encoding), r.local[0].first.size(),
                       r.descriptor.parts[0].layout, context_.memory));
    if (!r.local[0].first.empty())
        items_.matrices.push_back(
            {r.logical[0], r.stored[0], r.local[0].first, r.local[0].second, e.rows_.get()});
    return e;
}

ExpertShards WeightBuilder::experts(const ExpertSource& s,
                                    std::shared_ptr<const quant::FusedMoeMethod> generic) {
    const std::string fused13 = s.fused + ".gate_up_proj", fused2 = s.fused + ".down_proj";
    ExpertShards out;
    out.weights = std::make_unique<quant::FusedMoeWeights>();
    out.experts = (*plan_.experts(s.experts))[context_.rank];
    std::vector<Resolved> w13, w2;
    for (int64_t e = 0; e < s.experts; ++e) {
        const std::string one = fmt::format("{}.{}.", s.prefix, e);
        const Cut width = plan_.expert_split(e, s.experts, s.width, kColumnGranule);
        const Cut hidden = context_.deterministic
                               ? plan_.expert_split(e, s.experts, s.hidden, kRowGranule)
                               : plan_.expert_whole(e, s.experts, s.hidden);
        const Cut whole = plan_.expert_whole(e, s.experts, s.hidden);
        const auto part13 = [&](const std::string& name, int64_t offset) {
            return PartRequest{
                name,
                {source(one + name, s.width, s.hidden),
                 stack(fused13, s.width, s.hidden, 2 * s.width, offset, e, s.experts)},
                width,
                whole};
        };
        Resolved r13 = resolve_linear({part13(s.gate, 0), part13(s.up, s.width)}, true);
        Resolved r2 = resolve_linear(
            {{s.down,
              {source(one + s.down, s.hidden, s.width),
               stack(fused2, s.hidden, s.width, s.hidden, 0, e, s.experts)},
              hidden,
              context_.deterministic ? plan_.expert_whole(e, s.experts, s.width) : width}},
            true);
        if (e < out.experts.begin || e >= out.experts.end) continue;
        out.width = width;
        out.hidden = hidden;
        w13.push_back(std::move(r13));
        w2.push_back(std::move(r2));
    }
    for (size_t i = 0; i < w13.size(); ++i) {
        out.weights->w13.push_back({w13[i].descriptor, {}});
        out.weights->w2.push_back({w2[i].descriptor, {}});
    }
    if (!w13.empty())
        out.method = context_.format.moe_method({w13[0].descriptor, w2[0].descriptor}, s.prefix);
    if (!out.method) out.method = std::move(generic);
    std::vector<quant::KernelChoice> choices;
    out.method->create_weights(
        *out.weights, {context_.kernels, context_.cpu, context_.memory, s.prefix, &choices});
    size_t next = 0;
    for (size_t i = 0; i < w13.size(); ++i) {
        for (const Resolved* r : {&w13[i], &w2[i]}) {
            const size_t parts = r->descriptor.parts.size();
            if (next + parts <= choices.size())
                record(fmt::format("{}.{}", s.prefix, out.experts.begin + static_cast<int64_t>(i)),
                       r->descriptor,
                       {choices.begin() + static_cast<int64_t>(next),
                        choices.begin() + static_cast<int64_t>(next + parts)});
            next += parts;
        }
        note_items(w13[i], out.weights->w13[i].parts);
        note_items(w2[i], out.weights->w2[i].parts);
    }
    return out;
}

std::vector<float> WeightBuilder::vector(const std::string& tensor, int64_t n) {
    std::vector<float> v(n);
    vector_into({{tensor, n, 0}}, {0, n}, v.data());
    return v;
}

std::vector<float> WeightBuilder::matrix_of_biases(const std::string& tensor, int64_t rows,
                                                   int64_t n) {
    std::vector<float> v(rows * n);
    vector_into({{tensor, rows * n, 0, rows}}, {0, rows * n}, v.data());
    return v;
}

void WeightBuilder::vector_into(const std::vector<VectorSource>& alternatives, Interval elements,
                                float* out) {
    if (context_.imagined) {  // norms of one, biases of zero
        const bool bias = alternatives.front().tensor.ends_with(".bias");
        std::fill_n(out, elements.size(), bias ? 0.0f : 1.0f);
        return;
    }
    for (const VectorSource& s : alternatives) {
        const StoredTensor* t = context_.checkpoint.find(s.tensor);
        if (!t) continue;
        used_.insert(s.tensor);
        const std::string& file = context_.checkpoint.files()[t->file].path;
        std::vector<int64_t> shape = {s.length};
        if (s.rows > 0) shape = {s.rows, s.length / s.rows};
        if (t->shape != shape)
            throw Error(ErrorCode::kBadContent, "tensor has the wrong shape")
                .file(file)
                .tensor(s.tensor)
                .expected(fmt::format("[{}]", fmt::join(shape, ", ")))
                .found(t->describe());
        if (t->type != StoredType::kF32 && t->type != StoredType::kF16 &&
            t->type != StoredType::kBF16)
            throw Error(ErrorCode::kUnsupported, "tensor has a type that is not served")
                .file(file)
                .tensor(s.tensor)
                .expected("BF16, F16 or F32")
                .found(t->describe());
        items_.vectors.push_back({alternatives.front().tensor, alternatives.front().length,
                                  s.tensor, s.offset, elements, out, s.rows});
        return;
    }
    throw Error(ErrorCode::kBadContent, "tensor is missing")
        .file(context_.checkpoint.files()[0].path)
        .tensor(alternatives.front().tensor)
        .expected(fmt::format("[{}]", alternatives.front().length))
        .found("no such tensor");
}

bool WeightBuilder::zero_bias(const StoredTensor& t) const {
    constexpr uint64_t kLongest = 16 << 20;
    if (!t.name.ends_with(".bias") || t.bytes > kLongest) return false;
    if (!stems_.count(t.name.substr(0, t.name.size() - 5))) return false;
    std::vector<std::byte> bytes(t.bytes);
    context_.checkpoint.read(t.file, t.offset, bytes);
    return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

std::vector<IgnoredTensors> WeightBuilder::finish(const std::vector<std::string>& ignorable) const {
    std::vector<IgnoredTensors> ignored;
    for (const std::string& pattern : ignorable) ignored.push_back({pattern, 0, 0});
    IgnoredTensors zero_biases{"zero biases of matrices that have none", 0, 0};
    const StoredTensor* first = nullptr;
    int64_t unused = 0;
    for (const StoredTensor& t : context_.checkpoint.tensors()) {
        if (used_.count(t.name)) continue;
        if (zero_bias(t)) {
            ++zero_biases.count, zero_biases.bytes += t.bytes;
            continue;
        }
        const auto by = std::find_if(ignored.begin(), ignored.end(), [&](const IgnoredTensors& i) {
            return matches(i.pattern, t.name);
        });
        if (by != ignored.end()) {
            ++by->count, by->bytes += t.bytes;
        } else {
            if (!first) first = &t;
            ++unused;
        }
    }
    if (first)
        throw Error(ErrorCode::kBadContent,
                    unused == 1 ? "the checkpoint has a tensor that the model does not know"
                                : fmt::format("the checkpoint has {} tensors that the model does "
                                              "not know, the first of them",
                                              unused))
            .file(context_.checkpoint.files()[first->file].path)
            .tensor(first->name)
            .found(first->describe());
    ignored.push_back(zero_biases);
    std::erase_if(ignored, [](const IgnoredTensors& i) { return i.count == 0; });
    return ignored;
}

}  // namespace conclave::sharding
