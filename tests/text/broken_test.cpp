// A broken tokenizer.json ends in an error that names the file and what is wrong in it.
#include <algorithm>
#include <functional>
#include <random>

#include "tests/text/fixtures.h"

namespace conclave::engine {
namespace {

/// A small tokenizer with one of everything that can be broken.
Json sound_tokenizer() {
    Json json = letters_tokenizer();
    json["model"]["vocab"]["ab"] = 26;
    json["model"]["merges"] = Json::array({Json::array({"a", "b"})});
    json["normalizer"] = {{"type", "NFC"}};
    json["pre_tokenizer"] = {{"type", "Split"},
                             {"pattern", {{"Regex", "\\p{N}{1,3}"}}},
                             {"behavior", "Isolated"},
                             {"invert", false}};
    json["added_tokens"] = Json::array({{{"id", 27},
                                         {"content", "<s>"},
                                         {"single_word", false},
                                         {"lstrip", false},
                                         {"rstrip", false},
                                         {"normalized", false},
                                         {"special", true}}});
    const Json text{{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
    const Json begin{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
    json["post_processor"] = {{"type", "TemplateProcessing"},
                              {"single", Json::array({begin, text})},
                              {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {27}}}}}}};
    json["decoder"] = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
    return json;
}

TEST(Broken, TheSoundOneIsSound) {
    const auto tokenizer = parse_tokenizer(sound_tokenizer());
    EXPECT_EQ(tokenizer->encode("abc<s>", true), (Ids{27, 26, 2, 27}));
    EXPECT_EQ(tokenizer->vocab_size(), 28);
}

struct Damage {
    const char* named;  ///< in the message
    ErrorCode code;
    std::function<void(Json&)> apply;
};

TEST(Broken, EachDamageIsNamed) {
    const auto bad = ErrorCode::kBadContent, unsupported = ErrorCode::kUnsupported;
    const std::vector<Damage> damages{
        {"model", bad, [](Json& j) { j.erase("model"); }},
        {"model", bad, [](Json& j) { j["model"] = 3; }},
        {"type", bad, [](Json& j) { j["model"]["type"] = 3; }},
        {"vocab", bad, [](Json& j) { j["model"].erase("vocab"); }},
        {"vocab", bad, [](Json& j) { j["model"]["vocab"] = Json::array(); }},
        {"vocab", bad, [](Json& j) { j["model"]["vocab"] = Json::object(); }},
        {"vocab[\"c\"]", bad, [](Json& j) { j["model"]["vocab"]["c"] = -1; }},
        {"vocab[\"c\"]", bad, [](Json& j) { j["model"]["vocab"]["c"] = 1.5; }},
        {"vocab[\"c\"]", bad, [](Json& j) { j["model"]["vocab"]["c"] = "2"; }},
        {"vocab[\"c\"]", bad, [](Json& j) { j["model"]["vocab"]["c"] = int64_t{1} << 22; }},
        {"vocab[\"c\"]", bad, [](Json& j) { j["model"]["vocab"]["c"] = UINT64_MAX; }},
        {"id 1 twice", bad, [](Json& j) { j["model"]["vocab"]["c"] = 1; }},
        {"merges", bad, [](Json& j) { j["model"].erase("merges"); }},
        {"merges", bad, [](Json& j) { j["model"]["merges"] = "a b"; }},
        {"merges[1]", bad, [](Json& j) { j["model"]["merges"].push_back(7); }},
        {"merges[1]", bad, [](Json& j) { j["model"]["merges"].push_back("ab"); }},
        {"merges[1]", bad, [](Json& j) { j["model"]["merges"].push_back("a b c"); }},
        {"merges[1]", bad,
         [](Json& j) {
             j["model"]["merges"].push_back({"a", "b", "c"});
         }},
        {"merges[1]", bad,
         [](Json& j) {
             j["model"]["merges"].push_back({"a", 1});
         }},
        {"\"?\"", bad, [](Json& j) { j["model"]["merges"].push_back("a ?"); }},
        {"\"?\"", bad, [](Json& j) { j["model"]["merges"].push_back("? a"); }},
        {"\"ba\"", bad, [](Json& j) { j["model"]["merges"].push_back("b a"); }},
        {"unk_token", bad, [](Json& j) { j["model"]["unk_token"] = "<unk>"; }},
        {"unk_token", bad, [](Json& j) { j["model"]["unk_token"] = 1; }},
        {"fuse_unk", bad, [](Json& j) { j["model"]["fuse_unk"] = 1; }},
        {"byte_fallback", bad, [](Json& j) { j["model"]["byte_fallback"] = "yes"; }},
        {"ignore_merges", bad, [](Json& j) { j["model"]["ignore_merges"] = 0; }},
        {"\"Unigram\"", unsupported, [](Json& j) { j["model"]["type"] = "Unigram"; }},
        {"dropout", unsupported, [](Json& j) { j["model"]["dropout"] = 0.1; }},
        {"end_of_word_suffix", unsupported,
         [](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }},
        {"continuing_subword_prefix", unsupported,
         [](Json& j) { j["model"]["continuing_subword_prefix"] = "##"; }},
        {"added_tokens", bad, [](Json& j) { j["added_tokens"] = Json::object(); }},
        {"content", bad, [](Json& j) { j["added_tokens"][0].erase("content"); }},
        {"content", bad, [](Json& j) { j["added_tokens"].push_back("x"); }},
        {"id", bad, [](Json& j) { j["added_tokens"][0]["id"] = -1; }},
        {"id", bad, [](Json& j) { j["added_tokens"][0]["id"] = int64_t{1} << 22; }},
        {"lstrip", bad, [](Json& j) { j["added_tokens"][0]["lstrip"] = "no"; }},
        {"id 3", bad, [](Json& j) { j["added_tokens"][0]["id"] = 3; }},
        {"id 27", bad,
         [](Json& j) {
             j["added_tokens"].push_back({{"id", 27}, {"content", "</s>"}});
         }},
        {"content", unsupported,
         [](Json& j) { j["added_tokens"][0]["content"] = std::string(600, '<'); }},
        {"type", bad, [](Json& j) { j["normalizer"] = Json::object(); }},
        {"\"NFC\"", bad, [](Json& j) { j["normalizer"] = "NFC"; }},
        {"\"Precompiled\"", unsupported, [](Json& j) { j["normalizer"]["type"] = "Precompiled"; }},
        {"normalizers", bad, [](Json& j) { j["normalizer"]["type"] = "Sequence"; }},
        {"prepend", bad, [](Json& j) { j["normalizer"]["type"] = "Prepend"; }},
        {"prepend", unsupported,
         [](Json& j) {
             j["normalizer"] = {{"type", "Prepend"}, {"prepend", std::string(100, 'x')}};
         }},
        {"pattern", bad,
         [](Json& j) {
             j["normalizer"] = {{"type", "Replace"}, {"content", "x"}};
         }},
        {"strip_", bad, [](Json& j) { j["normalizer"]["type"] = "Strip"; }},
        {"\"Whitespace\"", unsupported, [](Json& j) { j["pre_tokenizer"]["type"] = "Whitespace"; }},
        {"pretokenizers", bad, [](Json& j) { j["pre_tokenizer"]["type"] = "Sequence"; }},
        {"replacement", bad, [](Json& j) { j["pre_tokenizer"]["type"] = "Metaspace"; }},
        {"add_prefix_space", bad, [](Json& j) { j["pre_tokenizer"]["type"] = "ByteLevel"; }},
        {"pattern", bad, [](Json& j) { j["pre_tokenizer"].erase("pattern"); }},
        {"String", bad, [](Json& j) { j["pre_tokenizer"]["pattern"] = Json::object(); }},
        {"(a+)+b", unsupported, [](Json& j) { j["pre_tokenizer"]["pattern"]["Regex"] = "(a+)+b"; }},
        {"String", unsupported,
         [](Json& j) {
             j["pre_tokenizer"]["pattern"] = {{"String", std::string(100, 'x')}};
         }},
        {"behavior", bad, [](Json& j) { j["pre_tokenizer"].erase("behavior"); }},
        {"\"Contiguous\"", unsupported,
         [](Json& j) { j["pre_tokenizer"]["behavior"] = "Contiguous"; }},
        {"invert", bad, [](Json& j) { j["pre_tokenizer"]["invert"] = 0; }},
        {"\"RobertaProcessing\"", unsupported,
         [](Json& j) { j["post_processor"]["type"] = "RobertaProcessing"; }},
        {"single", bad, [](Json& j) { j["post_processor"].erase("single"); }},
        {"template", unsupported, [](Json& j) { j["post_processor"]["single"] = Json::array(); }},
        {"special_tokens", bad, [](Json& j) { j["post_processor"].erase("special_tokens"); }},
        {"<s>", bad, [](Json& j) { j["post_processor"]["special_tokens"] = Json::object(); }},
        {"ids", bad, [](Json& j) { j["post_processor"]["special_tokens"]["<s>"]["ids"] = {-1}; }},
        {"post_processor", bad,
         [](Json& j) { j["post_processor"]["special_tokens"]["<s>"]["ids"] = {28}; }},
        {"\"WordPiece\"", unsupported, [](Json& j) { j["decoder"]["type"] = "WordPiece"; }},
        {"decoders", bad, [](Json& j) { j["decoder"]["type"] = "Sequence"; }},
        {"content", bad, [](Json& j) { j["decoder"]["content"] = "ab"; }},
        {"start", bad, [](Json& j) { j["decoder"]["start"] = -1; }},
        {"stop", bad, [](Json& j) { j["decoder"]["stop"] = 1e18; }},
    };
    for (size_t i = 0; i < damages.size(); ++i) {
        Json json = sound_tokenizer();
        damages[i].apply(json);
        SCOPED_TRACE("damage " + std::to_string(i) + ", " + damages[i].named);
        try {
            parse_tokenizer(json);
            ADD_FAILURE() << "was taken";
        } catch (const Error& error) {
            const std::string what = error.what();
            EXPECT_EQ(error.code(), damages[i].code) << what;
            EXPECT_NE(what.find(damages[i].named), std::string::npos) << what;
            EXPECT_NE(what.find("test.json"), std::string::npos) << what;
        }
    }
}

TEST(Broken, NoTextAtAll) {
    for (const char* text : {"", "null", "[]", "7", "{", "{\"model\":", "\xFF"}) {
        EXPECT_THROW(Tokenizer::parse(text, "test.json"), Error) << text;
    }
}

/// Changed and cut bytes end in a tokenizer or in an Error, and in nothing else.
TEST(Broken, RandomDamage) {
    const std::string sound = sound_tokenizer().dump();
    std::mt19937 random(5);
    size_t refused = 0;
    for (int round = 0; round < 3000; ++round) {
        std::string text = sound;
        for (int i = 0; i <= round % 4; ++i) {
            const size_t at = random() % text.size();
            if (random() % 8 == 0) text.resize(at + 1);
            if (at < text.size()) text[at] = "\"{}[]:,09-ae\\ "[random() % 14];
        }
        try {
            const auto tokenizer = Tokenizer::parse(text, "test.json");
            const Ids ids = tokenizer->encode("abc <s> 12ab", true);
            EXPECT_EQ(stream_all(*tokenizer, ids, false), tokenizer->decode(ids, false));
        } catch (const Error&) {
            ++refused;
        }
    }
    EXPECT_GT(refused, 1000u);
    EXPECT_LT(refused, 3000u);
}

}  // namespace
}  // namespace conclave::engine
