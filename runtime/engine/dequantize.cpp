#include "runtime/engine/dequantize.h"

#include <chrono>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>

#include "quant/dequantize.h"
#include "runtime/base/half.h"
#include "runtime/base/output_file.h"
#include "runtime/engine/model_setup.h"
#include "runtime/engine/rank_setup.h"
#include "runtime/exec/arenas.h"
#include "sharding/checkpoint/writer.h"
#include "sharding/weight_builder.h"
#include "sharding/weight_store.h"

namespace conclave::engine {
namespace {

namespace fs = std::filesystem;
using sharding::CheckpointWriter;

/// Writes decoded rows. A tile that is cut along K goes row by row; a matrix of a 3-D parameter is
/// transposed, [k, n], as models name such parameters.
class WritingSink final : public sharding::WeightSink {
  public:
    WritingSink(const CheckpointWriter& writer, bool bf16) : writer_(writer), bf16_(bf16) {}

    void put(const sharding::MatrixItem& item, const quant::PackedMatrix::Piece& piece,
             Interval rows, const quant::CodeTile& tile) override {
        if (item.logical.lead >= 0) return put_transposed(item, piece, rows, tile);
        const std::string name = item.logical.stem + ".weight";
        const int64_t k = item.logical.k, width = item.cols.size(),
                      first = item.rows.begin + piece.rows.begin + rows.begin;
        std::vector<float> values(static_cast<size_t>(width * (width == k ? tile.rows : 1)));
        const quant::RowDecoder rows_of(item.packed->layout);
        for (int64_t r = 0; r < tile.rows; ++r) {
            rows_of.decode(tile, r, values.data() + (width == k ? r * width : 0));
            if (width < k) write(name, (first + r) * k + item.cols.begin, values);
        }
        if (width == k) write(name, first * k, values);
    }

    void put(const sharding::VectorItem& item, std::span<const float> values) override {
        write(item.name, item.elements.begin, values);
    }

  private:
    void put_transposed(const sharding::MatrixItem& item, const quant::PackedMatrix::Piece& piece,
                        Interval rows, const quant::CodeTile& tile) const {
        const int64_t n = item.logical.n, k = item.logical.k, width = item.cols.size(),
                      first = item.rows.begin + piece.rows.begin + rows.begin;
        const quant::RowDecoder decoder(item.packed->layout);
        std::vector<float> row(static_cast<size_t>(width)),
            columns(static_cast<size_t>(width * tile.rows));
        for (int64_t r = 0; r < tile.rows; ++r) {
            decoder.decode(tile, r, row.data());
            for (int64_t c = 0; c < width; ++c) columns[c * tile.rows + r] = row[c];
        }
        for (int64_t c = 0; c < width; ++c)
            write(item.logical.stem, item.logical.lead * n * k + (item.cols.begin + c) * n + first,
                  std::span(columns).subspan(c * tile.rows, tile.rows));
    }

    void write(const std::string& tensor, int64_t first, std::span<const float> values) const {
        if (!bf16_) return writer_.write(tensor, first, std::as_bytes(values));
        std::vector<uint16_t> rounded(values.size());
        for (size_t i = 0; i < values.size(); ++i) rounded[i] = f32_to_bf16(values[i]);
        writer_.write(tensor, first, std::as_bytes(std::span(rounded)));
    }

    const CheckpointWriter& writer_;
    const bool bf16_;
};

/// Every tensor of the model, whichever rank holds it, under its plain name.
std::vector<sharding::OutputTensor> tensors_of(const sharding::WeightBuilder& builder) {
    std::map<std::string, std::vector<int64_t>> shapes;  // a tied head is declared twice
    for (const sharding::PartShard& p : builder.plan().parts())
        if (p.stacked > 0)
            shapes[p.name] = {p.stacked, p.k, p.n};
        else
            shapes[p.name + ".weight"] = {p.n, p.k};
    for (const sharding::VectorItem& v : builder.items().vectors)
        if (v.rows > 0)
            shapes[v.name] = {v.rows, v.length / v.rows};
        else
            shapes[v.name] = {v.length};
    std::vector<sharding::OutputTensor> tensors;
    for (auto& [name, shape] : shapes) tensors.push_back({name, shape});
    return tensors;
}

/// Makes the folder. Throws kUsage where it holds anything.
void prepare(const std::string& directory) {
    std::error_code failure;
    fs::create_directories(directory, failure);
    if (failure || !fs::is_directory(directory, failure))
        throw Error(ErrorCode::kResource, "cannot make the folder (" + failure.message() + ")")
            .file(directory);
    if (!fs::is_empty(directory, failure))
        throw Error(ErrorCode::kUsage, "the folder to write to is not empty").file(directory);
}

/// config.json without its quantization, and what lies beside it: tokenizer, generation defaults.
void write_companions(const ModelFiles& files, const std::string& directory, bool bf16) {
    static const std::set<std::string> kKept = {"generation_config.json",
                                                "tokenizer.json",
                                                "tokenizer_config.json",
                                                "tokenizer.model",
                                                "special_tokens_map.json",
                                                "added_tokens.json",
                                                "vocab.json",
                                                "merges.txt",
                                                "chat_template.jinja",
                                                "chat_template.json"};
    for (const std::string& name : kKept) {
        const std::string to = (fs::path(directory) / name).string();
        if (files.container) {
            if (files.has(name)) write_whole_file(to, *files.container->document(name));
            continue;
        }
        const fs::path from = fs::path(files.directory) / name;
        std::error_code failure;
        if (!fs::is_regular_file(from, failure)) continue;
        fs::copy_file(from, to, failure);
        if (failure)
            throw Error(ErrorCode::kResource, "cannot copy the file (" + failure.message() + ")")
                .file(from.string());
    }
    Json config = files.config;
    config.erase("quantization_config");
    config.erase("compression_config");
    const char* const type = bf16 ? "bfloat16" : "float32";
    config.erase("torch_dtype");
    config.erase("dtype");
    config["torch_dtype"] = type;
    // Last: without it, the folder is no model.
    write_whole_file((fs::path(directory) / "config.json").string(), config.dump(2) + "\n");
}

}  // namespace

DequantizeReport dequantize(const EngineOptions& options, const DequantizeOptions& to,
                            comm::Communicator& comm) {
    const auto begin = std::chrono::steady_clock::now();
    const auto seconds = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    comm.set_phase("opening the model");
    const Extensions& extensions = Extensions::of(options);
    expect_same_plugins(comm, extensions);
    ModelSetup model;
    comm::together(comm, [&] {
        if (to.dtype != "f32" && to.dtype != "bf16")
            throw Error(ErrorCode::kUsage, "--dtype is not a type")
                .expected("f32 or bf16")
                .found("'" + to.dtype + "'");
        EngineOptions plain = options;
        plain.activations = "f32";  // a kernel must exist, none will run
        model = set_up_model(plain, comm.size());
    });
    const bool bf16 = to.dtype == "bf16";
    const RankSetup setup = set_up_rank(comm, options);
    std::unique_ptr<exec::Arenas> executor;
    std::unique_ptr<sharding::WeightStore> memory;  // reserved, never mapped
    std::unique_ptr<sharding::WeightBuilder> builder;
    std::unique_ptr<Model> layers;
    std::unique_ptr<CheckpointWriter> writer;
    comm::together(comm, [&] {
        executor = std::make_unique<exec::Arenas>(setup.topology, setup.threads);
        memory = std::make_unique<sharding::WeightStore>(
            std::vector<double>(static_cast<size_t>(executor->nodes()), 1.0 / executor->nodes()));
        builder = std::make_unique<sharding::WeightBuilder>(
            sharding::BuildContext{*model.files.checkpoint, *model.format, extensions.kernels,
                                   setup.cpu, model.activations, options.deterministic, comm.rank(),
                                   *memory, model.dummy},
            model.layout.grid);
        layers = model.architecture->build(model.shape, *builder);
        builder->finish(model.architecture->ignorable);
        writer = std::make_unique<CheckpointWriter>(
            to.directory, tensors_of(*builder),
            bf16 ? sharding::StoredType::kBF16 : sharding::StoredType::kF32, to.max_file_bytes);
    });

    bool mine = false;  // the files exist because of this call
    DequantizeReport report;
    try {
        comm::together(comm, [&] {
            if (comm.rank() != 0) return;
            prepare(to.directory);
            mine = true;
            writer->create();
        });
        comm::together(comm, [&] {
            if (comm.rank() != 0) writer->open();
        });
        WritingSink sink(*writer, bf16);
        const auto progress = [&](uint64_t done, uint64_t total) {
            if (options.progress) options.progress({done, total, seconds(), done == total});
        };
        sharding::load_weights(*model.files.checkpoint, extensions.indexers, builder->items(), sink,
                               *executor, comm, progress);
        comm::together(comm, [&] { writer->close(); });
        comm::together(comm, [&] {
            if (comm.rank() == 0) write_companions(model.files, to.directory, bf16);
        });
    } catch (...) {
        if (mine) writer->discard();
        throw;
    }
    report.files = writer->files();
    report.tensors = writer->tensors();
    report.bytes = writer->bytes();
    report.seconds = seconds();
    return report;
}

}  // namespace conclave::engine
