#include "runtime/engine/conformance/conform.h"

#include <algorithm>
#include <filesystem>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "runtime/engine/conformance/checkpoint.h"
#include "runtime/engine/conformance/codec_laws.h"
#include "runtime/engine/conformance/format_laws.h"
#include "runtime/engine/conformance/indexer_laws.h"
#include "runtime/engine/conformance/kernel_laws.h"
#include "runtime/engine/conformance/runner.h"
#include "runtime/engine/plugins/child_process.h"
#include "runtime/engine/plugins/loader.h"

namespace conclave::engine::conformance {
namespace {

const char* const kNothingToRead =
    "the format has no sample, and no checkpoint of it was given (--checkpoint)";

class Conformance {
  public:
    explicit Conformance(const ConformOptions& options) : options_(options), runner_(options) {}

    ConformReport run() {
        auto extensions = std::make_shared<Extensions>();
        if (!options_.plugin.empty() && !load(*extensions)) return runner_.report();
        extensions_ = extensions;
        if (!options_.format.empty() && !extensions_->formats.find(options_.format))
            throw Error(ErrorCode::kUsage, "no format is named " + options_.format)
                .expected(fmt::format("{}", fmt::join(extensions_->formats.names(), ", ")));
        const bool everything = options_.plugin.empty() && options_.checkpoint.empty();
        const auto& formats = everything ? extensions_->formats.names() : plugin_.formats;
        for (const std::string& name : formats)
            if (options_.format.empty() || options_.format == name) check_samples(name);
        if (!options_.checkpoint.empty()) check_checkpoint();
        if (!options_.format.empty()) return runner_.report();
        for (const std::string& name : plugin_.indexers) check_examples(name);
        for (const quant::Kernel* kernel : extensions_->kernels.kernels())
            if (everything || contains(plugin_.kernels, kernel->name)) check_kernel_of(*kernel);
        if (options_.checkpoint.empty())
            for (const std::string& name : plugin_.readers)
                for (const ReaderLaw& law : reader_laws())
                    runner_.skip(law.name, "reader " + name, "no checkpoint was given");
        return runner_.report();
    }

  private:
    static bool contains(const std::vector<std::string>& all, const std::string& one) {
        return std::find(all.begin(), all.end(), one) != all.end();
    }

    /// False: there is nothing to go on with.
    bool load(Extensions& extensions) {
        std::error_code none;
        if (!std::filesystem::exists(options_.plugin, none))
            throw Error(ErrorCode::kMissingFile, "there is no such plugin").file(options_.plugin);
        const TrialLimits limits;
        const ChildResult trial = run_in_child(
            [&] {
                Extensions apart = extensions;
                return load_plugin(options_.plugin, apart, false).refusal;
            },
            limits.seconds, limits.cpu_seconds);
        std::string refusal = trial.finished ? trial.output : "loading it " + trial.fate();
        if (refusal.empty()) {
            plugin_ = load_plugin(options_.plugin, extensions, false);
            refusal = plugin_.refusal;
        }
        const std::string subject = "plugin " + options_.plugin;
        if (refusal.empty())
            runner_.add({"plugin.load", subject, ConformResult::State::kHeld, 1});
        else
            runner_.add({"plugin.load", subject, ConformResult::State::kBroken, 1, refusal});
        return refusal.empty();
    }

    void check_samples(const std::string& name) {
        const quant::QuantizationFormat& format = *extensions_->formats.find(name);
        const std::string subject = "format " + name + ", samples";
        const auto& indexers = extensions_->indexers;
        check_format(format, subject, samples_of(format, indexers, false),
                     samples_of(format, indexers, true));
    }

    void check_checkpoint() {
        bool states = true;
        for (const std::string& name : extensions_->readers.names())
            if (options_.plugin.empty() || contains(plugin_.readers, name))
                states = check_reader(name) && states;
        if (!states || options_.law.starts_with("reader")) return;  // no model is needed
        const std::string subject = "checkpoint " + options_.checkpoint;
        constexpr double kSeconds = 120;
        const ChildResult trial = run_in_child(
            [&] { return open_checkpoint(options_.checkpoint, extensions_), std::string(); },
            kSeconds);
        if (!trial.finished) {
            runner_.add({"format.describe", subject, ConformResult::State::kBroken, 1,
                         "building the model from headers: " + trial.fate()});
            return;
        }
        const CheckpointSubjects opened = open_checkpoint(options_.checkpoint, extensions_);
        const std::string& method = opened.model.files.quantization.method;
        if (!options_.format.empty() && options_.format != method)
            throw Error(ErrorCode::kUsage, "the checkpoint is in another format")
                .file(options_.checkpoint)
                .expected(options_.format)
                .found(method);
        if (const auto* format = extensions_->formats.find(method))
            check_format(*format, subject, opened.subjects, opened.subjects);
        else
            check_decoding(subject, opened.subjects);
    }

    bool check_reader(const std::string& name) {
        bool states = true;
        for (const ReaderLaw& law : reader_laws()) {
            const size_t before = runner_.report().results.size();
            const bool held = runner_.run(law.name, "reader " + name, [&](const Trial& trial) {
                return search_reader(law, extensions_->readers, name, options_.checkpoint, trial);
            });
            if (runner_.report().results.size() == before)
                runner_.skip(law.name, "reader " + name, "it does not open " + options_.checkpoint);
            states = states && held;
        }
        return states;
    }

    void check_format(const quant::QuantizationFormat& format, const std::string& subject,
                      const Subjects& stored, const Subjects& described) {
        // Enough to put every value in every place of a small config.
        const int64_t configs = std::max<int64_t>(options_.cases, 6 * options_.cases);
        runner_.run(
            "format.config", subject,
            [&](const Trial& trial) { return search_config(format, stored, trial); }, configs);
        if (stored.empty()) {
            return skip_decoding(subject, kNothingToRead);
        } else if (!runner_.run("format.describe", subject, [&](const Trial& trial) {
                       return search_describe(format, stored, trial);
                   })) {
            return skip_decoding(subject, "format.describe is broken");
        }
        check_decoding(subject, described);
    }

    void check_decoding(const std::string& subject, const Subjects& subjects) {
        subjects_ = true;
        for (size_t i = 0; i < indexer_laws().size(); ++i)
            if (!runner_.run(indexer_laws()[i].name, subject, [&](const Trial& trial) {
                    return search_indexed(i, subjects, trial);
                }))
                return skip_decoding(subject, std::string(indexer_laws()[i].name) + " is broken");
        for (const CodecLaw& law : codec_laws()) {
            const bool held = runner_.run(law.name, subject, [&](const Trial& trial) {
                return search_codec(law, subjects, trial);
            });
            if (!held && law.blocks)
                return skip_decoding(subject, std::string(law.name) + " is broken");
        }
    }

    /// The pieces that an indexer's plugin names itself.
    void check_examples(const std::string& name) {
        const std::string subject = "indexer " + name;
        const auto& examples = extensions_->examples.at(name);
        if (examples.empty() && !subjects_)
            runner_.skip("indexer.*", subject,
                         "it has no examples, no format of the plugin has a sample, and no "
                         "checkpoint was given");
        if (examples.empty()) return;
        const sharding::ShardIndexer& indexer = *extensions_->indexers.at(name);
        for (const IndexerLaw& law : indexer_laws())
            if (!runner_.run(law.name, subject, [&](const Trial& trial) {
                    return search_indexer(law, indexer, indexed_cases(examples, {}, trial), trial);
                }))
                return runner_.skip("indexer.*", subject, std::string(law.name) + " is broken");
    }

    /// The laws of codecs and ranks that were not checked so far, in one result.
    void skip_decoding(const std::string& subject, const std::string& why) {
        runner_.skip("codec.*", subject, why);
    }

    void check_kernel_of(const quant::Kernel& kernel) {
        const std::string subject = std::string("kernel ") + kernel.name;
        if (!detect_cpu().has(kernel.isa))
            return runner_.skip("kernel.isa", subject,
                                std::string("this CPU has no ") + isa_name(kernel.isa));
        int64_t tried = 0;
        std::string broken;
        for (const KernelLaw& law : kernel_laws()) {
            if (!broken.empty()) {
                runner_.skip(law.name, subject, broken + " is broken");
                continue;
            }
            const size_t before = runner_.report().results.size();
            const bool held = runner_.run(law.name, subject, [&](const Trial& trial) {
                return search_kernel(law, kernel, trial);
            });
            if (runner_.report().results.size() == before) continue;
            tried += runner_.report().results.back().cases;
            const std::string& last = runner_.report().results.back().law;
            if (!held && (law.blocks || last != law.name)) broken = last;
        }
        if (broken.empty() && tried > 0 && runner_.wanted("kernel.isa"))
            runner_.add({"kernel.isa", subject, ConformResult::State::kHeld, tried});
        if (tried == 0)
            runner_.skip("kernel.matches", subject,
                         "it says that it serves none of the encodings that were tried");
    }

    const ConformOptions& options_;
    Runner runner_;
    PluginReport plugin_;
    bool subjects_ = false;  ///< matrices were there to try indexers with
    std::shared_ptr<const Extensions> extensions_;
};

}  // namespace

const std::vector<ConformLaw>& laws() {
    static const std::vector<ConformLaw> all = {
        {"plugin.load", "the plugin loads and registers, and what it declares can be"},
        {"format.config", "of any config, only an Error comes; claims() bears any object"},
        {"format.describe",
         "of missing and misshapen tensors, nullopt or an Error comes, never a piece outside its "
         "tensor; without values the same encoding and activation rule"},
        {"indexer.inside", "byte ranges are inside the tensor"},
        {"indexer.order", "they ascend, none is empty, none overlap"},
        {"indexer.rows", "each row has one place, wholly inside what is read"},
        {"indexer.pure", "the same question has the same answer, from any thread"},
        {"indexer.coverage",
         "every byte listed is needed, and every element is where the table of any larger "
         "rectangle has it: parts cover the whole, each element once"},
        {"codec.needs",
         "needs() is inside the piece and grows with the rectangle; decode() reads nothing else "
         "and writes only to its scratch"},
        {"codec.round_trip",
         "a sample decodes to its weights bit for bit; codes fit their bits, factors are finite"},
        {"codec.interval", "any rectangle decodes to the same as within the whole matrix"},
        {"codec.rows", "what is staged decodes to the same in slices of rows"},
        {"ranks", "the parts of 1 to 8 ranks decode to what one rank decodes"},
        {"kernel.refusal", "refusal() does not depend on the number of rows"},
        {"kernel.bounds",
         "nothing is written or read beside packed, out, input and scratch; all "
         "of packed is written"},
        {"kernel.matches", "products equal sums in double within rounding"},
        {"kernel.ranges", "so do ranges of columns"},
        {"kernel.consistent", "a consistent kernel gives the same bits in every batch and range"},
        {"kernel.pack", "slices of row_block rows, in any order, pack to the same bytes"},
        {"kernel.isa", "it runs on every CPU that has its instruction set"},
        {"reader.states", "names ascend, shapes and ranges can be"},
        {"reader.reads", "the same bytes come however they are read"},
        {"reader.end", "reading past the end of a file is an Error"}};
    return all;
}

ConformReport conform(const ConformOptions& options) {
    const auto known = [&](const ConformLaw& law) { return law.name.starts_with(options.law); };
    if (std::none_of(laws().begin(), laws().end(), known))
        throw Error(ErrorCode::kUsage, "no law begins with " + options.law);
    return Conformance(options).run();
}

}  // namespace conclave::engine::conformance
