// What one plugin registers, checked piece by piece before any engine sees it.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/engine/plugins/extensions.h"
#include "runtime/sdk/conclave/plugin.h"

namespace conclave::engine {

class Staging final : public PluginRegistrar {
  public:
    struct Indexer {
        std::string name;
        std::shared_ptr<const sharding::ShardIndexer> indexer;
        std::vector<quant::StoredPiece> examples;
    };

    /// `before`: what there is already; must outlive this.
    explicit Staging(const Extensions& before) : before_(before) {}

    const PluginHost& host() const override;
    void add_format(quant::QuantizationFormat format) override;
    void add_indexer(std::string name, std::shared_ptr<const sharding::ShardIndexer> indexer,
                     std::vector<quant::StoredPiece> examples) override;
    void add_kernel(const quant::Kernel& kernel) override;
    void add_reader(sharding::CheckpointReader reader) override;

    /// The first thing that was refused, whether or not the plugin minded; empty: nothing.
    const std::string& fault() const { return fault_; }
    bool empty() const {
        return formats_.empty() && indexers_.empty() && kernels_.empty() && readers_.empty();
    }
    const std::vector<quant::QuantizationFormat>& formats() const { return formats_; }
    const std::vector<Indexer>& indexers() const { return indexers_; }
    const std::vector<const quant::Kernel*>& kernels() const { return kernels_; }
    const std::vector<sharding::CheckpointReader>& readers() const { return readers_; }

    /// Their names.
    void list(PluginReport& report) const;
    /// Kernels go before those that are there, in their own order.
    void add_to(Extensions& extensions) const;

  private:
    [[noreturn]] void refuse(const std::string& why);
    void check_name(const std::string& what, const std::string& name);
    std::string format_with(const std::string& file) const;
    void refuse_taken(const std::string& what, const std::string& name,
                      std::vector<std::string> PluginReport::*names);

    const Extensions& before_;
    std::string fault_;
    std::vector<quant::QuantizationFormat> formats_;
    std::vector<Indexer> indexers_;
    std::vector<const quant::Kernel*> kernels_;
    std::vector<sharding::CheckpointReader> readers_;
};

}  // namespace conclave::engine
