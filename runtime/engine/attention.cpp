#include "runtime/engine/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "sharding/collectives.h"

namespace conclave::engine {

using sharding::StepContext;

GroupedQueryAttention::GroupedQueryAttention(sharding::WeightBuilder& b, const std::string& prefix,
                                             const AttentionShape& shape)
    : shape_(shape),
      qkv_(b.qkv_parallel(prefix, shape.heads, shape.kv_heads, shape.head_dim, shape.hidden,
                          shape.qkv_bias)),
      o_(b.row_parallel(prefix + ".o_proj", shape.hidden, shape.heads * shape.head_dim,
                        b.plan().query_heads(shape.heads, shape.head_dim), shape.output_bias)),
      q_cut_(b.plan().query_heads(shape.heads, shape.head_dim)),
      k_cut_(b.plan().kv_heads(shape.heads, shape.kv_heads, shape.head_dim)) {
    const bool whole = shape.qk_norm == QkNorm::kFullWidth;
    if (shape.qk_norm != QkNorm::kNone) {
        q_norm_ = b.vector(prefix + ".q_norm.weight", shape.head_dim * (whole ? shape.heads : 1));
        k_norm_ =
            b.vector(prefix + ".k_norm.weight", shape.head_dim * (whole ? shape.kv_heads : 1));
    }
    const Interval q = (*q_cut_)[b.rank()], k = (*k_cut_)[b.rank()];
    heads_ = {q.begin / shape.head_dim, q.end / shape.head_dim};
    kv_heads_ = {k.begin / shape.head_dim, k.end / shape.head_dim};
}

KvSpec GroupedQueryAttention::kv_spec(quant::CodeType dtype) const {
    KvSpec spec;
    spec.streams = {{"k", kv_heads_.size(), shape_.head_dim},
                    {"v", kv_heads_.size(), shape_.head_dim}};
    spec.dtype = dtype;
    spec.window = shape_.window;
    return spec;
}

void GroupedQueryAttention::apply(StepContext& context, const StepBatch& batch,
                                  const RopeRows& rope, KvCache& cache, int64_t layer,
                                  const float* x, float* out) const {
    const Workspace::Scope scope(context.workspace);
    const int64_t rows = batch.rows(), d = shape_.head_dim;
    const int64_t q_width = heads_.size() * d, kv_width = kv_heads_.size() * d;
    float* q = context.workspace.allocate<float>(rows * q_width);
    float* k = context.workspace.allocate<float>(rows * kv_width);
    float* v = context.workspace.allocate<float>(rows * kv_width);
    float* heads = context.workspace.allocate<float>(rows * q_width);
    if (q_width > 0) {
        quant::PreparedInput input(x, shape_.hidden, rows, shape_.hidden, context.ops,
                                   context.executor, context.workspace);
        float* const parts[] = {q, k, v};
        qkv_.apply(context, input, parts);
    }
    if (shape_.qk_norm == QkNorm::kFullWidth) {
        normalize_whole(context, rows, q_cut_, q_norm_, q);
        normalize_whole(context, rows, k_cut_, k_norm_, k);
    }
    if (q_width > 0) {
        if (shape_.clip > 0) {
            const auto clip = [&](float* values, int64_t n) {
                for (int64_t i = 0; i < n; ++i)
                    values[i] = std::clamp(values[i], -shape_.clip, shape_.clip);
            };
            clip(q, rows * q_width);
            clip(k, rows * kv_width);
            clip(v, rows * kv_width);
        }
        rotate_and_store(context, batch, rope, cache, layer, q, k, v);
        attend(context, batch, cache, layer, q, heads);
    }
    o_.apply(context, heads, rows, out);
}

/// The mean of squares spans heads of all ranks: every rank gathers them, takes the norm of whole
/// rows and keeps its own. A KV head on two ranks counts once. Collective.
void GroupedQueryAttention::normalize_whole(StepContext& context, int64_t rows,
                                            const sharding::Cut& cut,
                                            const std::vector<float>& norm, float* own) const {
    const Workspace::Scope scope(context.workspace);
    const int64_t width = static_cast<int64_t>(norm.size());
    const Interval mine = (*cut)[context.comm.rank()];
    float* whole = context.workspace.allocate<float>(rows * width);
    sharding::gather_columns(context.comm, context, own, rows, *cut, width, whole);
    for (int64_t r = 0; r < rows; ++r) {
        context.ops.rms_norm(whole + r * width, norm.data(), shape_.eps, width, whole + r * width);
        std::copy_n(whole + r * width + mine.begin, mine.size(), own + r * mine.size());
    }
}

void GroupedQueryAttention::rotate_and_store(StepContext& context, const StepBatch& batch,
                                             const RopeRows& rope, KvCache& cache, int64_t layer,
                                             float* q, float* k, const float* v) const {
    const int64_t d = shape_.head_dim, q_heads = heads_.size(), kv_heads = kv_heads_.size();
    const quant::CodeType dtype = cache.spec(layer).dtype;
    const auto turn = [&](float* head, const std::vector<float>& norm, int64_t row) {
        if (shape_.qk_norm == QkNorm::kPerHead)
            context.ops.rms_norm(head, norm.data(), shape_.eps, d, head);
        context.ops.rope_half(head, rope.cos + row * rope.half, rope.sin + row * rope.half,
                              rope.half);
    };
    const auto store = [&](const float* head, int64_t stream, int64_t h, int32_t block, int64_t t) {
        std::byte* to = cache.at(layer, stream, h, block) + t * d * (quant::code_bits(dtype) / 8);
        switch (dtype) {
            case quant::CodeType::kF32:
                std::memcpy(to, head, static_cast<size_t>(d) * 4);
                break;
            case quant::CodeType::kF16:
                context.ops.to_f16(head, d, reinterpret_cast<uint16_t*>(to));
                break;
            case quant::CodeType::kBF16:
                context.ops.to_bf16(head, d, reinterpret_cast<uint16_t*>(to));
                break;
            default:  // parse_kv_dtype() knows no scaled codes
                break;
        }
    };
    std::vector<const BatchSequence*> owner(batch.rows());
    for (const BatchSequence& s : batch.sequences)
        std::fill_n(owner.begin() + s.first, s.tokens, &s);
    context.executor.parallel_for(batch.rows(), [&](int64_t row) {
        for (int64_t h = 0; h < q_heads; ++h) turn(q + (row * q_heads + h) * d, q_norm_, row);
        const int64_t position = batch.positions[row];
        const int32_t block = owner[row]->blocks[position / kBlockTokens];
        for (int64_t h = 0; h < kv_heads; ++h) {
            float* key = k + (row * kv_heads + h) * d;
            turn(key, k_norm_, row);
            store(key, 0, h, block, position % kBlockTokens);
            store(v + (row * kv_heads + h) * d, 1, h, block, position % kBlockTokens);
        }
    });
}

void GroupedQueryAttention::attend(StepContext& context, const StepBatch& batch, KvCache& cache,
                                   int64_t layer, const float* q, float* out) const {
    const int64_t d = shape_.head_dim, q_heads = heads_.size(), kv_heads = kv_heads_.size();
    const int64_t group = shape_.heads / shape_.kv_heads;
    // Per sequence and KV head, the addresses of its key and value blocks.
    struct Pages {
        const std::byte **k, **v;
    };
    std::vector<Pages> pages;
    std::vector<int64_t> sequence_of(batch.rows());
    for (size_t s = 0; s < batch.sequences.size(); ++s) {
        const BatchSequence& seq = batch.sequences[s];
        std::fill_n(sequence_of.begin() + seq.first, seq.tokens, static_cast<int64_t>(s));
        const int64_t blocks = static_cast<int64_t>(seq.blocks.size());
        for (int64_t h = 0; h < kv_heads; ++h) {
            Pages p{context.workspace.allocate<const std::byte*>(blocks),
                    context.workspace.allocate<const std::byte*>(blocks)};
            for (int64_t b = 0; b < blocks; ++b) {
                p.k[b] = cache.at(layer, 0, h, seq.blocks[b]);
                p.v[b] = cache.at(layer, 1, h, seq.blocks[b]);
            }
            pages.push_back(p);
        }
    }
    context.executor.parallel_for(batch.rows() * kv_heads, [&](int64_t i) {
        const int64_t row = i / kv_heads, h = i % kv_heads;
        // Query heads of this rank that read KV head h: whole groups, but for the rank's edges.
        const int64_t first = std::max(heads_.begin, (kv_heads_.begin + h) * group);
        const int64_t last = std::min(heads_.end, (kv_heads_.begin + h + 1) * group);
        std::vector<const float*> queries;
        std::vector<float*> outs;
        for (int64_t head = first; head < last; ++head) {
            queries.push_back(q + (row * q_heads + head - heads_.begin) * d);
            outs.push_back(out + (row * q_heads + head - heads_.begin) * d);
        }
        quant::AttentionCall call;
        call.q = queries.data();
        call.out = outs.data();
        call.heads = last - first;
        const Pages& p = pages[sequence_of[row] * kv_heads + h];
        call.k_blocks = p.k;
        call.v_blocks = p.v;
        call.k_stride = call.v_stride = call.d = call.dv = d;
        call.kv_type = cache.spec(layer).dtype;
        call.block_tokens = kBlockTokens;
        call.end = batch.positions[row] + 1;
        call.begin = shape_.window > 0 ? std::max<int64_t>(0, call.end - shape_.window) : 0;
        call.scale = 1.0f / std::sqrt(static_cast<float>(d));
        call.scratch = context.executor.scratch(quant::attention_scratch_bytes(call.heads, d, d));
        context.attention(call);
    });
}

}  // namespace conclave::engine
