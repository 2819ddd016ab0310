// A megabyte without any place to cut finishes: quadratic work would take hours.
#include "tests/text/fixtures.h"

namespace conclave::engine {
namespace {

constexpr size_t kMegabyte = size_t{1} << 20;

std::string repeated(const std::string& part, size_t size = kMegabyte) {
    std::string text;
    while (text.size() < size) text += part;
    return text;
}

void check_uncut_texts(const std::filesystem::path& directory, size_t size) {
    SCOPED_TRACE(directory.string());
    const auto tokenizer = load_tokenizer(directory);
    const std::vector<std::string> parts{
        "a",
        "the",
        " ",
        "\n ",
        "\xCC\x81\xCC\xA3",  // marks, each pair in the wrong order
        "\xE4\xB8\xAD"
        "AAAA",
        "\xFF",
        "<|im_end|",
    };
    for (const std::string& part : parts) {
        const std::string text = repeated(part, size) + "x";
        const Ids ids = tokenizer->encode(text, false);
        EXPECT_GT(ids.size(), size / 16);
        EXPECT_LE(ids.size(), text.size() * 3 + 1);
        if (part == "the") {
            EXPECT_EQ(tokenizer->decode(ids, true), text);
        }
    }
}

TEST(Limits, AMegabyteWithoutACut) { check_uncut_texts(qwen_directory(), kMegabyte); }

TEST(Limits, TextWithoutACutForTheZoo) {
    if (!std::filesystem::exists(zoo_directory())) GTEST_SKIP() << "no zoo: " << zoo_directory();
    for (const auto& directory : tokenizer_directories()) {
        check_uncut_texts(directory, kMegabyte / 4);
    }
}

TEST(Limits, SpacesBeforeALineEndAreSearchedOnce) {
    Json json = letters_tokenizer();
    json["model"]["vocab"][" "] = 26;
    json["pre_tokenizer"] = {
        {"type", "Split"}, {"pattern", {{"Regex", "\\s+$"}}}, {"behavior", "Isolated"}};
    EXPECT_EQ(parse_tokenizer(json)->encode(repeated(" ") + "x", false).size(), kMegabyte + 1);
}

TEST(Limits, TextBeyondThemIsAUsageError) {
    const auto tokenizer = parse_tokenizer(letters_tokenizer());
    try {
        tokenizer->encode(std::string((size_t{64} << 20) + 1, 'a'), false);
        ADD_FAILURE() << "was taken";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kUsage);
    }
}

}  // namespace
}  // namespace conclave::engine
