// Which config of which file a checkpoint is read by, and what ranks compare of it.
#include "runtime/engine/model_files.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace conclave::engine {
namespace {

using testing::TempDir;
using testing::write_file;

constexpr const char* kAwq =
    R"({"quantization":{"quant_algo":"W4A16_AWQ","group_size":32,"has_zero_point":false}})";
constexpr const char* kStated =
    R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"W4A16_AWQ"}})";

// Ranks that see other sidecars see another model.
TEST(ModelFiles, SidecarsAreFingerprinted) {
    const TempDir dir;
    testing::write_safetensors(dir / "model.safetensors", {{"a", "U8", {1}, "x"}});
    const auto of = [&](const char* config, const char* sidecar) {
        write_file(dir / "config.json", config);
        write_file(dir / "hf_quant_config.json", sidecar);
        return open_model_files(dir / "").fingerprint();
    };
    const char* other = R"({"quantization":{"quant_algo":"W4A16_AWQ","group_size":64}})";
    for (const char* config : {kStated, "{}"}) {
        EXPECT_EQ(of(config, kAwq), of(config, kAwq));
        EXPECT_NE(of(config, kAwq), of(config, other)) << config;
    }
    EXPECT_NE(of("{}", kAwq), of(kStated, kAwq));
}

TEST(ModelFiles, ConfigsAreCompletedFromSidecars) {
    const TempDir dir;
    const auto registry = quant::QuantizationRegistry::built_in();
    write_file(dir / "config.json", kStated);
    const auto method = [&] {
        const ModelFiles files = open_model_files(dir / "", false);
        return choose_format(files, registry, "")->name();
    };
    EXPECT_THROW(method(), Error);  // without group_size
    write_file(dir / "hf_quant_config.json", kAwq);
    EXPECT_STREQ(method(), "modelopt");
    const ModelFiles files = open_model_files(dir / "", false);
    EXPECT_THROW(choose_format(files, registry, "gptq"), Error);
    for (const char* bad : {"[]", "{", R"({"quantization":[]})"}) {
        write_file(dir / "hf_quant_config.json", bad);
        try {
            method();
            ADD_FAILURE() << "nothing thrown";
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kBadContent);
            EXPECT_NE(std::string(e.what()).find("hf_quant_config.json"), std::string::npos);
        }
    }
}

}  // namespace
}  // namespace conclave::engine
