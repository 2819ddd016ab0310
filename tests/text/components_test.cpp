// Rules of tokenizer.json that the vectors of whole tokenizers do not reach.
#include "tests/text/fixtures.h"

namespace conclave::engine {
namespace {

Ids encode(const Json& json, const std::string& text, bool special = false) {
    return parse_tokenizer(json)->encode(text, special);
}

Json added(int id, const char* content, const char* flag = nullptr) {
    Json token{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
               {"rstrip", false}, {"normalized", false}, {"special", false}};
    if (flag) token[flag] = true;
    return token;
}

TEST(Bpe, LowestRankFirstThenLeftmost) {
    Json json = letters_tokenizer();
    Json& vocab = json["model"]["vocab"];
    vocab["aa"] = 30, vocab["bc"] = 31, vocab["ab"] = 32, vocab["aaa"] = 33;
    json["model"]["merges"] = {"b c", "a b", "a a"};
    EXPECT_EQ(encode(json, "abc"), (Ids{0, 31}));
    EXPECT_EQ(encode(json, "aab"), (Ids{0, 32}));
    EXPECT_EQ(encode(json, "aaaaa"), (Ids{30, 30, 0}));
    json["model"]["merges"].push_back("aa a");
    EXPECT_EQ(encode(json, "aaaaa"), (Ids{30, 33}));
    json["model"]["merges"] = {"#version: 0.2", "a b", "b c"};
    EXPECT_EQ(encode(json, "abc"), (Ids{32, 2}));
}

TEST(Bpe, WholeWordsBeforeMergesWhereTheFileSaysSo) {
    Json json = letters_tokenizer();
    json["model"]["vocab"]["abc"] = 30;
    EXPECT_EQ(encode(json, "abc"), (Ids{0, 1, 2}));
    json["model"]["ignore_merges"] = true;
    EXPECT_EQ(encode(json, "abc"), (Ids{30}));
    EXPECT_EQ(encode(json, "abca"), (Ids{0, 1, 2, 0}));
}

TEST(Bpe, UnknownCharacters) {
    Json json = letters_tokenizer();
    EXPECT_EQ(encode(json, "a??b"), (Ids{0, 1}));
    json["model"]["vocab"]["<unk>"] = 30;
    json["model"]["unk_token"] = "<unk>";
    EXPECT_EQ(encode(json, "a??b?"), (Ids{0, 30, 30, 1, 30}));
    json["model"]["fuse_unk"] = true;
    EXPECT_EQ(encode(json, "a??b?"), (Ids{0, 30, 1, 30}));
    json["model"]["byte_fallback"] = true;
    json["model"]["vocab"]["<0xC3>"] = 31;
    EXPECT_EQ(encode(json, "a\xC3\xA9"), (Ids{0, 30}));
    json["model"]["vocab"]["<0xA9>"] = 32;
    EXPECT_EQ(encode(json, "a\xC3\xA9?"), (Ids{0, 31, 32, 30}));
}

TEST(Bpe, BadBytesAreReplacementCharacters) {
    Json json = letters_tokenizer();
    json["model"]["vocab"]["\xEF\xBF\xBD"] = 30;
    EXPECT_EQ(encode(json, "a\xFFz\xE4\xB8"), (Ids{0, 30, 25, 30, 30}));
}

TEST(AddedTokens, LeftmostThenLongest) {
    Json json = letters_tokenizer();
    json["added_tokens"] = {added(30, "ab"), added(31, "abc"), added(32, "bcd"), added(33, "!")};
    EXPECT_EQ(encode(json, "abcd"), (Ids{31, 3}));
    EXPECT_EQ(encode(json, "xbcdab"), (Ids{23, 32, 30}));
    EXPECT_EQ(encode(json, "a!"), (Ids{0, 33}));
}

TEST(AddedTokens, FlagsWidenAndReject) {
    Json json = letters_tokenizer();
    json["model"]["vocab"][" "] = 29;
    json["added_tokens"] = {added(30, "<l>", "lstrip"), added(31, "<r>", "rstrip"),
                            added(32, "ab", "single_word")};
    EXPECT_EQ(encode(json, "a  <l> b"), (Ids{0, 30, 29, 1}));
    EXPECT_EQ(encode(json, "a <r>  b"), (Ids{0, 29, 31, 1}));
    EXPECT_EQ(encode(json, "<r>  <l>"), (Ids{31, 30}));
    EXPECT_EQ(encode(json, "ab xab"), (Ids{32, 29, 23, 0, 1}));
    EXPECT_EQ(encode(json, "ab\xCC\x81"), (Ids{0, 1}));  // a mark makes it part of a word
}

TEST(AddedTokens, NormalizedOnesAreFoundInNormalizedText) {
    Json json = letters_tokenizer();
    json["normalizer"] = {{"type", "Lowercase"}};
    json["added_tokens"] = {added(30, "AB", "normalized"), added(31, "CD")};
    const auto tokenizer = parse_tokenizer(json);
    EXPECT_EQ(tokenizer->encode("aBcdCD", false), (Ids{30, 2, 3, 31}));
    EXPECT_EQ(tokenizer->decode(Ids{30, 31}, false), "ab CD");
}

TEST(AddedTokens, TheVocabularyKnowsTheIdBetter) {
    Json json = letters_tokenizer();
    json["model"]["vocab"]["<s>"] = 40;
    json["added_tokens"] = {added(7, "<s>", "special")};
    const auto tokenizer = parse_tokenizer(json);
    EXPECT_EQ(tokenizer->encode("<s>h", false), (Ids{40, 7}));
    EXPECT_EQ(tokenizer->decode(Ids{40, 7}, true), "h");
    EXPECT_EQ(tokenizer->vocab_size(), 41);
}

TEST(Decode, UnknownIdsGiveNothing) {
    Json json = letters_tokenizer();
    json["model"]["vocab"]["zz"] = 40;
    json["decoder"] = {{"type", "Fuse"}};
    EXPECT_EQ(parse_tokenizer(json)->decode(Ids{0, 39, -1, 41, INT32_MAX, INT32_MIN, 40}, true),
              "azz");
}

TEST(PreTokenizers, SplitKeepsWhatItsBehaviorSays) {
    Json json = letters_tokenizer();
    json["model"]["vocab"]["xa"] = 30, json["model"]["vocab"]["ax"] = 31;
    json["model"]["merges"] = {"x a", "a x"};
    const auto with = [&](const char* behavior, bool invert) {
        json["pre_tokenizer"] = {{"type", "Split"},
                                 {"pattern", {{"String", "x"}}},
                                 {"behavior", behavior},
                                 {"invert", invert}};
        return encode(json, "axab");
    };
    EXPECT_EQ(encode(json, "axab"), (Ids{0, 30, 1}));
    EXPECT_EQ(with("Isolated", false), (Ids{0, 23, 0, 1}));
    EXPECT_EQ(with("Removed", false), (Ids{0, 0, 1}));
    EXPECT_EQ(with("Removed", true), (Ids{23}));
}

TEST(PreTokenizers, Metaspace) {
    Json json = letters_tokenizer();
    Json& vocab = json["model"]["vocab"];
    const std::string mark = "\xE2\x96\x81";
    vocab[mark] = 30, vocab[mark + "a"] = 31, vocab["a" + mark] = 32;
    json["model"]["merges"] = Json::array({Json::array({"a", mark}), Json::array({mark, "a"})});
    json["added_tokens"] = {added(40, "<s>")};
    const auto with = [&](const char* scheme, bool split, const std::string& text) {
        json["pre_tokenizer"] = {{"type", "Metaspace"},
                                 {"replacement", mark},
                                 {"prepend_scheme", scheme},
                                 {"split", split}};
        return encode(json, text);
    };
    EXPECT_EQ(with("always", true, "a a<s>a"), (Ids{31, 31, 40, 31}));
    EXPECT_EQ(with("first", true, "a a<s>a"), (Ids{31, 31, 40, 0}));
    EXPECT_EQ(with("first", true, "<s>a"), (Ids{40, 0}));
    EXPECT_EQ(with("never", true, "a a"), (Ids{0, 31}));
    EXPECT_EQ(with("never", false, "a a"), (Ids{32, 0}));
    EXPECT_EQ(with("always", true, " a"), (Ids{31}));
}

TEST(PostProcessors, WrapOneAnother) {
    Json json = letters_tokenizer();
    const Json text{{"Sequence", {{"id", "A"}}}};
    const auto wrap = [&](const char* before, const char* after) {
        Json tokens;
        for (const char* name : {before, after}) tokens[name] = {{"ids", {name[0] - 'a'}}};
        return Json{
            {"type", "TemplateProcessing"},
            {"single",
             {{{"SpecialToken", {{"id", before}}}}, text, {{"SpecialToken", {{"id", after}}}}}},
            {"special_tokens", tokens}};
    };
    json["post_processor"] = {
        {"type", "Sequence"},
        {"processors", {{{"type", "ByteLevel"}}, wrap("x", "y"), wrap("v", "w")}}};
    EXPECT_EQ(encode(json, "a", true), (Ids{21, 23, 0, 24, 22}));
    EXPECT_EQ(encode(json, "a", false), (Ids{0}));
}

TEST(Normalizers, InSequence) {
    Json json = letters_tokenizer();
    json["normalizer"] = {
        {"type", "Sequence"},
        {"normalizers",
         {{{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}},
          {{"type", "Lowercase"}},
          {{"type", "Replace"}, {"pattern", {{"String", "bb"}}}, {"content", "c"}},
          {{"type", "Prepend"}, {"prepend", "x"}}}}};
    EXPECT_EQ(encode(json, "\xE3\x80\x80 ABBB"), (Ids{23, 0, 2, 1}));
    EXPECT_EQ(encode(json, " \n"), Ids{});
}

}  // namespace
}  // namespace conclave::engine
