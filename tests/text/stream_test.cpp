// Streaming gives what decoding at once does, in pieces that are whole characters.
#include <algorithm>
#include <random>

#include "runtime/engine/text/unicode.h"
#include "tests/text/fixtures.h"

namespace conclave::engine {

std::vector<std::filesystem::path> tokenizer_directories() {
    std::vector<std::filesystem::path> found{qwen_directory()};
    if (std::filesystem::exists(zoo_directory())) {
        for (const auto& entry : std::filesystem::directory_iterator(zoo_directory())) {
            if (std::filesystem::exists(entry.path() / "vectors.json")) {
                found.push_back(entry.path());
            }
        }
    }
    return found;
}

std::string stream_all(const Tokenizer& tokenizer, const Ids& ids, bool skip_special_tokens) {
    const auto stream = tokenizer.stream(skip_special_tokens);
    std::string all;
    const auto take = [&](const std::string& piece) {
        EXPECT_EQ(valid_utf8(piece), piece) << "not valid UTF-8";
        all += piece;
    };
    for (const TokenId id : ids) take(stream->add(id));
    take(stream->finish());
    return all;
}

namespace {

TEST(Stream, RandomIdsEqualDecodingAtOnce) {
    for (const auto& directory : tokenizer_directories()) {
        SCOPED_TRACE(directory.string());
        const auto tokenizer = load_tokenizer(directory);
        std::mt19937 random(7);
        const auto size = static_cast<TokenId>(tokenizer->vocab_size());
        // The low ids are single bytes: sequences of them are mostly invalid UTF-8.
        std::uniform_int_distribution<TokenId> any(-2, size + 2), byte(0, 260);
        for (int round = 0; round < 400; ++round) {
            Ids ids(static_cast<size_t>(round % 40));
            for (TokenId& id : ids) id = round % 2 ? any(random) : byte(random);
            for (const bool skip : {false, true}) {
                EXPECT_EQ(stream_all(*tokenizer, ids, skip), tokenizer->decode(ids, skip));
            }
        }
    }
}

TEST(Stream, ACharacterLeavesWithItsLastByte) {
    const auto tokenizer = load_tokenizer(qwen_directory());
    const std::string text = "\xF0\x9F\xA6\x9C";  // U+1F99C, no token of its own
    const Ids ids = tokenizer->encode(text, false);
    ASSERT_GT(ids.size(), 2u);
    const auto stream = tokenizer->stream(true);
    for (size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(stream->add(ids[i]), "");
    EXPECT_EQ(stream->add(ids.back()), text);
    EXPECT_EQ(stream->finish(), "");
}

TEST(Stream, AnUnfinishedCharacterBecomesOneReplacementAtTheEnd) {
    const auto tokenizer = load_tokenizer(qwen_directory());
    Ids ids = tokenizer->encode("\xF0\x9F\xA6\x9C", false);
    ids.pop_back();
    const auto stream = tokenizer->stream(true);
    for (const TokenId id : ids) EXPECT_EQ(stream->add(id), "");
    EXPECT_EQ(stream->finish(), "\xEF\xBF\xBD");
    EXPECT_EQ(tokenizer->decode(ids, true), "\xEF\xBF\xBD");
}

TEST(Stream, TextIsNotHeldBack) {
    const auto tokenizer = load_tokenizer(qwen_directory());
    const auto stream = tokenizer->stream(true);
    std::string all;
    for (const TokenId id : tokenizer->encode("What news of the king?", false)) {
        const std::string piece = stream->add(id);
        EXPECT_FALSE(piece.empty());
        all += piece;
    }
    EXPECT_EQ(all, "What news of the king?");
}

/// a to z and the marks given, decoded by `decoder`.
std::shared_ptr<const Tokenizer> with_decoder(const Json& decoder) {
    Json json = letters_tokenizer();
    Json& vocab = json["model"]["vocab"];
    int id = 26;
    for (const char* token : {"\xE2\x96\x81", "\xE2\x96\x81x", " ", "<0xC3>", "<0xA9>", "a "}) {
        vocab[token] = id++;
    }
    json["decoder"] = decoder;
    return parse_tokenizer(json);
}

TEST(Stream, EveryDecoderEqualsDecodingAtOnce) {
    const Json replace{
        {"type", "Replace"}, {"pattern", {{"String", "\xE2\x96\x81"}}}, {"content", " "}};
    const Json fallback{{"type", "ByteFallback"}}, fuse{{"type", "Fuse"}};
    const auto strip = [](int start, int stop) {
        return Json{{"type", "Strip"}, {"content", " "}, {"start", start}, {"stop", stop}};
    };
    const auto sequence = [](std::vector<Json> parts) {
        return Json{{"type", "Sequence"}, {"decoders", parts}};
    };
    const Json late_replace{{"type", "Replace"}, {"pattern", {{"String", "ab"}}}, {"content", "-"}};
    const std::vector<Json> decoders{
        nullptr,
        sequence({replace, fallback, fuse, strip(1, 0)}),
        sequence({replace, fallback, fuse, strip(2, 2)}),
        sequence({replace, strip(1, 1), fuse}),
        sequence({replace, fuse, late_replace, strip(0, 1)}),
        Json{{"type", "Metaspace"}, {"replacement", "\xE2\x96\x81"}, {"prepend_scheme", "first"}},
        Json{{"type", "Metaspace"}, {"replacement", "\xE2\x96\x81"}, {"prepend_scheme", "never"}},
    };
    std::mt19937 random(11);
    for (const Json& decoder : decoders) {
        SCOPED_TRACE(decoder.dump());
        const auto tokenizer = with_decoder(decoder);
        const Ids some{26, 27, 28, 29, 30, 31, 0, 1};
        std::uniform_int_distribution<size_t> pick(0, some.size() - 1);
        for (int round = 0; round < 300; ++round) {
            Ids ids(static_cast<size_t>(round % 12));
            for (TokenId& id : ids) id = some[pick(random)];
            EXPECT_EQ(stream_all(*tokenizer, ids, false), tokenizer->decode(ids, false));
        }
    }
}

TEST(Decoders, GiveWhatTheirRulesSay) {
    const Json replace{
        {"type", "Replace"}, {"pattern", {{"String", "\xE2\x96\x81"}}}, {"content", " "}};
    const auto sequence = [](std::vector<Json> parts) {
        return Json{{"type", "Sequence"}, {"decoders", parts}};
    };
    const Json fuse{{"type", "Fuse"}}, fallback{{"type", "ByteFallback"}};
    const auto strip = [](int start, int stop) {
        return Json{{"type", "Strip"}, {"content", " "}, {"start", start}, {"stop", stop}};
    };
    const TokenId a = 0, b = 1, mark = 26, mark_x = 27, space = 28, c3 = 29, a9 = 30, a_space = 31;
    const auto decode = [](const Json& decoder, const Ids& ids) {
        return with_decoder(decoder)->decode(ids, false);
    };
    EXPECT_EQ(decode(nullptr, {a, b, mark_x}), "a b \xE2\x96\x81x");
    EXPECT_EQ(decode(sequence({fallback}), {a, c3, a9, b}),
              "a\xC3\xA9"
              "b");
    EXPECT_EQ(decode(sequence({fallback}), {a9, c3, a9}), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    EXPECT_EQ(decode(sequence({replace, fuse, strip(1, 0)}), {mark, mark_x, a}), " xa");
    EXPECT_EQ(decode(sequence({replace, fuse, strip(3, 0)}), {mark, mark_x, a}), "xa");
    EXPECT_EQ(decode(sequence({fuse, strip(0, 1)}), {a, space, space}), "a ");
    EXPECT_EQ(decode(sequence({fuse, strip(0, 2)}), {a_space, space, b, a_space, space}), "a  ba");
    EXPECT_EQ(decode(sequence({fuse, strip(0, 2)}), {a, space, space, space}), "a ");
    EXPECT_EQ(decode(sequence({strip(0, 1), fuse}), {a_space, b, a_space}), "aba");
    const Json metaspace{{"type", "Metaspace"}, {"replacement", "\xE2\x96\x81"}};
    EXPECT_EQ(decode(metaspace, {mark_x, mark_x}), "x x");
    Json never = metaspace;
    never["prepend_scheme"] = "never";
    EXPECT_EQ(decode(never, {mark_x, mark_x}), " x x");
}

}  // namespace
}  // namespace conclave::engine
