#include "runtime/engine/step_message.h"

#include <cstring>
#include <type_traits>

#include "runtime/engine/kv_cache.h"

namespace conclave::engine {
namespace {

constexpr uint32_t kMagic = 0x31534e43;  // "CNS1"
/// Header and payload travel together when they fit; most decode steps do.
constexpr size_t kInline = 4096;

struct Header {
    uint32_t magic = kMagic, shutdown = 0;
    uint64_t step = 0, payload_bytes = 0;
    uint32_t entries = 0, tokens = 0, blocks = 0, candidates = 0;
};
static_assert(std::is_trivially_copyable_v<Header> && sizeof(Header) == 40);
static_assert(std::is_trivially_copyable_v<StepEntry> && sizeof(StepEntry) == 32);

size_t payload_bytes(uint64_t entries, uint64_t tokens, uint64_t blocks) {
    return entries * sizeof(StepEntry) + (tokens + blocks) * sizeof(int32_t);
}

std::vector<std::byte> encode(const StepMessage& m) {
    Header h;
    h.shutdown = m.shutdown;
    h.step = m.step;
    h.entries = static_cast<uint32_t>(m.entries.size());
    h.tokens = static_cast<uint32_t>(m.tokens.size());
    h.blocks = static_cast<uint32_t>(m.blocks.size());
    h.candidates = m.candidates;
    h.payload_bytes = payload_bytes(h.entries, h.tokens, h.blocks);
    std::vector<std::byte> out(std::max(kInline, sizeof h + h.payload_bytes));
    std::byte* at = out.data();
    const auto put = [&](const void* data, size_t bytes) {
        if (bytes) std::memcpy(at, data, bytes);
        at += bytes;
    };
    put(&h, sizeof h);
    put(m.entries.data(), m.entries.size() * sizeof(StepEntry));
    put(m.tokens.data(), m.tokens.size() * sizeof(int32_t));
    put(m.blocks.data(), m.blocks.size() * sizeof(int32_t));
    return out;
}

void require(bool ok, const char* what) {
    if (!ok) throw Error(ErrorCode::kInternal, std::string("step message is malformed: ") + what);
}

void validate(const Header& h, const StepLimits& l) {
    require(h.magic == kMagic, "magic");
    require(h.entries <= l.max_num_seqs, "sequences");
    require(h.tokens <= l.max_num_batched_tokens, "tokens");
    require(h.blocks <= l.blocks, "blocks");
    require(h.candidates <= l.vocab_size, "candidates");
    require(h.payload_bytes == payload_bytes(h.entries, h.tokens, h.blocks), "size");
}

void validate(const StepMessage& m, const StepLimits& l) {
    uint64_t tokens = 0, blocks = 0;
    for (const StepEntry& e : m.entries) {
        require(e.slot < l.max_num_seqs, "slot");
        require(e.logits <= LogitRows::kAll, "logit rows");
        require(e.tokens > 0 && e.start >= 0 && e.start + e.tokens <= l.max_model_len, "positions");
        tokens += e.tokens;
        blocks += e.new_blocks;
    }
    require(tokens == m.tokens.size() && blocks == m.blocks.size(), "counts");
    for (int32_t t : m.tokens) require(t >= 0 && t < l.vocab_size, "token id");
    for (int32_t b : m.blocks) require(b >= 0 && b < l.blocks, "block id");
}

}  // namespace

void exchange_step(comm::Communicator& comm, const StepLimits& limits, StepMessage& message) {
    std::vector<std::byte> wire(kInline);
    if (comm.rank() == 0) wire = encode(message);
    comm.broadcast(wire.data(), kInline, 0);
    Header h;
    std::memcpy(&h, wire.data(), sizeof h);
    validate(h, limits);
    const size_t bytes = sizeof h + h.payload_bytes;
    if (bytes > kInline) {
        wire.resize(bytes);
        comm.broadcast(wire.data() + kInline, bytes - kInline, 0);
    }
    if (comm.rank() == 0) return validate(message, limits);
    const std::byte* at = wire.data() + sizeof h;
    const auto get = [&](auto& v, size_t count) {
        v.resize(count);
        if (count) std::memcpy(v.data(), at, count * sizeof v[0]);
        at += count * sizeof v[0];
    };
    message.step = h.step;
    message.shutdown = h.shutdown != 0;
    message.candidates = h.candidates;
    get(message.entries, h.entries);
    get(message.tokens, h.tokens);
    get(message.blocks, h.blocks);
    validate(message, limits);
}

StepBatch StepTables::apply(const StepMessage& m) {
    StepBatch batch;
    batch.tokens = m.tokens;
    int64_t row = 0;
    size_t block = 0;
    for (const StepEntry& e : m.entries) {
        std::vector<int32_t>& table = tables_[e.slot];
        if (e.fresh) table.clear();
        table.insert(table.end(), m.blocks.begin() + static_cast<int64_t>(block),
                     m.blocks.begin() + static_cast<int64_t>(block + e.new_blocks));
        block += e.new_blocks;
        require(static_cast<int64_t>(table.size()) * kBlockTokens >= e.start + e.tokens,
                "too few blocks");
        batch.sequences.push_back({row, e.tokens, e.start, table});
        for (uint32_t i = 0; i < e.tokens; ++i, ++row) {
            batch.positions.push_back(e.start + i);
            if (e.logits == LogitRows::kAll || (e.logits == LogitRows::kLast && i + 1 == e.tokens))
                batch.logit_rows.push_back(static_cast<int32_t>(row));
        }
    }
    return batch;
}

}  // namespace conclave::engine
