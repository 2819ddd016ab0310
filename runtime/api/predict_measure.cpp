#include "runtime/api/predict_measure.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <thread>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/interval.h"
#include "runtime/comm/local_communicator.h"
#include "runtime/comm/modelled_communicator.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/model_setup.h"

namespace conclave {
namespace {

using engine::ModelSetup;

/// As `conclave bench` has it: contexts of 1 to 128 tokens.
constexpr int64_t kGenerate = 128;
constexpr int kWarmUpSteps = 3, kLeastSteps = 24;
/// A step must read so many times the last-level cache, or a slice would be faster than the whole.
constexpr double kCaches = 4;
constexpr int64_t kLeastLayers = 4;
constexpr double kCacheBytesDefault = 32 << 20;

double last_level_cache() {
    const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return bytes > 0 ? static_cast<double>(bytes) : kCacheBytesDefault;
}

void keep_layers(engine::ModelShape& shape, int64_t layers) {
    shape.layers = layers;
    shape.moe_layer.resize(static_cast<size_t>(layers));
    shape.window.resize(static_cast<size_t>(layers));
}

uint64_t slice_bytes(const ModelSetup& model, const EngineOptions& options, int64_t layers) {
    engine::ModelShape shape = model.shape;
    keep_layers(shape, layers);
    sharding::WeightStore store({1.0});
    sharding::WeightBuilder builder(
        {*model.files.checkpoint, *model.format, engine::Extensions::of(options).kernels,
         cpu_from_environment(), model.activations, options.deterministic, 0, store, model.dummy},
        model.layout.grid);
    const auto built = model.architecture->build(shape, builder);
    return store.reserved_bytes();
}

/// The first layers, so many that a step reads more than caches hold, but no more than fit.
int64_t choose_layers(const ModelSetup& model, const SliceCase& slice) {
    const engine::ModelShape& shape = model.shape;
    const std::vector<bool>& moe = shape.moe_layer;
    const auto first_of = [&](bool kind) {
        return std::find(moe.begin(), moe.end(), kind) - moe.begin();
    };
    int64_t least = 1;  // of both kinds, if the model has both
    for (const bool kind : {false, true})
        if (first_of(kind) < shape.layers) least = std::max<int64_t>(least, first_of(kind) + 1);
    const auto bytes_of = [&](int64_t layers) {
        return static_cast<double>(slice_bytes(model, slice.options, layers));
    };
    const double base = bytes_of(least);
    if (least == shape.layers) return least;
    const double each = bytes_of(least + 1) - base;
    const double budget = static_cast<double>(slice.memory_bytes) / slice.ranks_here;
    if (base > budget)
        throw Error(ErrorCode::kResource, "the memory to measure in does not hold one layer")
            .expected(
                fmt::format("{:.2f} GiB for each of {} ranks", base / (1 << 30), slice.ranks_here))
            .found(fmt::format("{:.2f} GiB in all",
                               static_cast<double>(slice.memory_bytes) / (1 << 30)));
    const int64_t fit = least + static_cast<int64_t>((budget - base) / std::max(each, 1.0));
    const double active =
        moe[static_cast<size_t>(least)]
            ? std::min(1.0, static_cast<double>(shape.experts_per_token * slice.batch) /
                                static_cast<double>(shape.experts))
            : 1.0;
    const int64_t wanted =
        static_cast<int64_t>(kCaches * last_level_cache() / std::max(each * active, 1.0)) + 1;
    return std::min({std::max({wanted, least, kLeastLayers}), fit, shape.layers});
}

/// Of layers with experts and of those without, in this order.
struct Kinds {
    std::vector<bool> moe;
    size_t measured = 0;

    double whole(const comm::StepTrace& trace) const {
        double seconds = trace.rest.seconds;
        for (const bool kind : {true, false}) {
            double sum = 0, count = 0;
            for (size_t i = 0; i < measured; ++i)
                if (moe[i] == kind) sum += trace.layers[i].seconds, ++count;
            if (count > 0)
                seconds +=
                    sum / count * static_cast<double>(std::count(moe.begin(), moe.end(), kind));
        }
        return seconds;
    }

    std::vector<comm::Collective> collectives(const comm::StepTrace& trace) const {
        std::vector<comm::Collective> all = trace.rest.collectives;
        for (size_t i = 0; i < moe.size(); ++i) {
            const size_t like =
                std::find(moe.begin(), moe.begin() + static_cast<long>(measured), moe[i]) -
                moe.begin();
            const auto& of = trace.layers[i < measured ? i : like].collectives;
            all.insert(all.end(), of.begin(), of.end());
        }
        return all;
    }
};

/// The middle four fifths: an interrupt, or a core that the host takes away, is no part of it.
double trimmed_mean(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    const size_t cut = v.size() / 10;
    return std::accumulate(v.begin() + static_cast<long>(cut), v.end() - static_cast<long>(cut),
                           0.0) /
           static_cast<double>(v.size() - 2 * cut);
}

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

void add_sequences(engine::Engine& engine, int64_t batch, std::mt19937& random) {
    for (int64_t b = 0; b < batch; ++b) {
        SequenceRequest r;
        r.prompt = {
            static_cast<int32_t>(random() % static_cast<uint64_t>(engine.limits().vocab_size))};
        r.max_tokens = engine.limits().max_model_len - 1;
        r.ignore_eos = true;
        engine.add(std::move(r));
    }
    engine.step();  // the prompts
}

/// Rank 0's part.
void time_steps(engine::Engine& engine, comm::StepTrace& trace, const Kinds& kinds,
                const SliceCase& slice, SliceMeasurement& out) {
    std::mt19937 random(1);
    std::vector<double> whole;
    double begin = seconds_now(), spent = 0;
    uint64_t bytes_before = 0;
    for (int step = -kWarmUpSteps; step < kLeastSteps || seconds_now() - begin < slice.seconds;
         ++step) {
        if (!engine.has_work()) add_sequences(engine, slice.batch, random);
        if (!engine.has_work()) continue;  // positions for one token only
        if (step == 0) begin = seconds_now();
        bytes_before = engine.stats().weight_bytes_read;
        trace.begin();
        const double at = seconds_now();
        engine.step();
        const double took = seconds_now() - at;
        trace.end();
        if (step < 0) continue;
        whole.push_back(kinds.whole(trace));
        spent += took;
        out.weight_bandwidth +=
            static_cast<double>(engine.stats().weight_bytes_read - bytes_before);
    }
    out.weight_bandwidth /= spent;
    out.step_seconds = trimmed_mean(std::move(whole));
    out.collectives = kinds.collectives(trace);
    out.weight_bytes = engine.stats().resident_weight_bytes;
    out.engine = engine.description();
}

comm::ModelledWorld world_of(const SliceCase& slice, const sharding::RankGrid& grid) {
    comm::ModelledWorld world;
    for (int r = 0; r < slice.ranks; ++r) {
        world.host_of.push_back(r / slice.ranks_per_host);
        world.color_of.push_back(grid.ep_index(r));
    }
    return world;
}

EngineOptions engine_options(const SliceCase& slice, const engine::ModelShape& shape) {
    EngineOptions o = slice.options;
    o.max_model_len = std::min(kGenerate + 1, shape.max_position_embeddings);
    o.max_num_seqs = std::max(o.max_num_seqs, slice.batch);
    o.max_num_batched_tokens = std::max(o.max_num_batched_tokens, slice.batch);
    // Whole blocks of 32 tokens for every sequence.
    o.kv_cache_tokens = slice.batch * (o.max_model_len + 32);
    o.progress = {};
    return o;
}

}  // namespace

SliceMeasurement measure_slice(const SliceCase& slice) {
    const ModelSetup model = engine::set_up_model(slice.options, slice.ranks);
    engine::expect_runnable(model);
    SliceMeasurement out;
    out.layout = model.layout.grid.to_string();
    out.layers = model.shape.layers;
    out.layers_measured = choose_layers(model, slice);
    const engine::AdjustSetup adjust = [&](ModelSetup& setup) {
        if (out.layers_measured == setup.shape.layers) return;
        keep_layers(setup.shape, out.layers_measured);
        setup.ignorable = {"*"};  // the other layers
    };
    const Kinds kinds{model.shape.moe_layer, static_cast<size_t>(out.layers_measured)};
    const comm::ModelledWorld world = world_of(slice, model.layout.grid);
    const EngineOptions options = engine_options(slice, model.shape);

    auto here = comm::make_local(slice.ranks_here, {0, slice.ranks_per_host});
    std::vector<std::exception_ptr> failures(here.size());
    std::vector<std::thread> followers;
    for (size_t r = 1; r < here.size(); ++r)
        followers.emplace_back([&, r, own = std::move(here[r])]() mutable {
            try {
                EngineOptions quiet = options;
                quiet.log = {};
                quiet.abort = {};
                engine::Engine(quiet, comm::make_modelled(world, std::move(own), nullptr), adjust)
                    .follow();
            } catch (...) {
                failures[r] = std::current_exception();
            }
        });
    try {
        comm::StepTrace trace;
        trace.layers.resize(static_cast<size_t>(out.layers_measured));
        engine::Engine engine(options, comm::make_modelled(world, std::move(here[0]), &trace),
                              adjust);
        time_steps(engine, trace, kinds, slice, out);
        engine.shutdown();
    } catch (...) {
        failures[0] = std::current_exception();
    }
    for (std::thread& t : followers) t.join();
    for (const std::exception_ptr& f : failures)
        if (f) std::rethrow_exception(f);
    return out;
}

}  // namespace conclave
