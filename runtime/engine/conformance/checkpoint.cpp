#include "runtime/engine/conformance/checkpoint.h"

#include <algorithm>
#include <set>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "runtime/engine/conformance/random.h"
#include "sharding/weight_builder.h"
#include "sharding/weight_store.h"

namespace conclave::engine::conformance {
namespace {

constexpr size_t kMostMatrices = 60;

std::string kind_of(const sharding::MatrixItem& m) {
    std::string key =
        fmt::format("{} {} x {} of {} {}", m.stored.encoding.to_string(), m.stored.source.n,
                    m.stored.source.k, m.stored.source.stored_n, m.stored.source.lead >= 0);
    for (const quant::StoredPiece& p : m.stored.pieces)
        key += fmt::format(" {}x{}x{}/{} {}", p.rows, p.cols, p.element_bytes, p.block, p.indexer);
    return key;
}

std::shared_ptr<const Subject> subject_of_item(const sharding::MatrixItem& m,
                                               const ModelSetup& model,
                                               const Extensions& extensions) {
    auto s = std::make_shared<Subject>();
    const quant::MatrixSource& source = m.stored.source;
    s->name = source.stem;
    if (source.lead >= 0) s->name += fmt::format(" [{}]", source.lead);
    if (source.stored_n != source.n) s->name += fmt::format(" from row {} on", source.row_offset);
    s->name += fmt::format(" ({}, {} x {})", m.stored.encoding.to_string(), source.n, source.k);
    s->format = extensions.formats.find(model.files.quantization.method);
    s->config = model.files.quantization.config;
    s->source = source;
    s->matrix = m.stored;
    s->indexers = &extensions.indexers;
    std::vector<std::string> names;
    for (const quant::StoredPiece& p : m.stored.pieces) names.push_back(p.tensor);
    for (const std::string& name : m.stored.companions) names.push_back(name);
    s->tensors = std::make_shared<CheckpointTensors>(model.files.checkpoint, std::move(names));
    return s;
}

}  // namespace

CheckpointSubjects open_checkpoint(const std::string& directory,
                                   const std::shared_ptr<const Extensions>& extensions) {
    EngineOptions options;
    options.model = directory;
    options.activations = "f32";
    options.extensions = extensions;
    CheckpointSubjects out;
    out.model = set_up_model(options, 1);
    sharding::WeightStore store({1.0});  // reserved, never mapped
    sharding::WeightBuilder builder({*out.model.files.checkpoint,
                                     *out.model.format,
                                     extensions->kernels,
                                     cpu_from_environment(),
                                     quant::Activations::kF32,
                                     false,
                                     0,
                                     store,
                                     {}},
                                    {1, 1, 1});
    const auto layers = out.model.architecture->build(out.model.shape, builder);
    std::set<std::string> kinds;
    for (const bool quantized : {true, false})
        for (const sharding::MatrixItem& m : builder.items().matrices) {
            if (quant::is_scaled(m.stored.encoding.code) != quantized) continue;
            if (out.subjects.fixed.size() >= kMostMatrices) break;
            if (kinds.insert(kind_of(m)).second)
                out.subjects.fixed.push_back(subject_of_item(m, out.model, *extensions));
        }
    return out;
}

namespace {

Verdict reads(const sharding::Checkpoint& c, uint64_t seed) {
    if (c.tensors().empty()) throw Skip{};
    Random random(seed);
    const auto count = static_cast<int64_t>(c.tensors().size());
    const sharding::StoredTensor& t = c.tensors()[static_cast<size_t>(random.in(0, count - 1))];
    if (t.bytes == 0) throw Skip{};
    const auto bytes = static_cast<int64_t>(std::min<uint64_t>(t.bytes, 1 << 16));
    const auto at = static_cast<uint64_t>(random.in(0, static_cast<int64_t>(t.bytes) - bytes));
    GuardedBytes a(static_cast<size_t>(bytes), std::byte{0x5a}),
        b(static_cast<size_t>(bytes), std::byte{0xa5});
    c.read(t.file, t.offset + at, {a.data(), a.size()});
    // The same again, in two parts.
    const auto half = static_cast<size_t>(random.in(0, bytes));
    c.read(t.file, t.offset + at, {b.data(), half});
    c.read(t.file, t.offset + at + half, {b.data() + half, b.size() - half});
    for (const GuardedBytes* one : {&a, &b})
        if (const std::string beside = one->written_beside(); !beside.empty())
            return "read() " + beside;
    for (int64_t i = 0; i < bytes; ++i)
        if (a.data()[i] != b.data()[i])
            return fmt::format(
                "byte {} of tensor {} is {:#04x} when {} bytes are read at once, {:#04x} "
                "when read in parts of {} and {}",
                at + static_cast<uint64_t>(i), t.name, static_cast<int>(a.data()[i]), bytes,
                static_cast<int>(b.data()[i]), half, b.size() - half);
    return std::nullopt;
}

Verdict end(const sharding::Checkpoint& c, uint64_t) {
    for (size_t f = 0; f < c.files().size(); ++f)
        for (const uint64_t at : {c.files()[f].bytes, c.files()[f].bytes + 4096, UINT64_MAX - 7}) {
            std::byte one[8];
            try {
                c.read(static_cast<int>(f), at, one);
            } catch (const Error&) {
                continue;
            }
            return fmt::format("reading 8 bytes at {} of file {}, which has {}, is no error", at,
                               c.files()[f].path, c.files()[f].bytes);
        }
    return std::nullopt;
}

}  // namespace

const std::vector<ReaderLaw>& reader_laws() {
    static const std::vector<ReaderLaw> laws = {
        {"reader.states", nullptr}, {"reader.reads", reads}, {"reader.end", end}};
    return laws;
}

Outcome search_reader(const ReaderLaw& law, const sharding::CheckpointReaders& readers,
                      const std::string& reader, const std::string& directory, const Trial& trial) {
    std::shared_ptr<const sharding::Checkpoint> checkpoint;
    Search<uint64_t> s;
    s.law = law.name;
    s.make = [&](int64_t i) { return trial.seed + static_cast<uint64_t>(i); };
    s.check = [&](uint64_t seed) -> Verdict {
        try {
            if (!checkpoint) checkpoint = readers.open(directory, reader);
        } catch (const Error& e) {
            // Refusing a path is fair; stating what cannot be is not.
            if (!law.check && e.code() == ErrorCode::kInternal) return e.what();
            throw Skip{};
        }
        return law.check ? law.check(*checkpoint, seed) : std::nullopt;
    };
    s.text = [&](uint64_t) { return directory; };
    s.simpler = [](uint64_t) { return std::vector<uint64_t>{}; };
    return search(s, trial);
}

}  // namespace conclave::engine::conformance
