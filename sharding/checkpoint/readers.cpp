#include <algorithm>
#include <filesystem>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "sharding/checkpoint/gguf/checkpoint.h"
#include "sharding/checkpoint/reader.h"

namespace conclave::sharding {
namespace {

/// What is wrong with a tensor as a reader states it; empty: nothing.
std::string fault_of(const Checkpoint& checkpoint, const StoredTensor& t) {
    if (static_cast<size_t>(t.type) >= kStoredTypes.size()) return "a type that there is not";
    if (t.file < 0 || static_cast<size_t>(t.file) >= checkpoint.files().size())
        return fmt::format("file {} of {}", t.file, checkpoint.files().size());
    const std::optional<uint64_t> bytes = stored_bytes(t.type, t.shape);
    if (!bytes) return "a shape that is out of range";
    if (*bytes != t.bytes) return fmt::format("{} bytes for {}", t.bytes, t.describe());
    const uint64_t size = checkpoint.files()[static_cast<size_t>(t.file)].bytes;
    if (t.offset > size || t.bytes > size - t.offset)
        return fmt::format("bytes [{}, +{}) of a file of {}", t.offset, t.bytes, size);
    return "";
}

void check(const Checkpoint& checkpoint, const std::string& reader) {
    const StoredTensor* before = nullptr;
    for (const StoredTensor& t : checkpoint.tensors()) {
        std::string fault = fault_of(checkpoint, t);
        if (fault.empty() && before && !(before->name < t.name))
            fault = "it after " + printable(before->name);
        const StoredTensor* const named = checkpoint.find(t.name);
        if (fault.empty() && (!named || named->file != t.file || named->offset != t.offset))
            fault = "another under its name";
        if (!fault.empty())
            throw Error(ErrorCode::kInternal,
                        "checkpoint reader " + reader + " states what cannot be")
                .tensor(printable(t.name))
                .found(fault);
        before = &t;
    }
}

bool looks_like_safetensors(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code none;
    const fs::path p(path);
    return p.extension() == ".safetensors" || fs::exists(p / "model.safetensors", none) ||
           fs::exists(p / "model.safetensors.index.json", none);
}

}  // namespace

CheckpointReaders CheckpointReaders::built_in() {
    CheckpointReaders readers;
    readers.add({"safetensors", looks_like_safetensors, Checkpoint::open});
    readers.add({"gguf", looks_like_gguf, open_gguf, true});
    return readers;
}

void CheckpointReaders::add(CheckpointReader reader) {
    if (has(reader.name) || reader.name == "auto" || reader.name == "dummy")
        throw Error(ErrorCode::kUsage,
                    "a checkpoint reader named " + in_quotes(reader.name) + " is there already");
    readers_.push_back(std::move(reader));
}

bool CheckpointReaders::has(std::string_view name) const {
    return std::any_of(readers_.begin(), readers_.end(),
                       [&](const CheckpointReader& r) { return r.name == name; });
}

std::vector<std::string> CheckpointReaders::names() const {
    std::vector<std::string> names;
    for (const CheckpointReader& r : readers_) names.push_back(r.name);
    return names;
}

const CheckpointReader& CheckpointReaders::choose(const std::string& path,
                                                  const std::string& asked) const {
    const auto wanted = [&](const CheckpointReader& r) {
        return asked == "auto" ? r.claims(path) : r.name == asked;
    };
    const auto reader = std::find_if(readers_.begin(), readers_.end(), wanted);
    if (reader != readers_.end()) return *reader;
    if (asked != "auto")
        throw Error(ErrorCode::kUsage, "--load-format names no reader")
            .expected(fmt::format("auto, dummy, {}", fmt::join(names(), ", ")))
            .found(in_quotes(asked));
    return readers_.front();
}

bool CheckpointReaders::self_contained(const std::string& path, const std::string& asked) const {
    return choose(path, asked == "dummy" ? "auto" : asked).self_contained;
}

std::shared_ptr<const Checkpoint> CheckpointReaders::open(const std::string& path,
                                                          const std::string& asked) const {
    const CheckpointReader& reader = choose(path, asked);
    auto checkpoint = reader.open(path);
    if (!checkpoint)
        throw Error(ErrorCode::kInternal, "checkpoint reader " + reader.name + " opens nothing")
            .file(path);
    if (&reader != &readers_.front()) check(*checkpoint, reader.name);  // that checks as it reads
    return checkpoint;
}

}  // namespace conclave::sharding
