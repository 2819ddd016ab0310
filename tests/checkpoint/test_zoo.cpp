#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "runtime/base/error.h"
#include "sharding/checkpoint/reader.h"

namespace conclave {
namespace {

namespace fs = std::filesystem;

/// All bytes of all files are header or tensor, and the first and last byte of each can be read.
void check_whole(const std::string& path) {
    SCOPED_TRACE(path);
    const auto checkpoint = sharding::Checkpoint::open(path);
    ASSERT_FALSE(checkpoint->tensors().empty());
    uint64_t stored = 0, total = 0;
    const uint64_t headers = checkpoint->counters().bytes;
    for (const sharding::CheckpointFile& f : checkpoint->files()) total += f.bytes;
    for (const sharding::StoredTensor& t : checkpoint->tensors()) {
        stored += t.bytes;
        EXPECT_EQ(checkpoint->find(t.name), &t);
        std::byte edge[1];
        if (t.bytes == 0) continue;
        EXPECT_NO_THROW(checkpoint->read(t.file, t.offset, edge));
        EXPECT_NO_THROW(checkpoint->read(t.file, t.offset + t.bytes - 1, edge));
    }
    EXPECT_EQ(headers + stored, total);
}

TEST(Checkpoints, ShippedExample) {
    const std::string path = CONCLAVE_SOURCE_DIR "/launch/examples/shakespeare";
    if (!fs::exists(path)) GTEST_SKIP() << "no " << path;
    check_whole(path);
}

TEST(Checkpoints, WholeZoo) {
    const fs::path zoo = CONCLAVE_SOURCE_DIR "/../shared/zoo";
    if (!fs::exists(zoo)) GTEST_SKIP() << "no collection of models beside the sources";
    int opened = 0;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(zoo)) {
        if (entry.path().filename() == "config.json" &&
            (fs::exists(entry.path().parent_path() / "model.safetensors") ||
             fs::exists(entry.path().parent_path() / "model.safetensors.index.json"))) {
            check_whole(entry.path().parent_path().string());
            ++opened;
        }
        if (entry.path().filename() == "expected.safetensors") check_whole(entry.path().string());
    }
    EXPECT_GT(opened, 0);
}

}  // namespace
}  // namespace conclave
