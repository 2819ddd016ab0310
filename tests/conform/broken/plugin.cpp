// Registers what the others make; and a reader of folders with a file toy.bin: 64 bytes, one
// tensor.
#include <sys/stat.h>

#include <fstream>

#include "tests/conform/broken/toy.h"

namespace toy {
namespace {

using namespace conclave;
using namespace conclave::sharding;

constexpr uint64_t kBytes = 64;

class Folder final : public Checkpoint {
  public:
    explicit Folder(const std::string& path)
        : files_{{path + "/toy.bin", kBytes, 1}}, tensors_{{"a", StoredType::kU8, {16}, 0, 0, 16}} {
        if (has("reader-outside")) tensors_[0].offset = kBytes - 8;
    }
    const std::vector<CheckpointFile>& files() const override { return files_; }
    const std::vector<StoredTensor>& tensors() const override { return tensors_; }
    const StoredTensor* find(std::string_view name) const override {
        return name == "a" ? &tensors_[0] : nullptr;
    }
    std::optional<std::string> metadata(std::string_view) const override { return std::nullopt; }
    void read(int, uint64_t offset, std::span<std::byte> out) const override {
        const bool inside = offset <= kBytes && out.size() <= kBytes - offset;
        if (!inside && !has("reader-end"))
            throw Error(ErrorCode::kBadContent, "the file is too short").file(files_[0].path);
        std::ifstream in(files_[0].path, std::ios::binary);
        in.seekg(static_cast<std::streamoff>(offset));
        in.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(out.size()));
        if (has("reader-parts") && !out.empty()) out[0] = std::byte{7};
    }
    const ReadCounters& counters() const override { return counters_; }

  private:
    std::vector<CheckpointFile> files_;
    std::vector<StoredTensor> tensors_;
    ReadCounters counters_;
};

}  // namespace

CheckpointReader reader() {
    return {"toy",
            [](const std::string& path) {
                struct stat s;
                return stat((path + "/toy.bin").c_str(), &s) == 0;
            },
            [](const std::string& path) { return std::make_shared<Folder>(path); }};
}

}  // namespace toy

CONCLAVE_PLUGIN("toy", "1.0", "a format, an indexer, a kernel and a reader, each small") {
    const char* bug = std::getenv("TOY_BUG");
    toy::bug() = bug ? bug : "";
    if (toy::has("register")) std::abort();
    if (std::getenv("TOY_EXAMPLES")) {  // an indexer by itself
        plugin.add_indexer("toy", toy::indexer(),
                           {{conclave::quant::PieceRole::kCodes, "t", 1, 5, 7, "toy", 2}});
        return;
    }
    if (std::getenv("TOY_NO_FORMAT")) return plugin.add_indexer("toy", toy::indexer(), {});
    plugin.add_format(toy::format(plugin.host()));
    plugin.add_indexer("toy", toy::indexer(), {});
    plugin.add_kernel(toy::kernel());
    plugin.add_reader(toy::reader());
}
