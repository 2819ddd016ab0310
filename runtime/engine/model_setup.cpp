#include "runtime/engine/model_setup.h"

#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/options.h"

namespace conclave::engine {

ModelSetup set_up_model(const EngineOptions& options, int ranks) {
    ModelSetup s;
    check_options(options, ranks);
    s.activations = parse_activations(options.activations);
    s.kv_dtype = parse_kv_dtype(options.kv_cache_dtype, s.activations);
    s.dummy = parse_dummy(options);
    const Extensions& extensions = Extensions::of(options);
    s.files = open_model_files(options.model, !s.dummy, extensions, options.load_format);
    s.architecture = &find_architecture(s.files.config, s.files.config_file);
    s.ignorable = s.architecture->ignorable;
    s.shape = s.architecture->shape(s.files.config, s.files.config_file);
    s.format = choose_format(s.files, extensions.formats, options.quantization);
    const auto served = s.format->supported_activations();
    if (std::find(served.begin(), served.end(), s.activations) == served.end())
        throw Error(ErrorCode::kUnsupported,
                    std::string("--activations ") + quant::activations_name(s.activations) +
                        " is not served for " + s.format->name() + " checkpoints")
            .file(s.files.config_file);
    s.layout = sharding::choose_grid(options.expert_parallel, ranks, expert_shape(s.shape));
    return s;
}

void expect_runnable(const ModelSetup& model) {
    if (!model.architecture->unserved.empty())
        throw Error(ErrorCode::kUnsupported,
                    model.architecture->name + " cannot run: " + model.architecture->unserved)
            .file(model.files.config_file);
}

}  // namespace conclave::engine
